// SPDX-License-Identifier: GPL-2.0

//! Taking folios off the LRU, several under one hold of its lock.

use super::{Folio, IsolatedFolio, LockedFolio};
use crate::{
    bindings,
    types::NotThreadSafe, //
};
use core::ptr;

/// The LRU lock of the folio that was isolated last.
///
/// The pages that are taken off a list are subtracted from its size together, before the lock is
/// released. Reclaim does the same.
///
/// Dropping it releases the lock and restores the interrupt state.
///
/// Locks: the lruvec lock nests in the page-cache lock. Interrupts are disabled from the first
/// folio on. The object is private to one function, so its interrupt state nests correctly in that
/// of the caller.
///
/// # Invariants
///
/// - `lruvec` is null, or an `lruvec` whose lock the object owns. `flags` is the interrupt state
///   from before the lock was taken.
/// - `pages` pages have left `list` of `zone` in `lruvec`, and are still counted in its size.
///   There are none if `lruvec` is null.
pub(super) struct LruLock {
    lruvec: *mut bindings::lruvec,
    flags: usize,
    list: bindings::lru_list,
    zone: bindings::zone_type,
    pages: usize,
    _not_send: NotThreadSafe,
}

impl LruLock {
    /// Creates an object that holds no lock yet.
    #[inline]
    pub(super) fn new() -> Self {
        // INVARIANT: No lock is held, and no pages have been taken off.
        Self {
            lruvec: ptr::null_mut(),
            flags: 0,
            list: 0,
            zone: 0,
            pages: 0,
            _not_send: NotThreadSafe,
        }
    }

    /// Isolates `folio` like `folio_isolate_lru()`, but keeps the lruvec lock held for the next
    /// folio.
    ///
    /// # Errors
    ///
    /// Returns the folio if it is not on the LRU: another task has isolated it, or it is still in
    /// the LRU batch of a CPU.
    #[inline]
    pub(super) fn isolate(&mut self, folio: LockedFolio) -> Result<IsolatedFolio, LockedFolio> {
        // SAFETY: The folio is alive, as `folio` owns a reference.
        if !unsafe { bindings::folio_test_clear_lru(folio.as_raw()) } {
            return Err(folio);
        }
        // SAFETY: The folio is alive, as `folio` owns a reference.
        unsafe { bindings::folio_get(folio.as_raw()) };
        self.lock(&folio);
        // SAFETY: `lock()` has locked the folio's LRU. The flag was cleared above.
        unsafe { self.take_off(&folio) };
        // INVARIANT: The folio was isolated just now, with a reference of its own. A folio that is
        // off the LRU does not use `lru`.
        Ok(IsolatedFolio(folio))
    }

    /// Takes the lock of the LRU that `folio` is on, unless it is held already:
    /// `folio_lruvec_relock_irqsave()`.
    #[inline]
    fn lock(&mut self, folio: &Folio) {
        // SAFETY: The folio is alive by its type invariant. An `lruvec` that is locked is alive.
        let matches = |lruvec| unsafe { bindings::folio_matches_lruvec(folio.as_raw(), lruvec) };

        if !self.lruvec.is_null() && !matches(self.lruvec) {
            self.unlock();
        }
        if self.lruvec.is_null() {
            // INVARIANT: The call takes the lock and saves the interrupt state. No pages have been
            // taken off since.
            //
            // SAFETY: The folio is alive by its type invariant, and `flags` is valid for a write.
            self.lruvec =
                unsafe { bindings::folio_lruvec_lock_irqsave(folio.as_raw(), &mut self.flags) };
        }
    }

    /// Removes `folio` from its list like `lruvec_del_folio()`, but leaves the size of the list to
    /// [`settle`](Self::settle).
    ///
    /// # Safety
    ///
    /// The object must hold the lock of the folio's LRU. The caller must have cleared `PG_lru`.
    #[inline]
    unsafe fn take_off(&mut self, folio: &Folio) {
        let raw = folio.as_raw();
        // SAFETY: The folio is alive by its type invariant. Its list and zone change only under
        // the LRU lock, which is held by the safety contract.
        let (list, zone) = unsafe { (bindings::folio_lru_list(raw), bindings::folio_zonenum(raw)) };

        // SAFETY: The LRU lock is held and `PG_lru` is clear, by the safety contract, so no other
        // task can remove the folio. The multi-gen LRU keeps its own lists and sizes.
        if unsafe { bindings::lru_gen_del_folio(self.lruvec, raw, false) } {
            return;
        }
        if list != bindings::lru_list_LRU_UNEVICTABLE {
            // SAFETY: The folio is on an evictable list, whose lock is held by the safety contract.
            // (Unevictable folios are counted, but not linked.) The list entry may stay as it is,
            // because the folio is linked anew before the entry is read.
            unsafe { bindings::__list_del_entry(bindings::folio_lru(raw)) };
        }
        if (list, zone) != (self.list, self.zone) {
            self.settle();
            (self.list, self.zone) = (list, zone);
        }
        // INVARIANT: The folio's pages have left the list just now.
        self.pages += folio.nr_pages();
    }

    /// Subtracts the pages that were taken off from the size of their list.
    #[inline]
    fn settle(&mut self) {
        if self.pages == 0 {
            return;
        }
        // SAFETY: The lock is held, because there are pages. They have left the list and are still
        // counted. Both by the type invariants.
        unsafe {
            bindings::update_lru_size(self.lruvec, self.list, self.zone, -(self.pages as isize))
        };
        // INVARIANT: No page is counted any more.
        self.pages = 0;
    }

    /// Releases the lock, if it is held.
    #[inline]
    fn unlock(&mut self) {
        self.settle();
        if !self.lruvec.is_null() {
            // SAFETY: The object owns the lock, and `flags` is the interrupt state from before it
            // was taken, by the type invariants.
            unsafe { bindings::lruvec_unlock_irqrestore(self.lruvec, self.flags) };
            // INVARIANT: No lock is held. `settle()` has left no pages.
            self.lruvec = ptr::null_mut();
        }
    }
}

impl Drop for LruLock {
    #[inline]
    fn drop(&mut self) {
        self.unlock();
    }
}
