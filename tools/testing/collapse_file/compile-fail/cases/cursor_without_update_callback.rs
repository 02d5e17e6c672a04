// SPDX-License-Identifier: GPL-2.0

//! Nodes that the cursor frees stay on the list of nodes that hold only shadows. The shrinker walks
//! through freed memory.

#![forbid(unsafe_code)]

use kernel::{bindings::xarray, xarray::state::XaState};

fn walk<'a>(i_pages: *mut xarray) -> XaState<'a> {
    XaState::new(i_pages, 0, 0)
}

fn main() {}
