// SPDX-License-Identifier: GPL-2.0

//! The folio is freed with the others. A later access is to memory that belongs to another task.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    folio::Folio,
    page_cache::LockedCursor,
};

fn first<'a, 'm>(
    old: &'a mut OldFolios<'m, Gathering>,
    locked: &mut LockedCursor<'_, 'm>,
) -> Option<&'a Folio> {
    let kept = core::cell::Cell::new(None);
    old.find(locked, |folio| {
        kept.set(Some(folio));
        true
    });
    kept.get()
}

fn main() {}
