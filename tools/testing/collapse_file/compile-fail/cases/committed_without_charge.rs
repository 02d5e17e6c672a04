// SPDX-License-Identifier: GPL-2.0

//! The file gets pages that it was not charged for: the counters of the inode and the file system
//! go below zero when these are truncated.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{NewFolio, OldFolios, Uptodate},
    page_cache::SealedCursor,
    rmap::Flushed,
};

fn replace<'m>(
    sealed: SealedCursor<'_, 'm>,
    new: NewFolio<'m, Uptodate>,
    old: OldFolios<'m, Flushed>,
) {
    sealed.commit(new, old);
}

fn main() {}
