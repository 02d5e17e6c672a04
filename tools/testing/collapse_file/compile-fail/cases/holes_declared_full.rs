// SPDX-License-Identifier: GPL-2.0

//! Who may declare a range with holes full fills them without the entries to retry on and without
//! a look for a userfaultfd.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{FullRange, OldFolios},
    page_cache::{LockedCursor, SealedCursor},
    rmap::Flushed,
};

fn seal<'w, 'm>(
    locked: LockedCursor<'w, 'm>,
    old: &OldFolios<'m, Flushed>,
) -> SealedCursor<'w, 'm> {
    locked.seal_full(FullRange(old))
}

fn main() {}
