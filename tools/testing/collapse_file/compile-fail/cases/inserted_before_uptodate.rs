// SPDX-License-Identifier: GPL-2.0

//! A reader that finds the folio in the page cache zeroes it or reads it from the disk. Either
//! overwrites the copied content.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Charged, LastLock, OldFolios},
    page_cache::Cursor,
};

fn lock<'w, 'm>(old: OldFolios<'m, Charged>, cursor: Cursor<'w, 'm>) -> LastLock<'w, 'm> {
    old.lock_for_commit(cursor)
}

fn main() {}
