// SPDX-License-Identifier: GPL-2.0

//! The semaphore sleeps, and interrupts are disabled. Other tasks take the two locks in the right
//! order, so this is also a deadlock.

#![forbid(unsafe_code)]

use kernel::mm::{mapping::IMmapReadGuard, page_cache::LockedCursor};

fn look<'m>(locked: &LockedCursor<'_, 'm>) -> IMmapReadGuard<'m> {
    locked.i_mmap_read()
}

fn main() {}
