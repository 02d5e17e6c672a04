// SPDX-License-Identifier: GPL-2.0

//! The XArray.

#[path = "../../../../../rust/kernel/xarray/state.rs"]
pub mod state;
