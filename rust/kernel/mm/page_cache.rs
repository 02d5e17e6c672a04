// SPDX-License-Identifier: GPL-2.0

//! Cursors over a range of a file's page cache.
//!
//! A [`Cursor`] goes over one aligned range. Taking the page-cache lock turns it into a
//! [`LockedCursor`], and releasing the lock turns it back:
//!
//! - [`Cursor`]: the page-cache lock is not held. Operations on the mapping that may sleep are
//!   methods of it, so they cannot be called with this cursor's lock held.
//! - [`LockedCursor`]: the lock is held and interrupts are disabled. Entries can be looked up, and
//!   stay in the page cache until the lock is released.
//!
//! See [`mapping`](super::mapping) for the lock order, and [`collapse`](super::collapse) for how a
//! range is replaced by one folio.
//!
//! # Examples
//!
//! ```
//! use kernel::mm::{mapping::AddressSpace, page_cache::{Cursor, Entry}};
//!
//! # use kernel::mm::kunit::ShmemFile;
//! # let file = ShmemFile::new(512)?;
//! # file.fill(1..2)?;
//! // The range is all holes, except for the page at index 1.
//! let mut walk = AddressSpace::of(&file).pmd_range(0).walk();
//! let mut locked = Cursor::new(&mut walk).lock();
//! let hole = matches!(locked.load(0), Entry::Empty);
//! let page = matches!(locked.load(1), Entry::Folio(folio) if folio.is_uptodate());
//!
//! drop(locked);
//! assert!(hole && page);
//! # Ok::<(), Error>(())
//! ```
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use crate::{
    alloc::flags::GFP_KERNEL,
    error::Result,
    interrupt::LocalInterruptDisabled,
    mm::{
        folio::{Folio, HPAGE_PMD_ORDER},
        mapping::{IMmapReadGuard, PmdRange}, //
    },
    xarray::state::{XaEntry, XaLockIrqGuard, XaState},
};

impl<'m> PmdRange<'m> {
    /// Creates a walk over the range, for [`Cursor::new`].
    #[inline]
    pub fn walk(self) -> Walk<'m> {
        // SAFETY: Only this crate stores through the cursor. It stores huge folios that come with
        // the references of the page cache, and retry entries that it removes before it releases
        // the lock (see `mm::collapse`).
        let state = unsafe { self.mapping().xa_state(self.start()) };

        // INVARIANT: The cursor was created for this mapping.
        Walk { state, range: self }
    }
}

/// The state of a [`Cursor`], which its user keeps on the stack.
///
/// The cursor itself moves from one type to another, so it only borrows its state.
///
/// # Invariants
///
/// `state` is over the pages of `range`'s mapping.
pub struct Walk<'m> {
    state: XaState<'m>,
    range: PmdRange<'m>,
}

/// An entry of the page cache.
pub enum Entry<'a> {
    /// No page, and no trace of one. A retry entry, which stands for a hole, counts as this.
    Empty,
    /// No page: a swap entry of shmem, or the shadow of a reclaimed page.
    Value,
    /// A folio. It may begin at a lower index.
    Folio(&'a Folio),
}

/// A cursor over a range of a file's page cache. The page-cache lock is not held.
///
/// # Invariants
///
/// `state` is over the pages of `range`'s mapping.
pub struct Cursor<'w, 'm> {
    state: &'w mut XaState<'m>,
    range: &'w PmdRange<'m>,
}

impl<'w, 'm> Cursor<'w, 'm> {
    /// Creates a cursor at the start of the range.
    #[inline]
    pub fn new(walk: &'w mut Walk<'m>) -> Self {
        // INVARIANT: The state and the range belong together by the type invariant of `Walk`.
        Self {
            state: &mut walk.state,
            range: &walk.range,
        }
    }

    /// Takes the page-cache lock and disables interrupts.
    ///
    /// Context: does not sleep. Locking the page cache of one file twice is a deadlock.
    #[inline]
    pub fn lock(self) -> LockedCursor<'w, 'm> {
        // A failed `lock_with_slots()` and `store_huge()` leave the walk at the order of a PMD.
        self.state.set_order(self.range.start(), 0);
        // INVARIANT: The guard is over the pages of the range's mapping by the type invariant of
        // `Cursor`, and its order was set to 0.
        LockedCursor {
            guard: self.state.lock_irq(),
            range: self.range,
        }
    }

    /// Takes the page-cache lock after allocating a slot for each index of the range:
    /// `xas_create_range()`.
    ///
    /// Stores to single slots of the range succeed while the lock is held.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`](crate::error::code::ENOMEM) if there is no memory for a node.
    #[inline]
    pub fn lock_with_slots(mut self) -> Result<LockedCursor<'w, 'm>> {
        loop {
            let mut locked = self.lock();
            let range = locked.range;

            locked.guard.set_order(range.start(), HPAGE_PMD_ORDER);
            if locked.guard.create_range().is_ok() {
                // INVARIANT: For single entries again.
                locked.guard.set_order(range.start(), 0);
                return Ok(locked);
            }
            // The error stays in the cursor, for `nomem()`.
            self = locked.unlock();
            self.state.nomem(GFP_KERNEL)?;
        }
    }

    /// Returns the range.
    #[inline]
    pub fn range(&self) -> PmdRange<'m> {
        *self.range
    }

    /// Takes the `i_mmap_rwsem` of the file for reading: `i_mmap_lock_read()`.
    ///
    /// Context: may sleep.
    #[inline]
    pub fn i_mmap_read(&self) -> IMmapReadGuard<'m> {
        self.range.mapping().i_mmap_read()
    }
}

/// A cursor whose page-cache lock is held. Interrupts are disabled.
///
/// Dropping it releases the lock.
///
/// # Invariants
///
/// `guard` is over the pages of `range`'s mapping. Its order is 0, so it loads entries and not
/// nodes.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct LockedCursor<'w, 'm> {
    guard: XaLockIrqGuard<'w, 'm>,
    range: &'w PmdRange<'m>,
}

impl<'w, 'm> LockedCursor<'w, 'm> {
    /// Releases the page-cache lock.
    #[inline]
    pub fn unlock(self) -> Cursor<'w, 'm> {
        // INVARIANT: The state is over the pages of the range's mapping by the type invariant of
        // `LockedCursor`.
        Cursor {
            state: self.guard.unlock(),
            range: self.range,
        }
    }

    /// Returns the range.
    #[inline]
    pub fn range(&self) -> PmdRange<'m> {
        *self.range
    }

    /// Proof that interrupts are disabled.
    #[inline]
    pub fn irq_disabled(&self) -> &LocalInterruptDisabled {
        self.guard.irq_disabled()
    }

    /// Interprets `entry`.
    ///
    /// # Safety
    ///
    /// The guard must have found `entry` since the lock was taken, and `entry` must not have been
    /// replaced since.
    #[inline]
    unsafe fn entry(&self, entry: XaEntry) -> Entry<'_> {
        // A retry entry is found here only if another guard of this lock exists, which the lock
        // excludes unless a guard was leaked or the kernel has one CPU and no lock debugging. A
        // node is excluded by the type invariant. Neither may be taken for a folio.
        if entry.is_empty() || entry.is_internal() {
            Entry::Empty
        } else if entry.is_value() {
            Entry::Value
        } else {
            // SAFETY: Every other entry of a page cache is a folio, by the type invariant of
            // `AddressSpace`. The page cache owns references to it. The folio stays in the page
            // cache while the lock is held, and so for as long as the cursor is borrowed.
            Entry::Folio(unsafe { Folio::from_raw(entry.as_ptr().cast()) })
        }
    }

    /// Looks up `index`: `xas_load()`.
    #[inline(never)]
    pub fn load(&mut self, index: usize) -> Entry<'_> {
        self.load_inline(index)
    }

    /// [`load()`](Self::load) for loops over many indices.
    #[inline(always)]
    pub(super) fn load_inline(&mut self, index: usize) -> Entry<'_> {
        let entry = self.guard.load_at(index);

        // SAFETY: `load_at()` has found the entry just now.
        unsafe { self.entry(entry) }
    }

    /// Finds the first entry for `index` or above, up to and including `max`: `xas_find()`.
    ///
    /// Returns the first index that it is for, its order, and the entry. Its value comes with it if
    /// it is one.
    #[inline]
    pub(super) fn find(
        &mut self,
        index: usize,
        max: usize,
    ) -> Option<(usize, u32, Option<usize>, Entry<'_>)> {
        let (start, order, entry) = self.guard.find(index, max)?;

        // SAFETY: `find()` has found the entry just now.
        Some((start, order, entry.to_value(), unsafe { self.entry(entry) }))
    }

    /// Returns how many of the slots are empty.
    #[inline]
    pub(super) fn count_empty(&mut self, indices: core::ops::Range<usize>) -> usize {
        self.guard.set(indices.start);
        indices
            .filter(|_| self.guard.next_slot().is_empty())
            .count()
    }

    /// Stores `XA_RETRY_ENTRY` in each empty slot of the range, and counts them in `stored`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`](crate::error::code::ENOMEM) if a slot is missing and cannot be allocated.
    /// `stored` counts the slots that were filled until then.
    ///
    /// # Safety
    ///
    /// The retry entries must be removed or replaced before the lock is released.
    #[inline]
    pub(super) unsafe fn store_retry_entries(&mut self, stored: &mut usize) -> Result {
        let last = self.range.end() - 1;

        self.guard.set(self.range.start());
        loop {
            // SAFETY: The caller stores to the slots again before the lock is released.
            *stored += unsafe { self.guard.fill_retry(last) };
            let index = self.guard.index();

            if index > last {
                return Ok(());
            }
            // The slot was freed after it had been allocated.
            //
            // SAFETY: The index has no slot. The caller stores to it again.
            unsafe { self.guard.store_retry()? };
            *stored += 1;
            self.guard.set(index + 1);
        }
    }

    /// Empties each slot of the range that holds `XA_RETRY_ENTRY`.
    #[inline]
    pub(super) fn remove_retry_entries(&mut self) {
        self.guard.set(self.range.start());
        self.guard.remove_retry(self.range.end() - 1);
    }

    /// Stores `folio` over the whole range: `xas_store()`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`](crate::error::code::ENOMEM) if a node is missing and cannot be allocated. Nothing
    /// has changed then.
    ///
    /// # Safety
    ///
    /// - `folio` must be of PMD size, locked and uptodate, with the mapping and the index of the
    ///   range. It must come with a reference for each of its pages, which the page cache takes
    ///   over.
    /// - All folios in the range must be locked by the caller, who takes over the references that
    ///   the page cache holds to them.
    /// - After a success, the caller must only release the cursor.
    #[inline]
    pub(super) unsafe fn store_huge(&mut self, folio: &Folio) -> Result {
        self.guard.set_order(self.range.start(), HPAGE_PMD_ORDER);
        // SAFETY: The caller answers for the folio and for those that it replaces.
        let stored = unsafe { self.guard.store(folio.as_raw().cast()) };

        if stored.is_err() {
            // INVARIANT: The order is 0 again. After a success the cursor is only released.
            self.guard.set_order(self.range.start(), 0);
        }
        stored
    }

    /// Lends the guard to tests.
    #[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
    pub(super) fn guard(&mut self) -> &mut XaLockIrqGuard<'w, 'm> {
        &mut self.guard
    }

    /// Returns whether the range has no entry after the index last loaded, which was empty.
    #[inline]
    pub fn rest_is_empty(&mut self) -> bool {
        let next = self.guard.index().saturating_add(1);

        self.guard.find(next, self.range.end() - 1).is_none()
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_page_cache)]
mod tests {
    // Results are asserted after the page-cache lock was released, because a failing test ends its
    // thread.

    use super::*;
    use crate::{
        mm::{
            folio::HPAGE_PMD_NR,
            kunit::ShmemFile, //
        },
        xarray::kunit::IrqArray, //
    };

    const LAST: usize = HPAGE_PMD_NR - 1;

    /// A file of two ranges. The first has three pages: one at each end, and one between.
    fn file_with_holes() -> Result<ShmemFile> {
        let file = ShmemFile::new(2 * HPAGE_PMD_NR)?;

        file.fill(0..1)?;
        file.fill(70..71)?;
        file.fill(LAST..HPAGE_PMD_NR)?;
        Ok(file)
    }

    #[test]
    fn entries_are_told_apart() -> Result {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut locked = Cursor::new(&mut walk).lock_with_slots()?;

        let empty = [1, 69, 71, LAST - 1].map(|index| matches!(locked.load(index), Entry::Empty));
        let starts = [0, 70, LAST].map(|index| match locked.load(index) {
            Entry::Folio(folio) => Some(folio.index()),
            _ => None,
        });
        locked.guard.set(3);
        // SAFETY: The entry is a value, as for a swapped page. It is removed before the lock is
        // released.
        let stored = unsafe { locked.guard.store(IrqArray::value(5)) };
        let value = matches!(locked.load(3), Entry::Value);
        locked.guard.set(3);
        // SAFETY: A value owns nothing.
        unsafe { locked.guard.store_empty() };
        let gone = matches!(locked.load(3), Entry::Empty);
        drop(locked);

        stored?;
        assert!(empty == [true; 4]);
        assert!(starts == [Some(0), Some(70), Some(LAST)]);
        assert!(value && gone);
        Ok(())
    }

    #[test]
    fn rest_begins_after_the_hole_last_loaded() -> Result {
        let file = file_with_holes()?;
        file.punch(LAST);
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut locked = Cursor::new(&mut walk).lock();

        locked.load(1);
        let before = locked.rest_is_empty();
        locked.load(71);
        let after = locked.rest_is_empty();
        drop(locked);
        // A page after the range does not belong to its rest.
        file.fill(HPAGE_PMD_NR..HPAGE_PMD_NR + 1)?;
        let mut locked = Cursor::new(&mut walk).lock();
        locked.load(71);
        let next_range = locked.rest_is_empty();
        drop(locked);

        assert!(!before && after && next_range);
        Ok(())
    }

    #[test]
    fn lock_is_released_and_taken_again() -> Result {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut cursor = Cursor::new(&mut walk);

        for _ in 0..2 {
            let mut other = file.mapping().pmd_range(0).walk();
            cursor = cursor.lock().unlock();
            // This would be a deadlock.
            drop(Cursor::new(&mut other).lock());
        }
        Ok(())
    }

    #[test]
    fn empty_slots_are_counted() -> Result {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut locked = Cursor::new(&mut walk).lock();
        let counts = [0..1, 1..2, 0..71, 69..72, 0..HPAGE_PMD_NR, 5..5]
            .map(|indices| locked.count_empty(indices));
        drop(locked);

        assert_eq!(counts, [0, 1, 69, 2, HPAGE_PMD_NR - 3, 0]);
        Ok(())
    }

    #[test]
    fn retry_entry_is_no_folio() -> Result {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut locked = Cursor::new(&mut walk).lock_with_slots()?;

        locked.guard.set(3);
        // SAFETY: The slot is empty. It is emptied again before the lock is released.
        let stored = unsafe { locked.guard.store_retry() };
        let retry = matches!(locked.load(3), Entry::Empty);
        let found = matches!(locked.find(3, 3), Some((3, 0, None, Entry::Empty)));
        locked.guard.set(3);
        // SAFETY: A retry entry owns nothing.
        unsafe { locked.guard.store_empty() };
        drop(locked);

        stored?;
        assert!(retry && found);
        Ok(())
    }

    #[test]
    fn node_is_no_folio() -> Result {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut locked = Cursor::new(&mut walk).lock();

        // A cursor for a large entry stops at a node, which is what `load()` must not see.
        locked.guard.set_order(0, HPAGE_PMD_ORDER);
        let entry = locked.guard.load();
        // SAFETY: The guard has found the entry just now.
        let node = matches!(unsafe { locked.entry(entry) }, Entry::Empty);
        drop(locked);

        assert!(entry.is_internal() && node);
        Ok(())
    }
}
