// SPDX-License-Identifier: GPL-2.0

//! Only the lock keeps the folio in the page cache. After truncation has freed it, the code locks a
//! folio that belongs to another task.

#![forbid(unsafe_code)]

use kernel::mm::{
    folio::LockedFolio,
    page_cache::{Entry, LockedCursor},
};

fn lock_later(mut locked: LockedCursor<'_, '_>, index: usize) -> Option<LockedFolio> {
    let entry = locked.load(index);
    locked.unlock();
    match entry {
        Entry::Folio(folio) => folio.try_lock(),
        Entry::Empty | Entry::Value => None,
    }
}

fn main() {}
