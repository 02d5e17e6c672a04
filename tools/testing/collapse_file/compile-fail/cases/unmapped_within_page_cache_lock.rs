// SPDX-License-Identifier: GPL-2.0

//! Unmapping takes `i_mmap_rwsem`, which sleeps. Interrupts are disabled under the page-cache lock.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios, Patience},
    page_cache::LockedCursor,
};

fn take<'m>(
    old: &mut OldFolios<'m, Gathering>,
    locked: &LockedCursor<'_, 'm>,
    patience: &mut Patience,
) -> bool {
    old.take(locked, patience).is_ok()
}

fn main() {}
