// SPDX-License-Identifier: GPL-2.0

//! A userfaultfd that is registered after the check can still observe a hole. It then waits for an
//! event that does not come.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{LastLock, SealedRange};

fn seal<'w, 'm>(locked: LastLock<'w, 'm>) -> Option<SealedRange<'w, 'm>> {
    locked.check_userfaultfd().ok()
}

fn main() {}
