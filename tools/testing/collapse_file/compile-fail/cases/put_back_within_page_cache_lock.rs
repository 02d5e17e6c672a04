// SPDX-License-Identifier: GPL-2.0

//! Putting folios back flushes the TLBs, which waits for other CPUs. One of them may wait for the
//! page-cache lock with interrupts disabled.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, NoFolios, OldFolios},
    page_cache::LockedCursor,
};

fn put_back<'a, 'm>(
    old: &'a mut OldFolios<'m, Gathering>,
    locked: &LockedCursor<'_, 'm>,
) -> NoFolios<'a> {
    old.put_back(locked)
}

fn main() {}
