// SPDX-License-Identifier: GPL-2.0

//! The guard of a filled range can be unlocked with the retry entries in the tree. Readers spin
//! forever.

#![forbid(unsafe_code)]

use kernel::{mm::collapse::FilledRange, xarray::state::XaLockIrqGuard};

fn give_up<'w, 'm>(filled: FilledRange<'w, 'm>) -> XaLockIrqGuard<'w, 'm> {
    filled.0.guard
}

fn main() {}
