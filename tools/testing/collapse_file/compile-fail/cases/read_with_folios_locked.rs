// SPDX-License-Identifier: GPL-2.0

//! Readahead takes `invalidate_lock`. Truncation holds it and waits for the folio that is locked
//! here, so neither task goes on.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    folio::LockedFolio,
    mapping::FileRef,
    page_cache::Cursor,
};

fn read<'m>(
    old: &mut OldFolios<'m, Gathering>,
    cursor: &Cursor<'_, 'm>,
    file: &FileRef,
    folio: LockedFolio,
) {
    let none = old.put_back(cursor);
    old.begin_batch();
    let _ = old.add_locked(folio);
    cursor.readahead(file, 0, &none);
}

fn main() {}
