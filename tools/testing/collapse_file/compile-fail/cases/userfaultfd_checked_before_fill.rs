// SPDX-License-Identifier: GPL-2.0

//! A userfaultfd that is registered after the check can still see a hole, and then it waits for the
//! first touch of a page that is there.

#![forbid(unsafe_code)]

use kernel::mm::{
    page_cache::{LockedCursor, SealedCursor},
    rmap::IMmapReadGuard,
};

fn seal<'w, 'm>(
    locked: LockedCursor<'w, 'm>,
    i_mmap: IMmapReadGuard<'m>,
) -> Option<SealedCursor<'w, 'm>> {
    locked.check_userfaultfd(i_mmap).ok()
}

fn main() {}
