// SPDX-License-Identifier: GPL-2.0

//! Writeback waits for the lock of a folio that is tagged as dirty. This task may hold it.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    folio::LockedFolio,
    page_cache::Cursor,
};

fn flush<'m>(old: &mut OldFolios<'m, Gathering>, cursor: &Cursor<'_, 'm>, folio: LockedFolio) {
    let none = old.put_back(cursor);
    old.begin_batch();
    let _ = old.add_locked(folio);
    cursor.filemap_flush(&none);
}

fn main() {}
