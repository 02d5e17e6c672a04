// SPDX-License-Identifier: GPL-2.0

//! What the mistakes in `cases/` should have been, in the same types. It is compiled before they
//! are, so that none of them fails for an import or a signature.

#![forbid(unsafe_code)]

use kernel::mm::{
    folio::{FolioList, IsolatedFolio, LockedFolio},
    khugepaged::{CopyCursor, IsolatedBatch, NewFolio, OldFolios, Uptodate},
    page_cache::{Cursor, Entry, LockedCursor, PmdRange, SealedCursor},
    rmap::{Flushed, IMmapReadGuard, UnmapBatch},
    shmem::Charge,
};

/// The walk outlives the cursor, and had its update callback set when it was made.
pub fn begin(range: PmdRange<'_>) -> bool {
    let mut walk = range.walk();
    let cursor = Cursor::new(&mut walk);
    cursor.filemap_flush();
    let locked = cursor.lock_with_slots();
    locked.is_ok()
}

/// Looks and locks a folio within the lock, sleeps without it.
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

/// The list takes the folio over.
pub fn gather(list: &mut FolioList, folio: IsolatedFolio) {
    list.push(folio);
}

/// The folios are unmapped first, and stay with who has done that.
pub fn take<'m>(
    old: &mut OldFolios<'m, UnmapBatch>,
    cursor: Cursor<'_, 'm>,
    batch: IsolatedBatch,
) -> bool {
    let batch = old.unmap(batch);
    old.add(cursor, batch).is_ok()
}

/// Looks at the VMAs while the guard is there, by a range with an exclusive end.
pub fn has_userfaultfd(i_mmap: &IMmapReadGuard<'_>, range: PmdRange<'_>) -> bool {
    i_mmap
        .vmas(range.start()..range.end())
        .any(|vma| vma.userfaultfd_missing())
}

/// Copies after the flush, and marks the folio when all of it is written.
pub fn copy<'m>(
    mut copy: CopyCursor<'m>,
    old: OldFolios<'m, UnmapBatch>,
) -> Option<(NewFolio<'m, Uptodate>, OldFolios<'m, Flushed>)> {
    let old = old.flush();
    if !old.folios().all(|folio| copy.copy_folio(folio)) {
        return None;
    }
    Some((copy.clear_rest().mark_uptodate(), old))
}

/// Takes the locks in their order, fills, counts and checks.
pub fn seal<'w, 'm>(
    cursor: Cursor<'w, 'm>,
    old: &OldFolios<'m, Flushed>,
) -> Option<SealedCursor<'w, 'm>> {
    if let Some(full) = old.full_range() {
        return Some(cursor.lock().seal_full(full));
    }
    let i_mmap = cursor.i_mmap_read();
    let counted = cursor.lock().fill_holes().ok()?.expect_holes(old.holes());
    counted.ok()?.check_userfaultfd(i_mmap).ok()
}

/// Hands the charge and the old folios over, and frees these without the lock.
pub fn replace<'m>(
    sealed: SealedCursor<'_, 'm>,
    new: NewFolio<'m, Uptodate>,
    charge: Charge<'m>,
    old: OldFolios<'m, Flushed>,
) {
    let (huge, replaced) = sealed.commit(new, charge, old);
    huge.unlock();
    replaced.release();
}
