// SPDX-License-Identifier: GPL-2.0

//! To swap a page in takes sleeping, and within the page-cache lock interrupts are off: the machine
//! hangs.

#![forbid(unsafe_code)]

use kernel::mm::{folio::LockedFolio, page_cache::LockedCursor};

fn swap_in(locked: &LockedCursor<'_, '_>, index: usize) -> Option<LockedFolio> {
    locked.shmem_get_folio(index).ok()
}

fn main() {}
