// SPDX-License-Identifier: GPL-2.0

//! The file gets pages that it was not charged for. The counters of the inode and the file system
//! drop below zero when the pages are truncated.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Flushed, OldFolios},
    page_cache::Cursor,
};

fn copy<'m>(old: OldFolios<'m, Flushed>, cursor: &Cursor<'_, 'm>) -> bool {
    old.copy(cursor).is_ok()
}

fn main() {}
