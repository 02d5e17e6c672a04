// SPDX-License-Identifier: GPL-2.0

//! Whoever maps a folio may write to it behind the copy.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{IsolatedBatch, OldFolios},
    page_cache::Cursor,
    rmap::UnmapBatch,
};

fn add<'m>(
    old: &mut OldFolios<'m, UnmapBatch>,
    cursor: Cursor<'_, 'm>,
    batch: IsolatedBatch,
) -> bool {
    old.add(cursor, batch).is_ok()
}

fn main() {}
