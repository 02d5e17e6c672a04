// SPDX-License-Identifier: GPL-2.0

//! The semaphore sleeps, and within the page-cache lock interrupts are off; others take the two
//! locks in the right order: a deadlock.

#![forbid(unsafe_code)]

use kernel::mm::{page_cache::LockedCursor, rmap::IMmapReadGuard};

fn look<'m>(locked: &LockedCursor<'_, 'm>) -> IMmapReadGuard<'m> {
    locked.i_mmap_read()
}

fn main() {}
