// SPDX-License-Identifier: GPL-2.0

//! `collapse_file()`: replace the small folios that cache a PMD-sized range of a file with one huge
//! folio.
//!
//! `collapse_scan_file()` calls it for khugepaged and `madvise(MADV_COLLAPSE)`, if the Rust
//! implementation is selected. The steps are:
//!
//! 1. Allocate the new folio, charge it to the memory cgroup, and lock it.
//! 2. Gather the old folios, a batch at a time: lock, unmap and isolate them. Swap in or read in
//!    what is missing. Count the holes, which only shmem may have, and leave them alone.
//! 3. Flush the TLBs. From here on the old folios do not change.
//! 4. Charge the file for the holes.
//! 5. Copy the old folios and clear the pages between them. Nothing is committed yet, because
//!    memory may turn out to be failing.
//! 6. If there are holes, walk the VMAs for a userfaultfd for missing pages. Take the page-cache
//!    lock for the last time. Store `XA_RETRY_ENTRY` in the empty slots, so that lockless readers
//!    wait. Compare their number with the count, and the number of registrations with that before
//!    the walk.
//! 7. Store the new folio in place of all of them, and release the lock.
//! 8. Retract page tables, unlock the new folio, and free the old ones.
//!
//! If a step up to 6 fails, the file keeps its content and its holes: each value below rolls back
//! what it stands for when it is dropped. Pages that were read or swapped in stay in memory. Pages
//! that were unmapped are mapped again at the next fault.
//!
//! [`kernel::mm::collapse`] describes the states of these values, and [`kernel::mm::mapping`] the
//! lock order.

#![forbid(unsafe_code)]

use core::ops::Range;
use kernel::mm::{
    collapse::{
        export_collapse_file,
        trace_collapse_file,
        CollapseControl,
        Copied,
        Gathering,
        NewFolio,
        NoFolios,
        OldFolios,
        Patience,
        ScanResult,
        BATCH_SIZE, //
    },
    folio::lru_add_drain,
    mapping::{AddressSpace, FileRef, PmdRange},
    mmdebug::vm_warn_on_once,
    page_cache::{Cursor, Entry, LockedCursor},
    Mm, //
};

export_collapse_file!(collapse_file);

/// The number of folios that are swapped in before the LRU batch of this CPU is drained.
const LRU_DRAIN: usize = 6;

/// Fields of the trace event besides the result.
struct Progress {
    new_pfn: usize,
    index: usize,
}

/// Collapses the range of `file` that begins at page `start`, for `addr` in `mm`.
///
/// Context: may sleep; no locks held. `start` is a multiple of `HPAGE_PMD_NR`.
fn collapse_file(
    mm: &Mm,
    addr: usize,
    file: &FileRef,
    start: usize,
    cc: &CollapseControl,
) -> ScanResult {
    let mapping = AddressSpace::of(file);
    let is_shmem = mapping.is_shmem();
    let mut progress = Progress {
        new_pfn: !0,
        index: 0,
    };

    // MADV_COLLAPSE ignores the shmem mount options.
    vm_warn_on_once!(!is_shmem && !mapping.supports_pmd_folios());

    let result = match replace_range(mm, file, mapping.pmd_range(start), cc, &mut progress) {
        Ok(()) if cc.is_khugepaged() => ScanResult::Succeed,
        // The caller maps the huge folio.
        Ok(()) => ScanResult::PteMappedHugepage,
        Err(result) => result,
    };

    trace_collapse_file(
        mm,
        progress.new_pfn,
        progress.index,
        addr,
        is_shmem,
        file,
        result,
    );
    result
}

fn replace_range(
    mm: &Mm,
    file: &FileRef,
    range: PmdRange<'_>,
    cc: &CollapseControl,
    progress: &mut Progress,
) -> Result<(), ScanResult> {
    let new = NewFolio::alloc_charged(mm, cc, range)?;
    progress.new_pfn = new.folio().pfn();

    let mut walk = range.walk();
    let (old, cursor) = copy(new, Cursor::new(&mut walk), file, cc, progress)?;

    progress.index = range.end();
    commit(old, cursor)
}

/// Gathers the old folios and copies them.
#[inline]
fn copy<'w, 'm>(
    new: NewFolio<'m>,
    cursor: Cursor<'w, 'm>,
    file: &FileRef,
    cc: &CollapseControl,
    progress: &mut Progress,
) -> Result<(OldFolios<'m, Copied>, Cursor<'w, 'm>), ScanResult> {
    let mut old = OldFolios::new(new).map_err(|_| ScanResult::AllocHugePageFail)?;

    // Almost always all slots exist, because most of the pages do.
    let locked = cursor
        .lock_with_slots()
        .map_err(|_| ScanResult::AllocHugePageFail)?;
    let cursor = gather(locked, &mut old, file, cc, progress)?;

    let old = old.flush(&cursor);
    let old = old.charge_holes(&cursor).map_err(|_| ScanResult::NoSpace)?;
    let old = old.copy(&cursor).map_err(|index| {
        progress.index = index;
        ScanResult::CopyMc
    })?;
    Ok((old, cursor))
}

/// Replaces the old folios in the page cache, under one hold of its lock.
// Out of line, as is `gather()`, so that their stack frames are not one.
#[inline(never)]
fn commit<'m>(old: OldFolios<'m, Copied>, cursor: Cursor<'_, 'm>) -> Result<(), ScanResult> {
    let (huge, replaced) = old
        .lock_for_commit(cursor)
        .fill_holes()
        .map_err(|_| ScanResult::StoreFailed)?
        .expect_holes()
        .map_err(|_| ScanResult::PageFilled)?
        .check_userfaultfd()
        .map_err(|_| ScanResult::ExceedNonePte)?
        .commit()
        .map_err(|_| ScanResult::StoreFailed)?;

    huge.retract_page_tables();
    huge.unlock();
    replaced.release();
    Ok(())
}

/// Gathers the folios of a range in `old`, a batch at a time.
///
/// It starts over after pages were read, because no folio may be locked while they are.
///
/// At the top of the loop the page-cache lock is held. `old` belongs to the caller, so that the
/// lock is released before anything is rolled back.
#[inline(never)]
fn gather<'w, 'm>(
    mut locked: LockedCursor<'w, 'm>,
    old: &mut OldFolios<'m, Gathering>,
    file: &FileRef,
    cc: &CollapseControl,
    progress: &mut Progress,
) -> Result<Cursor<'w, 'm>, ScanResult> {
    let range = locked.range();
    let is_shmem = range.mapping().is_shmem();
    let mut patience = Patience::new(cc);
    let mut unread = range.start();
    let mut swap_is_read = false;
    let mut failed = None;

    while old.next() < range.end() {
        let index = old.next();

        progress.index = index;
        let cursor = match locked.load(index) {
            Entry::Empty if is_shmem => {
                // Truncation or hole punching may have left nothing at all.
                if index == range.start() && locked.rest_is_empty() {
                    return Err(ScanResult::Truncated);
                }
                old.add_hole();
                continue;
            }
            entry if is_shmem && is_missing(&entry) => {
                let mut end = index + 1;
                let last = range.end().min(index + BATCH_SIZE);

                while end < last && is_missing(&locked.load(end)) {
                    end += 1;
                }
                let cursor = locked.unlock();

                if !swap_is_read {
                    // A disk reads all of them sooner than one after the other.
                    cursor.shmem_swap_readahead(index);
                    swap_is_read = true;
                }
                failed = instantiate(&cursor, index..end, old);
                cursor
            }
            Entry::Empty | Entry::Value => {
                // Another task may have taken away what was read.
                if index < unread && !patience.try_again() {
                    return Err(ScanResult::Fail);
                }
                unread = index + 1;

                let cursor = locked.unlock();

                read_in(&cursor, file, index, old.put_back(&cursor))?;
                locked = cursor
                    .lock_with_slots()
                    .map_err(|_| ScanResult::AllocHugePageFail)?;
                continue;
            }
            Entry::Folio(folio) if !is_shmem && folio.is_dirty() => {
                let cursor = locked.unlock();

                flush_if_read_only(&cursor, old.put_back(&cursor));
                return Err(ScanResult::PageDirtyOrWriteback);
            }
            Entry::Folio(folio) if !is_shmem && folio.is_under_writeback() => {
                return Err(ScanResult::PageDirtyOrWriteback);
            }
            Entry::Folio(_) => {
                old.find(&mut locked, |folio| {
                    if is_shmem {
                        folio.is_uptodate()
                    } else {
                        !folio.is_dirty() && !folio.is_under_writeback()
                    }
                });
                locked.unlock()
            }
        };

        let taken = old.take(&cursor, &mut patience);
        if let Some((at, result)) = taken.err().or(failed.take()) {
            progress.index = at;
            return Err(result);
        }

        progress.index = range.end();
        locked = old.lock(cursor).map_err(|_| ScanResult::PageFilled)?;
    }

    progress.index = range.end();
    Ok(locked.unlock())
}

/// Returns whether a shmem page was swapped out, or allocated by `fallocate()` and never written.
fn is_missing(entry: &Entry<'_>) -> bool {
    match entry {
        Entry::Empty => false,
        Entry::Value => true,
        Entry::Folio(folio) => !folio.is_uptodate(),
    }
}

/// Gets and locks shmem folios that are missing, as a batch.
///
/// If it fails for a page, the pages before are a batch. Returns the index and the result then.
#[inline(never)]
fn instantiate<'m>(
    cursor: &Cursor<'_, 'm>,
    indices: Range<usize>,
    old: &mut OldFolios<'m, Gathering>,
) -> Option<(usize, ScanResult)> {
    let mut next = indices.start;
    let mut added = 0;
    let mut failed = None;

    old.begin_batch();
    while next < indices.end {
        // Folio locks are waited for in ascending order.
        let folio = cursor.shmem_get_folio(next).map_err(|_| ScanResult::Fail);

        match folio.and_then(|folio| old.add_locked(folio)) {
            Ok(nr_pages) => next += nr_pages,
            Err(result) => {
                failed = Some((next, result));
                break;
            }
        }
        // New folios may still be in an LRU batch of this CPU. Draining many of them keeps
        // interrupts off for longer than anything else does.
        added += 1;
        if added % LRU_DRAIN == 0 {
            lru_add_drain();
        }
    }
    lru_add_drain();
    failed
}

/// Reads a regular file from `index` on, and waits for the page at `index`.
fn read_in(
    cursor: &Cursor<'_, '_>,
    file: &FileRef,
    index: usize,
    none: NoFolios<'_>,
) -> Result<(), ScanResult> {
    cursor.readahead(file, index, &none);
    // New folios may still be in an LRU batch of this CPU.
    lru_add_drain();
    match cursor.filemap_lock_folio(index) {
        Ok(folio) if folio.is_uptodate() => Ok(()),
        _ => Err(ScanResult::Fail),
    }
}

/// Starts writeback of a dirty file, in the hope that it is complete when khugepaged comes back.
///
/// A file that is not open for writing stays clean then. Other files may become dirty at any time,
/// so flushing them would not end.
fn flush_if_read_only(cursor: &Cursor<'_, '_>, none: NoFolios<'_>) {
    if !cursor.is_open_for_write() {
        cursor.filemap_flush(&none);
    }
}
