// SPDX-License-Identifier: GPL-2.0

//! A range with holes is declared full. They are filled without retry entries and without a check
//! for a userfaultfd.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{LastLock, SealedRange};

fn seal<'w, 'm>(locked: LastLock<'w, 'm>) -> SealedRange<'w, 'm> {
    SealedRange(locked.0)
}

fn main() {}
