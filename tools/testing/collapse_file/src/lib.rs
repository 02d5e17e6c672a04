// SPDX-License-Identifier: GPL-2.0

//! Tests of `mm/collapse_file.rs` on the host: tasks that get in its way, how to run them in every
//! order, and what has to hold. See `README.md`.

// The constants have the names that `bindgen` gives them.
#![allow(non_upper_case_globals)]

pub mod actors;
pub mod explore;
pub mod properties;
pub mod scenario;
pub mod spec;

// Exports `rust_collapse_file()`, which the simulated C side calls.
use collapse as _;
