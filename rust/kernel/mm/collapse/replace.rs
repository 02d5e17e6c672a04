// SPDX-License-Identifier: GPL-2.0

//! The final critical section: filling the holes, checking for a userfaultfd, and the commit.
//!
//! All states are in one hold of the page-cache lock. `i_mmap_rwsem` is taken before it, if there
//! are holes.
//!
//! # Holes and userfaultfds
//!
//! A userfaultfd that is registered for missing pages expects an event for each page that its user
//! has observed to be missing. A collapse fills holes, which suppresses the event. So:
//!
//! 1. Walk the VMAs of the range, and remember how many registrations there were before. No
//!    spinlock is held, because there may be any number of VMAs.
//! 2. Take the page-cache lock, and store `XA_RETRY_ENTRY` in each empty slot. From now on, a
//!    lockless reader waits instead of observing a hole.
//! 3. Compare the number of holes with what was counted before. Pages and holes may have come and
//!    gone without the lock.
//! 4. Compare the number of registrations. If it has changed, walk the VMAs again. If one has a
//!    userfaultfd for missing pages, roll back.
//! 5. Store the huge folio over the whole range, which replaces the retry entries.
//!
//! A userfaultfd that is registered after step 4 cannot have observed a hole since step 2, so the
//! race is indistinguishable from a collapse that finished before the registration. A VMA can also
//! get its flags from another VMA, by `fork()` or `mremap()`. It enters the tree with
//! `i_mmap_rwsem` held for writing. The collapse holds it for reading from step 1 to step 4.
//!
//! The two sides hold different locks, so each needs a full barrier: here between steps 2 and 4,
//! and in `userfaultfd_register()` after the flags and the number were written. Otherwise the
//! collapse could read the old number while the user still observes the hole. The kernel's memory
//! model allows that.

use super::{Copied, HugeFolio, OldFolios, ReplacedFolios};
use crate::{
    bindings,
    error::{
        code::{EAGAIN, EBUSY},
        Error,
        Result, //
    },
    ffi::c_int,
    mm::{
        folio::{NodeStat, HPAGE_PMD_NR},
        mapping::{IMmapReadGuard, MissingWalk},
        page_cache::{Cursor, LockedCursor}, //
    },
    sync::barrier::{smp_mb, Full},
};

/// The number of walks over the VMAs without the page-cache lock.
const WALKS: usize = 3;

impl<'m> OldFolios<'m, Copied> {
    /// Takes `i_mmap_rwsem` and walks the VMAs if there are holes. Then takes the page-cache lock
    /// for the last time.
    ///
    /// Context: may sleep. Afterwards interrupts are disabled.
    ///
    /// # Panics
    ///
    /// Panics if `cursor` is over another range. No lock is held then.
    ///
    /// Without SMP, panics if interrupts are disabled.
    #[inline]
    pub fn lock_for_commit<'w>(self, cursor: Cursor<'w, 'm>) -> LastLock<'w, 'm> {
        assert!(cursor.range() == self.range());
        // If the caller has locked another cursor, to lock this one is a deadlock. Without SMP it
        // is not, and the commit would free a folio that the other cursor lends.
        //
        // SAFETY: No preconditions.
        #[cfg(not(CONFIG_SMP))]
        assert!(!unsafe { bindings::irqs_disabled() });
        let (locked, missing) = if self.is_full() {
            (cursor.lock(), None)
        } else {
            let i_mmap = cursor.i_mmap_read();
            let (locked, walk) = Self::walk_and_lock(cursor, &i_mmap);
            (locked, Some((i_mmap, walk)))
        };

        // INVARIANT: No slot was filled. `is_full()` was checked above.
        LastLock(Section {
            _hold: LastHold::begin(&locked),
            locked,
            missing,
            old: self,
        })
    }

    /// Walks the VMAs and takes the page-cache lock.
    ///
    /// Walks them again if a userfaultfd was registered since. After a few times the final critical
    /// section walks them, with the lock held.
    fn walk_and_lock<'w>(
        mut cursor: Cursor<'w, 'm>,
        i_mmap: &IMmapReadGuard<'m>,
    ) -> (LockedCursor<'w, 'm>, MissingWalk) {
        let indices = cursor.range().indices();

        let mut walks = 1;

        loop {
            let walk = i_mmap.walk_missing(indices.clone());
            let locked = cursor.lock();

            if walks == WALKS || walk.is_current() {
                return (locked, walk);
            }
            cursor = locked.unlock();
            walks += 1;
        }
    }
}

/// The final critical section.
///
/// # Invariants
///
/// - `locked` is over `old`'s range.
/// - `old.collapse.retry_entries` slots of the range hold `XA_RETRY_ENTRY`. They were empty before.
/// - Up to the check for userfaultfds, `missing` is `None` only if the old folios are all of the
///   range.
struct Section<'w, 'm> {
    // Dropped in this order: the measurement ends with the lock held.
    _hold: LastHold,
    locked: LockedCursor<'w, 'm>,
    /// If there are holes: the lock that keeps the set of VMAs, and what a walk over them found.
    missing: Option<(IMmapReadGuard<'m>, MissingWalk)>,
    old: OldFolios<'m, Copied>,
}

impl Section<'_, '_> {
    /// Rolls the collapse back. Returns `error`.
    #[cold]
    #[inline(never)]
    fn give_up(self, error: Error) -> Error {
        drop(self);
        error
    }

    /// Removes the retry entries.
    #[cold]
    #[inline(never)]
    fn restore_holes(&mut self) {
        self.locked.remove_retry_entries();
        // INVARIANT: No slot holds a retry entry.
        self.old.collapse.retry_entries = 0;
    }
}

impl Drop for Section<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        // Other tasks need not wait for the slots.
        self.missing = None;
        if self.old.collapse.retry_entries > 0 {
            self.restore_holes();
        }
    }
}

/// The page-cache lock is held for the last time. The holes are still holes.
///
/// Dropping it rolls the collapse back.
#[must_use = "the collapse is rolled back as soon as this is dropped"]
pub struct LastLock<'w, 'm>(Section<'w, 'm>);

impl<'w, 'm> LastLock<'w, 'm> {
    /// Stores `XA_RETRY_ENTRY` in each empty slot of the range, so that no lockless reader observes
    /// a hole any more.
    ///
    /// Does nothing if the old folios are all of the range, because they have been locked since.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`](crate::error::code::ENOMEM) if a slot is missing and cannot be allocated.
    #[inline]
    pub fn fill_holes(mut self) -> Result<FilledRange<'w, 'm>> {
        let Section {
            locked,
            missing,
            old,
            ..
        } = &mut self.0;

        if missing.is_some() {
            // INVARIANT: The call counts the slots that it fills.
            //
            // SAFETY: Dropping the section removes the retry entries, and the commit replaces them.
            // Both happen before the lock is released.
            let stored = unsafe { locked.store_retry_entries(&mut old.collapse.retry_entries) };

            if let Err(error) = stored {
                return Err(self.0.give_up(error));
            }
        }
        Ok(FilledRange(self.0))
    }
}

/// A range without an empty slot: each hole holds `XA_RETRY_ENTRY`.
///
/// Dropping it rolls the collapse back.
#[must_use = "the collapse is rolled back as soon as this is dropped"]
pub struct FilledRange<'w, 'm>(Section<'w, 'm>);

impl<'w, 'm> FilledRange<'w, 'm> {
    /// Checks that the number of holes is still what was counted when the folios were gathered.
    ///
    /// # Errors
    ///
    /// [`EAGAIN`] if a page was added or removed.
    #[inline]
    pub fn expect_holes(self) -> Result<CountedRange<'w, 'm>> {
        let Section { missing, old, .. } = &self.0;

        if missing.is_some() && !old.make_up_range_with(old.collapse.retry_entries) {
            return Err(self.0.give_up(EAGAIN));
        }
        Ok(CountedRange(self.0))
    }
}

/// A filled range with as many holes as were counted.
///
/// Dropping it rolls the collapse back.
#[must_use = "the collapse is rolled back as soon as this is dropped"]
pub struct CountedRange<'w, 'm>(Section<'w, 'm>);

impl<'w, 'm> CountedRange<'w, 'm> {
    /// Checks that no VMA of the range, in any process, has a userfaultfd for missing pages.
    ///
    /// Does nothing if there is no hole. Releases `i_mmap_rwsem`. Write-protect and minor mode
    /// promise nothing about missing pages.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is such a VMA.
    #[inline]
    pub fn check_userfaultfd(mut self) -> Result<SealedRange<'w, 'm>> {
        let indices = self.0.old.range().indices();

        if let Some((i_mmap, walk)) = self.0.missing.take() {
            // Stores the retry entries before it reads the number of registrations. Pairs with the
            // barrier in `userfaultfd_register()`.
            smp_mb(Full);
            let found = if walk.is_current() {
                walk.found()
            } else {
                i_mmap.walk_missing(indices).found()
            };

            if found {
                drop(i_mmap);
                return Err(self.0.give_up(EBUSY));
            }
        }
        Ok(SealedRange(self.0))
    }
}

/// A range that can be replaced: it has no hole that another task may have observed.
///
/// Dropping it rolls the collapse back.
#[must_use = "the collapse is rolled back as soon as this is dropped"]
pub struct SealedRange<'w, 'm>(Section<'w, 'm>);

impl<'m> SealedRange<'_, 'm> {
    /// Replaces all that the range holds with the new folio, in one store, and releases the lock.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`](crate::error::code::ENOMEM) if a node is missing, which cannot be: every slot of
    /// the range holds something. The collapse is rolled back, with a warning.
    #[inline]
    pub fn commit(self) -> Result<(HugeFolio<'m>, ReplacedFolios<'m>)> {
        let mut section = self.0;
        let range = section.old.range();
        let is_shmem = range.mapping().is_shmem();
        let folio = section.old.new_folio();
        let pages = HPAGE_PMD_NR as c_int;

        // The page cache needs a reference for each page. The one from the allocation is the first.
        //
        // SAFETY: The folio is alive.
        unsafe { bindings::folio_ref_add(folio.as_raw(), HPAGE_PMD_NR as i32 - 1) };
        if is_shmem {
            // SAFETY: The folio is alive and locked. For shmem this sets a flag and takes no lock.
            unsafe { bindings::folio_mark_dirty(folio.as_raw()) };
        }

        // SAFETY: The new folio is locked and uptodate, and has this mapping and index, by the type
        // of `old`. It comes with a reference for each page. The range holds exactly the folios of
        // `old` and `retry_entries` retry entries. Their pages add up to the range, as `is_full()`
        // or `expect_holes()` has checked. The folios are locked since they were gathered, so they
        // are still in the page cache. Their references go to `old`. After a success `into_old()`
        // releases the cursor.
        let stored = unsafe { section.locked.store_huge(folio) };

        if let Err(error) = stored {
            crate::warn_on!(true);
            // SAFETY: The references were added above, and not handed over.
            unsafe { bindings::folio_ref_sub(folio.as_raw(), HPAGE_PMD_NR as i32 - 1) };
            return Err(section.give_up(error));
        }
        // INVARIANT: The store has replaced the retry entries.
        section.old.collapse.retry_entries = 0;
        let old = section.into_old();
        let folio = old.new_folio();

        // Truncation and reclaim wait for the folio lock.
        if is_shmem {
            folio.mod_stat(NodeStat::Shmem, pages);
            folio.mod_stat(NodeStat::ShmemThps, pages);
        } else {
            folio.mod_stat(NodeStat::FileThps, pages);
        }
        folio.mod_stat(NodeStat::FilePages, pages);
        // SAFETY: The folio is alive and not on an LRU.
        unsafe { bindings::folio_add_lru(folio.as_raw()) };

        // SAFETY: The store has put the new folio with its references in the page cache. The
        // references to the old folios were the page cache's, which has dropped them.
        Ok(unsafe { old.into_replaced() })
    }
}

impl<'m> Section<'_, 'm> {
    /// Releases the locks and returns the folios.
    #[inline]
    fn into_old(self) -> OldFolios<'m, Copied> {
        let this = core::mem::ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used again, so each field is moved out once. There
        // are no retry entries left to remove, as after every commit.
        unsafe {
            drop(core::ptr::read(&this._hold));
            drop(core::ptr::read(&this.locked));
            drop(core::ptr::read(&this.missing));
            core::ptr::read(&this.old)
        }
    }
}

/// How long the page-cache lock is held in the final critical section, for
/// `CONFIG_COLLAPSE_FILE_STATS`.
///
/// Dropping it counts the time. Context: the lock is held.
struct LastHold {
    #[cfg(CONFIG_COLLAPSE_FILE_STATS)]
    begin: u64,
}

impl LastHold {
    #[inline]
    fn begin(_locked: &LockedCursor<'_, '_>) -> Self {
        Self {
            // SAFETY: No preconditions: reads a clock.
            #[cfg(CONFIG_COLLAPSE_FILE_STATS)]
            begin: unsafe { bindings::collapse_file_hold_begin() },
        }
    }
}

impl Drop for LastHold {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: No preconditions: reads a clock and adds to a counter.
        #[cfg(CONFIG_COLLAPSE_FILE_STATS)]
        unsafe {
            bindings::collapse_file_hold_end(
                bindings::collapse_file_impl_COLLAPSE_FILE_RUST,
                self.begin,
            )
        };
    }
}
