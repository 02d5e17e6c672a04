// SPDX-License-Identifier: GPL-2.0

//! A page that was written after the holes were counted is not in the new folio: the data is
//! lost.

#![forbid(unsafe_code)]

use kernel::mm::{
    page_cache::{FilledCursor, SealedCursor},
    rmap::IMmapReadGuard,
};

fn seal<'w, 'm>(
    filled: FilledCursor<'w, 'm>,
    i_mmap: IMmapReadGuard<'m>,
) -> Option<SealedCursor<'w, 'm>> {
    filled.check_userfaultfd(i_mmap).ok()
}

fn main() {}
