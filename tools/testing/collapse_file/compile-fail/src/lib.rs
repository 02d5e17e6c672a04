// SPDX-License-Identifier: GPL-2.0

//! Correct code with the same types as the cases in `cases/`.
//!
//! It is compiled before the cases, so that no case fails because of an import or a signature.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Charged, Copied, Flushed, Gathering, NewFolio, OldFolios, Patience, SealedRange},
    folio::LockedFolio,
    mapping::{FileRef, IMmapReadGuard, PmdRange},
    page_cache::{Cursor, Entry, LockedCursor},
};

/// Creates a walk, which outlives its cursor and sets the update callback.
pub fn begin(range: PmdRange<'_>) -> bool {
    let mut walk = range.walk();
    let cursor = Cursor::new(&mut walk);
    cursor.is_open_for_write();
    let locked = cursor.lock_with_slots();
    locked.is_ok()
}

/// Looks up and locks a folio under the page-cache lock, and sleeps without the lock.
pub fn look<'w, 'm>(
    mut locked: LockedCursor<'w, 'm>,
    index: usize,
) -> (Cursor<'w, 'm>, Option<LockedFolio>) {
    if let Entry::Folio(folio) = locked.load(index) {
        let folio = folio.try_lock();
        return (locked.unlock(), folio);
    }
    if locked.rest_is_empty() {
        return (locked.unlock(), None);
    }
    let cursor = locked.unlock();
    let folio = cursor.shmem_get_folio(index).ok();
    (cursor, folio)
}

/// Reads and writes back while no old folio is locked, and then gathers folios.
pub fn read<'m>(
    old: &mut OldFolios<'m, Gathering>,
    cursor: &Cursor<'_, 'm>,
    file: &FileRef,
    folio: LockedFolio,
) {
    let none = old.put_back(cursor);
    cursor.readahead(file, 0, &none);
    cursor.filemap_flush(&none);
    old.begin_batch();
    let _ = old.add_locked(folio);
}

/// Finds folios under the page-cache lock, and takes them without it.
pub fn take<'w, 'm>(
    new: NewFolio<'m>,
    mut locked: LockedCursor<'w, 'm>,
    patience: &mut Patience,
) -> Option<(Cursor<'w, 'm>, OldFolios<'m, Gathering>)> {
    let mut old = OldFolios::new(new).ok()?;
    old.find(&mut locked, |folio| folio.is_uptodate());
    let cursor = locked.unlock();
    old.take(&cursor, patience).ok()?;
    let cursor = old.lock(cursor).ok()?.unlock();
    Some((cursor, old))
}

/// Checks the VMAs of a range with an exclusive end, while the guard exists.
pub fn has_userfaultfd(i_mmap: &IMmapReadGuard<'_>, range: PmdRange<'_>) -> bool {
    i_mmap
        .vmas(range.start()..range.end())
        .any(|vma| vma.userfaultfd_missing())
}

/// Flushes the TLBs, charges for the holes and copies the folios.
pub fn copy<'m>(
    old: OldFolios<'m, Gathering>,
    cursor: &Cursor<'_, 'm>,
) -> Option<OldFolios<'m, Copied>> {
    let old: OldFolios<'m, Flushed> = old.flush(cursor);
    let old: OldFolios<'m, Charged> = old.charge_holes(cursor).ok()?;
    old.copy(cursor).ok()
}

/// Takes the locks in order, fills and counts the holes, and checks for a userfaultfd.
pub fn seal<'w, 'm>(
    cursor: Cursor<'w, 'm>,
    old: OldFolios<'m, Copied>,
) -> Option<SealedRange<'w, 'm>> {
    let filled = old.lock_for_commit(cursor).fill_holes().ok()?;
    filled.expect_holes().ok()?.check_userfaultfd().ok()
}

/// Commits, and frees the old folios without the page-cache lock.
pub fn replace(sealed: SealedRange<'_, '_>) -> bool {
    let Ok((huge, replaced)) = sealed.commit() else {
        return false;
    };
    huge.unlock();
    replaced.release();
    true
}
