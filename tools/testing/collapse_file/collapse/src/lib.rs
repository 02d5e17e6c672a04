// SPDX-License-Identifier: GPL-2.0

//! `mm/collapse_file.rs`, included by path. It exports `rust_collapse_file()`.

#[path = "../../../../../mm/collapse_file.rs"]
mod collapse_file;

pub use collapse_file::rust_collapse_file;
