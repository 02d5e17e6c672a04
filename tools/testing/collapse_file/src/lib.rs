// SPDX-License-Identifier: GPL-2.0

//! Tests of `mm/collapse_file.rs` on the host: the tasks that disturb a collapse, the exploration of
//! their interleavings, and the properties that must hold. See `README.md`.

// The constants have the names that `bindgen` generates.
#![allow(non_upper_case_globals)]

pub mod actors;
pub mod explore;
pub mod properties;
pub mod scenario;
mod scheduler;
pub mod spec;

// It exports `rust_collapse_file()`, which the simulated C code calls.
use collapse as _;
