// SPDX-License-Identifier: GPL-2.0

//! `collapse_file()`: replace the small folios that cache a PMD-sized range of a file by one huge
//! folio.
//!
//! khugepaged and `madvise(MADV_COLLAPSE)` come here from `collapse_scan_file()`, if the
//! implementation in Rust is the one in use. In order:
//!
//! 1. Allocate the new folio, charge it to the memory cgroup, lock it.
//! 2. Gather the old folios: lock, take off the LRU and unmap every one, swap in and read in what
//!    is missing. Holes, which only shmem may have, are counted, and stay holes.
//! 3. Flush the TLBs: the old folios do not change any more.
//! 4. Charge the file for the holes.
//! 5. Copy the old folios and clear what lies between, with nothing committed yet: memory may turn
//!    out to be failing.
//! 6. If there are holes, make sure that none is filled behind the back of a userfaultfd, within
//!    the page-cache lock that is not released before the end: store `XA_RETRY_ENTRY` in the
//!    empty slots, so that lockless readers wait. Compare their number with what was counted.
//!    Only then look for a userfaultfd that waits for missing pages. One that is registered later
//!    has not observed a hole, so that all is as if the collapse had come before.
//! 7. Put the new folio in the place of all of them and release the lock.
//! 8. Retract page tables, unlock the new folio, free the old ones.
//!
//! Whatever fails up to step 6, the file has the content and the holes it had: each value below
//! undoes what it stands for when it is dropped. What had to be read or swapped in stays so, and
//! what had to be unmapped is mapped again at the next touch.
//!
//! The states that a value goes through, and the order of the locks, are told in
//! [`kernel::mm::page_cache`].

#![forbid(unsafe_code)]

use kernel::{
    alloc::flags::GFP_KERNEL,
    fs::file::LocalFile,
    mm::{
        folio::lru_add_drain,
        khugepaged::{
            export_collapse_file,
            trace_collapse_file,
            CollapseControl,
            FolioBatch,
            FolioSlots,
            NewFolio,
            OldFolios,
            ScanResult, //
        },
        mmdebug::{vm_bug_on, vm_warn_on_once},
        page_cache::{AddressSpace, Cursor, Entry, LockedCursor, PmdRange},
        rmap::UnmapBatch,
        Mm, //
    },
};

export_collapse_file!(collapse_file);

/// What the trace event tells besides the result.
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
    file: &LocalFile,
    start: usize,
    cc: &CollapseControl,
) -> ScanResult {
    let mapping = AddressSpace::of(file);
    let is_shmem = mapping.is_shmem();
    let mut progress = Progress {
        new_pfn: !0,
        index: 0,
    };

    // MADV_COLLAPSE does not ask whether the shmem mount wants huge pages.
    vm_warn_on_once!(!is_shmem && !mapping.supports_pmd_folios());

    let result = match replace_range(mm, file, mapping.pmd_range(start), cc, &mut progress) {
        Ok(()) if cc.is_khugepaged() => ScanResult::Succeed,
        // Have the caller map the huge folio.
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
    file: &LocalFile,
    range: PmdRange<'_>,
    cc: &CollapseControl,
    progress: &mut Progress,
) -> Result<(), ScanResult> {
    let new = NewFolio::alloc_charged(mm, cc, range)?;
    progress.new_pfn = new.folio().pfn();

    let mut old = OldFolios::new(range);
    let mut walk = range.walk();
    let cursor = Cursor::new(&mut walk);

    // Almost always all slots exist, because most of the pages do.
    let locked = cursor.lock_with_slots().map_err(|_| ScanResult::Fail)?;
    let cursor = gather(locked, &mut old, file, range, progress)?;
    let old = old.flush();

    let charge = cursor
        .charge_holes(old.holes())
        .map_err(|_| ScanResult::Fail)?;

    let mut copy = new.into_copy_cursor();
    for folio in old.folios() {
        copy.clear_until(folio.start());
        if !copy.copy_folio(folio) {
            progress.index = copy.index();
            return Err(ScanResult::CopyMc);
        }
    }
    let new = copy.clear_rest().mark_uptodate();
    progress.index = range.end();

    let sealed = if let Some(full) = old.full_range() {
        cursor.lock().seal_full(full)
    } else {
        let i_mmap = cursor.i_mmap_read();

        cursor
            .lock()
            .fill_holes()
            .map_err(|_| ScanResult::StoreFailed)?
            .expect_holes(old.holes())
            .map_err(|_| ScanResult::PageFilled)?
            .check_userfaultfd(i_mmap)
            .map_err(|_| ScanResult::ExceedNonePte)?
    };
    let (huge, replaced) = sealed.commit(new, charge, old);

    huge.retract_page_tables();
    huge.unlock();
    replaced.release();
    Ok(())
}

/// Gathers the folios of `range` in `old`, a batch at a time.
///
/// At the top of the loop the page-cache lock is held, and every folio in `old` is locked, off the
/// LRU, unmapped, and had no users but the page cache and us when that was last checked, under the
/// lock. `old` is the caller's, so that the lock is released before anything is rolled back.
fn gather<'w, 'm>(
    mut locked: LockedCursor<'w, 'm>,
    old: &mut OldFolios<'m, UnmapBatch>,
    file: &LocalFile,
    range: PmdRange<'m>,
    progress: &mut Progress,
) -> Result<Cursor<'w, 'm>, ScanResult> {
    let is_shmem = range.mapping().is_shmem();
    let index = &mut progress.index;
    let mut slots = FolioSlots::new();

    *index = range.start();
    while *index < range.end() {
        let (cursor, mut batch) = match locked.load(*index) {
            Entry::Empty if is_shmem => {
                // Truncation or hole punching may have left nothing at all.
                if *index == range.start() && locked.rest_is_empty() {
                    return Err(ScanResult::Truncated);
                }
                old.add_hole();
                *index += 1;
                continue;
            }
            Entry::Folio(folio) if is_shmem && !folio.is_uptodate() => {
                instantiate(locked.unlock(), *index, &mut slots)?
            }
            Entry::Value if is_shmem => instantiate(locked.unlock(), *index, &mut slots)?,
            Entry::Empty | Entry::Value => {
                read_in(locked.unlock(), file, *index, range.end(), &mut slots)?
            }
            Entry::Folio(folio) if !is_shmem && folio.is_dirty() => {
                flush_if_read_only(&locked.unlock());
                return Err(ScanResult::PageDirtyOrWriteback);
            }
            Entry::Folio(folio) if !is_shmem && folio.is_under_writeback() => {
                return Err(ScanResult::PageDirtyOrWriteback);
            }
            Entry::Folio(folio) => {
                let folio = folio.try_lock().ok_or(ScanResult::PageLock)?;
                let mut batch = FolioBatch::new(&mut slots, *index, folio);

                // Those behind it that want no more than this one.
                locked.extend(&mut batch, |folio| {
                    if is_shmem {
                        folio.is_uptodate()
                    } else {
                        !folio.is_dirty() && !folio.is_under_writeback()
                    }
                });
                (locked.unlock(), batch)
            }
        };

        batch.check(|folio| {
            // Truncation takes the folio lock, so the folio stays in the page cache from here on.
            vm_bug_on!(!folio.is_locked());

            if !folio.is_uptodate() {
                return Err(ScanResult::Fail);
            }

            // The range may have been truncated and filled with a huge folio before the first
            // folio was locked. That shows at the first one.
            if folio.is_pmd_order() {
                return Err(ScanResult::PteMappedHugepage);
            }

            if !folio.is_in(range.mapping()) {
                return Err(ScanResult::Truncated);
            }

            if !is_shmem && (folio.is_dirty() || folio.is_under_writeback()) {
                return Err(ScanResult::PageDirtyOrWriteback);
            }

            Ok(())
        });

        let mut batch = batch.isolate_lru();
        batch.release_private(GFP_KERNEL);

        // Somebody who uses a folio by another reference than ours and the page cache's might
        // write to it at any time: the result is `PageCount`. What unmapping finds to be dirty,
        // of a regular file, is not taken either.
        let batch = old.unmap(batch);
        let end = batch.end();
        let added = old.add(cursor, batch);

        // A folio that begins before the index is possible: somebody truncated the range where we
        // did not hold the lock and then wrote to it. That makes the number of holes wrong, which
        // is found out in the end.
        locked = match added {
            Ok(locked) => {
                *index = end;
                locked
            }
            Err((failed, result)) => {
                *index = failed;
                return Err(result);
            }
        };
    }

    Ok(locked.unlock())
}

/// Gets and locks a folio of shmem that was swapped out, or allocated by `fallocate()` and never
/// written.
fn instantiate<'w, 'm, 's>(
    cursor: Cursor<'w, 'm>,
    index: usize,
    slots: &'s mut FolioSlots,
) -> Result<(Cursor<'w, 'm>, FolioBatch<'s>), ScanResult> {
    let folio = cursor
        .shmem_get_folio(index)
        .map_err(|_| ScanResult::Fail)?;

    // A new folio may still be on its way to the LRU.
    lru_add_drain();
    Ok((cursor, FolioBatch::new(slots, index, folio)))
}

/// Reads a regular file from `index` up to `end` and locks the folio at `index`.
fn read_in<'w, 'm, 's>(
    cursor: Cursor<'w, 'm>,
    file: &LocalFile,
    index: usize,
    end: usize,
    slots: &'s mut FolioSlots,
) -> Result<(Cursor<'w, 'm>, FolioBatch<'s>), ScanResult> {
    cursor.readahead(file, index, end - index);
    // New folios may still be on their way to the LRU.
    lru_add_drain();
    let folio = cursor
        .filemap_lock_folio(index)
        .map_err(|_| ScanResult::Fail)?;

    Ok((cursor, FolioBatch::new(slots, index, folio)))
}

/// Starts writeback of a dirty file, hoping that it is through when khugepaged comes back.
///
/// What nobody has open for writing stays clean then. Of other files, folios may become dirty at
/// any time, and there would be no end to the flushing.
fn flush_if_read_only(cursor: &Cursor<'_, '_>) {
    if !cursor.is_open_for_write() {
        cursor.filemap_flush();
    }
}
