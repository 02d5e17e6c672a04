// SPDX-License-Identifier: GPL-2.0

//! Gathering the folios that a collapse replaces.
//!
//! Each batch is taken like this:
//!
//! 1. Lock its folios one after the other and check them. Let the file system release its data.
//! 2. Unmap them together. This ends at the first that has other users then.
//! 3. Check each one for other users, and wait for those that go away.
//! 4. Take them off the LRU together.
//!
//! Steps 2 and 3 are left out if no folio of shmem has other users.
//!
//! A folio that cannot be taken ends the batch. Those after it are unlocked, and found again.

use super::{
    checks::{check, check_users, has_users, NotTaken},
    old_folios::Collapse,
    Gathering, NoFolios, OldFolios, Patience, ScanResult,
};
use crate::{
    alloc::flags::GFP_KERNEL,
    mm::{
        folio::{lru_add_drain, Folio, FolioList, LockedFolio},
        mmdebug::vm_bug_on,
        page_cache::{Cursor, Entry, LockedCursor}, //
    },
};
use core::ops::Range;

/// The result of [`OldFolios::lock_batch`].
struct LockedBatch {
    /// The number of folios that are locked and checked.
    len: usize,
    /// The number of their pages.
    pages: usize,
    /// The index after the last of them.
    end: usize,
    /// One of them may have other users.
    to_check: bool,
    /// Why the next one is not.
    not_taken: Option<NotTaken>,
}

impl<'m> OldFolios<'m, Gathering> {
    /// Returns the index that is to be gathered next.
    #[inline]
    pub fn next(&self) -> usize {
        self.collapse.next
    }

    /// Counts a hole at [`next`](Self::next).
    #[inline]
    pub fn add_hole(&mut self) {
        self.collapse.next += 1;
    }

    /// Begins a batch with the folios at [`next`](Self::next) and after it.
    ///
    /// The first folio is taken as it is. The following ones must be `wanted`. If the file is
    /// shmem, holes are skipped. Any other entry ends the batch.
    ///
    /// Context: the page-cache lock is held, also by `wanted`.
    ///
    /// Does nothing if `locked` is a cursor over another range.
    #[inline(never)]
    pub fn find(&mut self, locked: &mut LockedCursor<'_, 'm>, wanted: impl Fn(&Folio) -> bool) {
        let range = self.range();
        let is_shmem = range.mapping().is_shmem();
        let Collapse { batch, next, .. } = &mut *self.collapse;

        batch.restart(*next);
        if locked.range() != range {
            return;
        }
        while batch.has_room() && batch.end() < range.end() {
            let index = batch.end();

            match locked.load_inline(index) {
                Entry::Empty if is_shmem => batch.add_hole(),
                Entry::Folio(folio)
                    if batch.len() == 0 || (folio.index() == index && wanted(folio)) =>
                {
                    batch.push(folio.into())
                }
                _ => return,
            }
        }
    }

    /// Begins a batch of folios that are locked already, at [`next`](Self::next).
    #[inline]
    pub fn begin_batch(&mut self) {
        let Collapse { batch, next, .. } = &mut *self.collapse;

        batch.restart(*next);
    }

    /// Adds a folio that is locked already, which was found at the end of such a batch.
    ///
    /// Returns the number of its pages. If there is no room it is unlocked.
    ///
    /// # Errors
    ///
    /// [`ScanResult::PageHasPrivate`] if the file system does not release its data. The folio is
    /// unlocked then.
    pub fn add_locked(&mut self, folio: LockedFolio) -> Result<usize, ScanResult> {
        let nr_pages = folio.nr_pages();

        if !folio.release_private(GFP_KERNEL) {
            return Err(ScanResult::PageHasPrivate);
        }
        self.collapse.batch.push_locked(folio);
        Ok(nr_pages)
    }

    /// Takes the folios of the batch.
    ///
    /// Each is locked and checked. Then they are unmapped together, each is checked for other
    /// users, and all are taken off the LRU. The batch ends before a folio that has left the page
    /// cache since it was found, or that another task uses for a moment. [`next`](Self::next) says
    /// where to go on.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem`.
    ///
    /// # Errors
    ///
    /// The index that failed, and why:
    ///
    /// - [`ScanResult::PageLock`]: another task keeps the folio locked;
    /// - [`ScanResult::Fail`]: the folio is not uptodate;
    /// - [`ScanResult::PteMappedHugepage`]: it is a huge folio;
    /// - [`ScanResult::Truncated`]: it is not in the range, or changes all the time;
    /// - [`ScanResult::DelPageLru`]: it is not on the LRU;
    /// - [`ScanResult::PageHasPrivate`]: the file system does not release its data;
    /// - [`ScanResult::PageCount`]: it has other users;
    /// - [`ScanResult::PageDirtyOrWriteback`]: of a regular file, it is dirty or under writeback.
    ///
    /// The TLBs are flushed, and the folios of the batch unlocked. The collapse cannot go on.
    #[inline]
    pub fn take(
        &mut self,
        _cursor: &Cursor<'_, 'm>,
        patience: &mut Patience,
    ) -> Result<(), (usize, ScanResult)> {
        // Two functions, so that their stack frames are not one.
        let locked = self.lock_batch(patience);

        self.take_locked(locked, patience)
    }

    /// Unmaps, checks and isolates the folios of the batch that are locked.
    #[inline(never)]
    fn take_locked(
        &mut self,
        batch: LockedBatch,
        patience: &mut Patience,
    ) -> Result<(), (usize, ScanResult)> {
        let LockedBatch {
            len: locked,
            mut pages,
            mut end,
            to_check,
            mut not_taken,
        } = batch;
        let begin = self.collapse.next;
        let is_shmem = self.range().mapping().is_shmem();
        let mut taken = if to_check { 0 } else { locked };
        let mapped = to_check
            && self
                .collapse
                .batch
                .locked(0..locked)
                .any(|folio| folio.is_mapped());

        while taken < locked {
            let mut last = locked;

            if mapped {
                let visited = self.unmap_batch(taken..locked, is_shmem).max(1);

                last = locked.min(taken + visited);
            }
            for folio in self.collapse.batch.locked(taken..last) {
                if let Err(reason) = check_users(folio, is_shmem, patience) {
                    not_taken = Some(reason);
                    break;
                }
                taken += 1;
            }
            if taken < last {
                break;
            }
        }

        let (result, pause) = match not_taken {
            None => (None, false),
            Some(NotTaken::Failed(result)) => (Some(result), false),
            Some(NotTaken::Moved) if patience.try_again() => (None, false),
            Some(NotTaken::Moved) => (Some(ScanResult::Truncated), false),
            Some(NotTaken::Busy(_)) if !patience.is_spent() => (None, true),
            Some(NotTaken::Busy(result)) => (Some(result), false),
        };
        if let Some(result) = result {
            return Err((self.give_up_batch(taken), result));
        }
        let Collapse {
            tlb,
            batch,
            end: list_end,
            ..
        } = &mut *self.collapse;
        // With the holes after the last folio.
        let mut next = batch.end().max(begin);

        if taken < batch.len() {
            // No folio is unlocked before the flush.
            tlb.flush();
            batch.unlock_from(taken);
            (next, end, pages) = (begin, *list_end, 0);
            for folio in batch.locked(0..taken) {
                end = folio.index() + folio.nr_pages();
                // A folio that begins before its index counts from there, as in C.
                next = folio.index().max(begin) + folio.nr_pages();
                pages += folio.nr_pages();
            }
        }
        self.isolate(begin, patience)?;
        // INVARIANT: `isolate()` has added the folios of the batch that were taken. They are in the
        // range, in order and after the ones before, as `check()` has seen, and have `pages` pages
        // together.
        self.collapse.next = next;
        self.collapse.end = end;
        self.collapse.pages += pages;
        // No reference is held any more to a folio that is not locked. Another collapse would wait
        // for it to go.
        self.collapse.batch.restart(next);
        if pause {
            patience.pause();
        }
        Ok(())
    }

    /// Puts all folios back and starts over at the beginning of the range.
    ///
    /// Pages that were unmapped are mapped again at the next fault.
    ///
    /// Context: may sleep.
    #[cold]
    pub fn put_back(&mut self, _cursor: &Cursor<'_, 'm>) -> NoFolios<'_> {
        let start = self.range().start();

        // No folio is unlocked before the flush.
        self.collapse.tlb.flush();
        self.collapse.batch.restart(start);
        // INVARIANT: There are no folios.
        self.collapse.list = FolioList::new();
        (self.collapse.next, self.collapse.end, self.collapse.pages) = (start, start, 0);
        (self.collapse.checked, self.collapse.checked_pages) = (start, 0);
        // The folios are in an LRU batch of this CPU. They could not be taken off the LRU again.
        lru_add_drain();
        NoFolios::new()
    }

    /// Gives up the batch because of folio `n`. Returns the index to report.
    #[inline]
    fn give_up_batch(&mut self, n: usize) -> usize {
        let Collapse {
            tlb, batch, next, ..
        } = &mut *self.collapse;
        let index = batch.get(n).map_or(*next, Folio::index);

        // No folio is unlocked before the flush.
        tlb.flush();
        batch.restart(*next);
        index.max(*next)
    }

    /// Locks and checks the folios of the batch, up to one that cannot be taken.
    #[inline(never)]
    fn lock_batch(&mut self, patience: &mut Patience) -> LockedBatch {
        let range = self.range();
        let is_shmem = range.mapping().is_shmem();
        let Collapse { batch, end, .. } = &mut *self.collapse;
        let came_locked = batch.is_locked();
        // Most folios have nothing to release. Test kernels inject failures into the function, so
        // they call it for each folio.
        let release =
            !came_locked && (cfg!(CONFIG_COLLAPSE_FILE_INJECT) || range.mapping().release_always());
        let mut end = *end;
        let mut pages = 0;
        let mut to_check = false;
        let mut not_taken = None;

        let len = batch.lock_while(|folio| {
            let Some(folio) = folio else {
                not_taken = Some(NotTaken::Busy(ScanResult::PageLock));
                return false;
            };

            match check(folio, range, is_shmem, came_locked, release, end, patience) {
                Ok((index, nr_pages)) => {
                    end = index + nr_pages;
                    pages += nr_pages;
                    // A page table has a reference, too, and drops it after the TLB flush. Reclaim
                    // may flush later, but the folio is not on the LRU until then. So nothing
                    // changes a folio without other references. But a page table may just have
                    // made a regular file's folio dirty.
                    to_check |= !is_shmem || has_users(folio);
                    true
                }
                Err(reason) => {
                    not_taken = Some(reason);
                    false
                }
            }
        });
        LockedBatch {
            len,
            pages,
            end,
            to_check,
            not_taken,
        }
    }

    /// Unmaps folios of the batch, which are locked and checked. Returns how many were visited.
    #[inline]
    fn unmap_batch(&mut self, folios: Range<usize>, is_shmem: bool) -> usize {
        let Collapse { tlb, batch, .. } = &mut *self.collapse;
        let Some(run) = batch.locked_folios(folios) else {
            return 0;
        };

        // SAFETY: The folios are in the mapping, in order, and smaller than a PMD, as `check()` has
        // seen. They have no private data, because `check()` and `add_locked()` have released it.
        // They stay locked in the batch or the list until the flush: both are dropped after `tlb`,
        // and `tlb` is flushed before a folio is unlocked in `take_locked()`, `give_up_batch()` and
        // `isolate()`.
        unsafe { tlb.unmap(run, 1, !is_shmem) }
    }

    /// Takes the locked folios of the batch off the LRU and adds them to the list.
    #[inline]
    fn isolate(
        &mut self,
        begin: usize,
        patience: &mut Patience,
    ) -> Result<(), (usize, ScanResult)> {
        let range = self.range();
        let Collapse {
            tlb,
            batch,
            list,
            end,
            ..
        } = &mut *self.collapse;

        while let Err(folio) = batch.isolate(list) {
            // Another task moves it between lists, or checks whether it can be reclaimed.
            if !patience.wait(|| folio.is_on_lru()) {
                let index = folio.index().max(begin);

                // No folio is unlocked before the flush.
                tlb.flush();
                batch.clear();
                // INVARIANT: The list has folios of this batch that are not counted. No folio may
                // be added to it any more, so it stays in order.
                *end = range.end();
                return Err((index, ScanResult::DelPageLru));
            }
        }
        Ok(())
    }

    /// Takes the page-cache lock and checks that the holes that were counted are still holes.
    ///
    /// If one was filled, the collapse would copy 2 MiB and then fail.
    ///
    /// # Errors
    ///
    /// The cursor, unlocked, if a hole was filled, or if more holes were counted than the range has
    /// indices.
    ///
    /// # Panics
    ///
    /// Panics if `cursor` is over another range. The lock is not held then.
    #[inline(never)]
    pub fn lock<'w>(
        &mut self,
        cursor: Cursor<'w, 'm>,
    ) -> Result<LockedCursor<'w, 'm>, Cursor<'w, 'm>> {
        assert!(cursor.range() == self.range());
        // The holes are counted with the lock held.
        if self.collapse.next > self.range().end() {
            return Err(cursor);
        }
        let Collapse {
            checked,
            checked_pages,
            next,
            pages: all_pages,
            list,
            ..
        } = &mut *self.collapse;
        let indices = *checked..*next;
        let pages = *all_pages - *checked_pages;

        // Faults wait for the folio locks.
        vm_bug_on!(list
            .iter()
            .any(|folio| folio.is_mapped() || !folio.is_locked()));
        let mut locked = cursor.lock();

        // A folio that begins before its index makes this differ, too.
        if indices.len() != pages && locked.count_empty(indices.clone()) + pages != indices.len() {
            return Err(locked.unlock());
        }
        (*checked, *checked_pages) = (*next, *all_pages);
        Ok(locked)
    }
}
