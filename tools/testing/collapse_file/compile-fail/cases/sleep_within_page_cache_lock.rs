// SPDX-License-Identifier: GPL-2.0

//! Swapping a page in sleeps, and interrupts are disabled under the page-cache lock. The machine
//! hangs.

#![forbid(unsafe_code)]

use kernel::mm::{folio::LockedFolio, page_cache::LockedCursor};

fn swap_in(locked: &LockedCursor<'_, '_>, index: usize) -> Option<LockedFolio> {
    locked.shmem_get_folio(index).ok()
}

fn main() {}
