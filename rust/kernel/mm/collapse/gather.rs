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
//! A folio that cannot be taken ends the batch. Those after it are unlocked, and found again.
//!
//! # Other users
//!
//! A folio that is locked, unmapped and without other references does not change any more. The
//! check that follows the unmapping is enough, and needs no lock but the folio's:
//!
//! - A page table cannot map the folio again, because the fault has to lock it first.
//! - `get_user_pages_fast()` takes a reference and then reads the page-table entry again. Unmapping
//!   clears the entry and then drops the reference of the page table, which is a full barrier. The
//!   check reads the reference count after that. One of the two sees the other.
//! - A lookup in the page cache may take a reference later. A reader may use it: the content is the
//!   same in the new folio. `write()`, faults and `memfd_pin_folios()` lock the folio, and find
//!   out that it was replaced.
//! - Reclaim, compaction and memory failure find the folio by the LRU or by its frame number. They
//!   lock it before they change anything.
//!
//! A transient reference looks like a pin, so the check is repeated for a bounded time
//! ([`Patience`]). A task that waits for the folio lock keeps its reference until it gets the lock.
//! The folio is unlocked for such a task, and looked up again later. While a folio lock is waited
//! for, no reference is held to a folio that is not locked: the owner of the lock may be another
//! collapse, which waits for that reference to go.

use super::{Gathering, NoFolios, OldFolios, Patience, ScanResult};
use crate::{
    alloc::flags::GFP_KERNEL,
    mm::{
        folio::{lru_add_drain, Folio, FolioList, LockedFolio},
        mapping::PmdRange,
        mmdebug::vm_bug_on,
        page_cache::{Cursor, Entry, LockedCursor}, //
    },
};
use core::ops::Range;

/// Why a folio of a batch was not taken.
enum NotTaken {
    /// The collapse fails.
    Failed(ScanResult),
    /// The folio has left the page cache since it was found.
    Moved,
    /// Another task has the folio locked, or waits for its lock with a reference.
    Busy(ScanResult),
}

/// What [`OldFolios::lock_batch`] has done.
struct LockedBatch {
    /// The number of folios that are locked and checked.
    len: usize,
    /// A page table maps one of them.
    mapped: bool,
    /// Why the next one is not.
    not_taken: Option<NotTaken>,
}

impl From<ScanResult> for NotTaken {
    #[inline]
    fn from(result: ScanResult) -> Self {
        Self::Failed(result)
    }
}

impl<'m> OldFolios<'m, Gathering<'_>> {
    /// Returns the index that is to be gathered next.
    #[inline]
    pub fn next(&self) -> usize {
        self.next
    }

    /// Counts a hole at [`next`](Self::next).
    #[inline]
    pub fn add_hole(&mut self) {
        self.next += 1;
    }

    /// Begins a batch with the folios at [`next`](Self::next) and after it.
    ///
    /// The first folio is taken as it is. The following ones must be `wanted`. If the file is
    /// shmem, holes are skipped. Any other entry ends the batch.
    ///
    /// Context: the page-cache lock is held, also by `wanted`.
    ///
    /// Does nothing if `locked` is a cursor over another range.
    #[inline]
    pub fn find(&mut self, locked: &mut LockedCursor<'_, 'm>, wanted: impl Fn(&Folio) -> bool) {
        let range = self.new.range();
        let is_shmem = range.mapping().is_shmem();
        let batch = &mut *self.state.batch;

        batch.restart(self.next);
        if locked.range() != range {
            return;
        }
        while batch.has_room() && batch.end() < range.end() {
            let index = batch.end();

            match locked.load(index) {
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

    /// Begins a batch with a folio that is locked already, which was found at [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// [`ScanResult::PageHasPrivate`] if the file system does not release its data. The folio is
    /// unlocked then.
    #[inline]
    pub fn begin_with(&mut self, folio: LockedFolio) -> Result<(), ScanResult> {
        self.state.batch.restart(self.next);
        self.add_locked(folio)
    }

    /// Adds a folio that is locked already, which was found after the last one of such a batch.
    ///
    /// If there is no room it is unlocked.
    ///
    /// # Errors
    ///
    /// [`ScanResult::PageHasPrivate`] if the file system does not release its data. The folio is
    /// unlocked then.
    #[inline]
    pub fn add_locked(&mut self, folio: LockedFolio) -> Result<(), ScanResult> {
        if !folio.release_private(GFP_KERNEL) {
            return Err(ScanResult::PageHasPrivate);
        }
        self.state.batch.push_locked(folio);
        Ok(())
    }

    /// Takes the folios of the batch.
    ///
    /// Each is locked and passed to `check`. Then they are unmapped together, each is checked for
    /// other users, and all are taken off the LRU. The batch ends before a folio that has left the
    /// page cache since it was found, or that another task uses for a moment.
    /// [`next`](Self::next) says where to go on.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem`. `check` is called with folio locks held.
    ///
    /// # Errors
    ///
    /// The index that failed, and why: the result of `check`, or
    ///
    /// - [`ScanResult::PageLock`]: another task keeps the folio locked;
    /// - [`ScanResult::Truncated`]: the folio is not in the range, or changes all the time;
    /// - [`ScanResult::DelPageLru`]: it is not on the LRU;
    /// - [`ScanResult::PageHasPrivate`]: the file system does not release its data;
    /// - [`ScanResult::PageCount`]: it has other users;
    /// - [`ScanResult::PageDirtyOrWriteback`]: of a regular file, a page table had it dirty.
    ///
    /// The TLBs are flushed, and the folios of the batch unlocked. The collapse cannot go on.
    #[inline(never)]
    pub fn take(
        &mut self,
        _cursor: &Cursor<'_, 'm>,
        patience: &mut Patience,
        check: impl Fn(&LockedFolio) -> Result<(), ScanResult>,
    ) -> Result<(), (usize, ScanResult)> {
        let begin = self.next;
        let is_shmem = self.new.range().mapping().is_shmem();
        let LockedBatch {
            len: locked,
            mapped,
            mut not_taken,
        } = self.lock_batch(is_shmem, patience, &check);
        let mut taken = 0;
        let mut visited = if mapped { 0 } else { locked };
        let mut next = begin;
        let mut end = self.end;
        let mut pages = 0;

        while taken < locked {
            if taken == visited {
                visited += self.unmap_batch(taken..locked, is_shmem);
            }
            match self.check_users(taken, is_shmem, patience) {
                Ok((index, nr_pages)) => {
                    end = index + nr_pages;
                    // A folio that begins before its index counts from there, as in C.
                    next = index.max(begin) + nr_pages;
                    pages += nr_pages;
                    taken += 1;
                }
                Err(reason) => {
                    not_taken = Some(reason);
                    break;
                }
            }
        }

        let pause = match not_taken {
            None => {
                // With the holes after the last folio.
                next = self.state.batch.end().max(begin);
                false
            }
            Some(NotTaken::Failed(result)) => return Err(self.fail(taken, result)),
            Some(NotTaken::Moved) if patience.try_again() => false,
            Some(NotTaken::Moved) => return Err(self.fail(taken, ScanResult::Truncated)),
            Some(NotTaken::Busy(_)) if !patience.is_spent() => true,
            Some(NotTaken::Busy(result)) => return Err(self.fail(taken, result)),
        };
        if taken < self.state.batch.len() {
            // No folio is unlocked before the flush.
            self.state.tlb.flush();
            self.state.batch.unlock_from(taken);
        }
        self.isolate(begin, patience)?;
        // INVARIANT: `isolate()` has added the folios of the batch that were taken. They are in the
        // range, in order and after the ones before, as `lock_one()` has checked, and have `pages`
        // pages together.
        self.next = next;
        self.end = end;
        self.pages += pages;
        // No reference is held any more to a folio that is not locked. Another collapse would wait
        // for it to go.
        self.state.batch.clear();
        if pause {
            patience.pause();
        }
        Ok(())
    }

    /// Puts all folios back and starts over at the beginning of the range.
    ///
    /// What was unmapped is mapped again at the next fault.
    ///
    /// Context: may sleep.
    #[cold]
    pub fn put_back(&mut self, _cursor: &Cursor<'_, 'm>) -> NoFolios<'_> {
        let start = self.new.range().start();

        // No folio is unlocked before the flush.
        self.state.tlb.flush();
        self.state.batch.clear();
        // INVARIANT: There are no folios.
        self.list = FolioList::new();
        (self.next, self.end, self.pages) = (start, start, 0);
        (self.state.checked, self.state.checked_pages) = (start, 0);
        // The folios are in an LRU batch of this CPU. They could not be taken off the LRU again.
        lru_add_drain();
        NoFolios::new()
    }

    /// Gives up the batch because of folio `n`. Returns the index to report.
    #[cold]
    fn fail(&mut self, n: usize, result: ScanResult) -> (usize, ScanResult) {
        let index = self.state.batch.get(n).map_or(self.next, Folio::index);

        // No folio is unlocked before the flush.
        self.state.tlb.flush();
        self.state.batch.clear();
        (index.max(self.next), result)
    }

    /// Locks and checks the folios of the batch, up to one that cannot be taken.
    #[inline]
    fn lock_batch(
        &mut self,
        is_shmem: bool,
        patience: &mut Patience,
        check: &impl Fn(&LockedFolio) -> Result<(), ScanResult>,
    ) -> LockedBatch {
        let mut end = self.end;
        let mut mapped = false;

        for n in 0..self.state.batch.len() {
            match self.lock_one(n, end, is_shmem, patience, check) {
                Ok(folio) => {
                    end = folio.index() + folio.nr_pages();
                    mapped |= folio.is_mapped();
                }
                Err(reason) => {
                    return LockedBatch {
                        len: n,
                        mapped,
                        not_taken: Some(reason),
                    }
                }
            }
        }
        LockedBatch {
            len: self.state.batch.len(),
            mapped,
            not_taken: None,
        }
    }

    /// Locks folio `n` of the batch and checks it. `end` is the index after the folio before it.
    #[inline]
    fn lock_one(
        &mut self,
        n: usize,
        end: usize,
        is_shmem: bool,
        patience: &mut Patience,
        check: &impl Fn(&LockedFolio) -> Result<(), ScanResult>,
    ) -> Result<&LockedFolio, NotTaken> {
        let range = self.new.range();
        let came_locked = self.state.batch.came_locked(n);
        let Some(folio) = self.state.batch.lock(n) else {
            return Err(NotTaken::Busy(ScanResult::PageLock));
        };

        // Truncation and reclaim may have been faster.
        if !came_locked && !range.mapping().is_mapping_of(folio) {
            return Err(NotTaken::Moved);
        }
        check(folio)?;
        // The copy and the commit rely on these, whatever `check` says.
        if !folio.is_uptodate() {
            return Err(ScanResult::Fail.into());
        }
        if !is_shmem && folio.is_under_writeback() {
            return Err(ScanResult::PageDirtyOrWriteback.into());
        }
        if !may_be_added(folio, range, end) {
            return Err(ScanResult::Truncated.into());
        }
        if !patience.wait(|| folio.is_on_lru()) {
            return Err(ScanResult::DelPageLru.into());
        }
        // Folios that came locked have none.
        if !came_locked && !folio.release_private(GFP_KERNEL) {
            return Err(ScanResult::PageHasPrivate.into());
        }
        Ok(folio)
    }

    /// Unmaps folios of the batch, which are locked and checked. Returns how many were visited.
    #[inline]
    fn unmap_batch(&mut self, folios: Range<usize>, is_shmem: bool) -> usize {
        let Gathering { tlb, batch, .. } = &mut self.state;
        let Some(run) = batch.locked_folios(folios) else {
            return 0;
        };

        // SAFETY: The folios are in the mapping, in order, and smaller than a PMD, as `lock_one()`
        // has checked. They stay locked in the batch or the list until the flush: both are dropped
        // after `tlb`, and `tlb` is flushed before a folio is unlocked in `take()`, `fail()` and
        // `isolate()`.
        unsafe { tlb.unmap(run, 1, !is_shmem) }
    }

    /// Checks that nothing uses folio `n` of the batch, which was unmapped.
    ///
    /// Returns its index and the number of its pages.
    #[inline]
    fn check_users(
        &mut self,
        n: usize,
        is_shmem: bool,
        patience: &mut Patience,
    ) -> Result<(usize, usize), NotTaken> {
        let Some(folio) = self.state.batch.locked(n) else {
            return Err(NotTaken::Moved);
        };
        let nr_pages = folio.nr_pages();
        let in_use = || folio.ref_count() != 1 + nr_pages;

        if in_use() {
            if !patience.wait(|| !in_use() || folio.has_waiters()) {
                return Err(ScanResult::PageCount.into());
            }
            if in_use() {
                // A task waits for the folio lock, and keeps its reference until it gets that.
                return Err(NotTaken::Busy(ScanResult::PageCount));
            }
        }
        // Unmapping has moved the dirty bits of the page tables to the folio. A clean folio stays
        // clean, because to write takes the folio lock.
        if !is_shmem && folio.is_dirty() {
            return Err(ScanResult::PageDirtyOrWriteback.into());
        }
        Ok((folio.index(), nr_pages))
    }

    /// Takes the locked folios of the batch off the LRU and adds them to the list.
    #[inline]
    fn isolate(
        &mut self,
        begin: usize,
        patience: &mut Patience,
    ) -> Result<(), (usize, ScanResult)> {
        let Gathering { tlb, batch, .. } = &mut self.state;

        while let Err(folio) = batch.isolate(&mut self.list) {
            // Another task moves it between lists, or looks whether it can be reclaimed.
            if !patience.wait(|| folio.is_on_lru()) {
                let index = folio.index().max(begin);

                // No folio is unlocked before the flush.
                tlb.flush();
                batch.clear();
                // INVARIANT: The list has folios of this batch that are not counted. No folio may
                // be added to it any more, so it stays in order.
                self.end = self.new.range().end();
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
    #[inline]
    pub fn lock<'w>(
        &mut self,
        cursor: Cursor<'w, 'm>,
    ) -> Result<LockedCursor<'w, 'm>, Cursor<'w, 'm>> {
        assert!(cursor.range() == self.new.range());
        // The holes are counted with the lock held.
        if self.next > self.new.range().end() {
            return Err(cursor);
        }
        let Gathering {
            checked,
            checked_pages,
            ..
        } = &mut self.state;
        let indices = *checked..self.next;
        let pages = self.pages - *checked_pages;

        // Faults wait for the folio locks.
        vm_bug_on!(self
            .list
            .iter()
            .any(|folio| folio.is_mapped() || !folio.is_locked()));
        let mut locked = cursor.lock();

        // A folio that begins before its index makes this differ, too.
        if indices.len() != pages && locked.count_empty(indices.clone()) + pages != indices.len() {
            return Err(locked.unlock());
        }
        (*checked, *checked_pages) = (self.next, self.pages);
        Ok(locked)
    }
}

/// Returns whether `folio` can be added after the folios that end before `end`.
#[inline]
fn may_be_added(folio: &Folio, range: PmdRange<'_>, end: usize) -> bool {
    range.mapping().is_mapping_of(folio)
        && !folio.is_pmd_order()
        && (end..range.end()).contains(&folio.index())
        && folio.nr_pages() <= range.end() - folio.index()
}
