// SPDX-License-Identifier: GPL-2.0

//! The folio is freed with the others. A later access is to memory that belongs to another task.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios, Patience},
    folio::LockedFolio,
    page_cache::Cursor,
};

fn first<'a, 'm>(
    old: &'a mut OldFolios<'m, Gathering<'_>>,
    cursor: &Cursor<'_, 'm>,
    patience: &mut Patience,
) -> Option<&'a LockedFolio> {
    let kept = core::cell::Cell::new(None);
    let taken = old.take(cursor, patience, |folio| {
        kept.set(Some(folio));
        Ok(())
    });
    taken.ok().and(kept.get())
}

fn main() {}
