// SPDX-License-Identifier: GPL-2.0

//! The right way to do what the cases in `cases/` do wrong, with the same types. It is compiled
//! before them, so that none of them fails for an import or a signature.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Charged, Copied, Flushed, Gathering, NewFolio, OldFolios, Patience, SealedRange},
    folio::LockedFolio,
    mapping::{FileRef, IMmapReadGuard, PmdRange},
    page_cache::{Cursor, Entry, LockedCursor},
};

/// The walk outlives the cursor, and has its update callback.
pub fn begin(range: PmdRange<'_>) -> bool {
    let mut walk = range.walk();
    let cursor = Cursor::new(&mut walk);
    cursor.is_open_for_write();
    let locked = cursor.lock_with_slots();
    locked.is_ok()
}

/// Looks a folio up and locks it under the lock, and sleeps without it.
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

/// Reads and flushes while no old folio is held, and gathers folios after that.
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

/// Folios are found under the lock, and taken without it.
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

/// Looks at the VMAs while the guard exists, by a range with an exclusive end.
pub fn has_userfaultfd(i_mmap: &IMmapReadGuard<'_>, range: PmdRange<'_>) -> bool {
    i_mmap
        .vmas(range.start()..range.end())
        .any(|vma| vma.userfaultfd_missing())
}

/// Flushes, charges and copies.
pub fn copy<'m>(
    old: OldFolios<'m, Gathering>,
    cursor: &Cursor<'_, 'm>,
) -> Option<OldFolios<'m, Copied>> {
    let old: OldFolios<'m, Flushed> = old.flush(cursor);
    let old: OldFolios<'m, Charged> = old.charge_holes(cursor).ok()?;
    old.copy(cursor).ok()
}

/// Takes the locks in their order, fills, counts and checks.
pub fn seal<'w, 'm>(
    cursor: Cursor<'w, 'm>,
    old: OldFolios<'m, Copied>,
) -> Option<SealedRange<'w, 'm>> {
    let filled = old.lock_for_commit(cursor).fill_holes().ok()?;
    filled.expect_holes().ok()?.check_userfaultfd().ok()
}

/// Commits, and frees the old folios without the lock.
pub fn replace(sealed: SealedRange<'_, '_>) -> bool {
    let Ok((huge, replaced)) = sealed.commit() else {
        return false;
    };
    huge.unlock();
    replaced.release();
    true
}
