// SPDX-License-Identifier: GPL-2.0

//! Lists of isolated folios, and how replaced folios are freed.

use super::{lru::LruLock, Folio, IsolatedFolio, LockedFolio, NodeStat};
use crate::{
    bindings,
    ffi::{c_int, c_uint},
    types::NotThreadSafe, //
};
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::NonNull, //
};

/// Isolated folios, linked through `lru` in the order they were added.
///
/// The folios form a ring of their own. There is no list head, so the object can move.
///
/// # Invariants
///
/// `first` is `None`, or an isolated folio in a ring that is linked through `lru`. The list owns
/// each folio of the ring as an [`IsolatedFolio`].
pub struct FolioList {
    first: Option<NonNull<bindings::folio>>,
    _not_send: NotThreadSafe,
}

impl FolioList {
    /// Creates an empty list.
    #[inline]
    pub fn new() -> Self {
        // INVARIANT: The list is empty.
        Self {
            first: None,
            _not_send: NotThreadSafe,
        }
    }

    /// Appends a folio.
    #[inline]
    pub fn push(&mut self, folio: IsolatedFolio) {
        let folio = ManuallyDrop::new(folio);

        match self.first {
            None => {
                // SAFETY: The `lru` field of an isolated folio is not in use.
                unsafe { bindings::INIT_LIST_HEAD(folio.lru()) };
                // INVARIANT: The folio is a ring of one, and the list owns it.
                self.first = NonNull::new(folio.as_raw());
            }
            Some(first) => {
                // SAFETY: `first` is alive and in a ring by the type invariant. The entry before
                // the first one is the last one. The `lru` field of an isolated folio is not in
                // use.
                unsafe {
                    bindings::list_add_tail(folio.lru(), bindings::folio_lru(first.as_ptr()))
                };
            }
        }
    }

    /// Removes the first folio.
    #[inline]
    pub fn pop(&mut self) -> Option<IsolatedFolio> {
        let first = self.first?;
        // SAFETY: `first` is in a ring of folios by the type invariant.
        let (lru, next) = unsafe {
            let lru = bindings::folio_lru(first.as_ptr());
            (lru, (*lru).next)
        };

        // INVARIANT: The rest of the ring, or nothing if `first` was alone.
        self.first = if next == lru {
            None
        } else {
            // SAFETY: Each entry of the ring is the `lru` field of a folio by the type invariant.
            NonNull::new(unsafe { bindings::lru_folio(next) })
        };
        // SAFETY: `first` is in a ring by the type invariant.
        unsafe { bindings::list_del(lru) };
        // SAFETY: The list owned the folio lock and its reference. The new object takes over both.
        let folio = unsafe { LockedFolio::from_raw(first) };
        // INVARIANT: The list owned the isolation. `lru` is not in use after `list_del()`.
        Some(IsolatedFolio(folio))
    }

    /// Takes locked folios off the LRU and appends them, as `folio_isolate_lru()` does one by one.
    ///
    /// The LRU lock is taken once for all consecutive folios of one LRU.
    ///
    /// Context: does not sleep.
    ///
    /// # Errors
    ///
    /// Returns the first folio that is not on the LRU. The ones after it stay in `folios`.
    #[inline]
    pub(in crate::mm) fn isolate(
        &mut self,
        folios: &mut impl Iterator<Item = LockedFolio>,
    ) -> Result<(), LockedFolio> {
        let mut lock = LruLock::new();

        for folio in folios {
            self.push(lock.isolate(folio)?);
        }
        Ok(())
    }

    /// Drops all references to the folios, which another folio has replaced in the page cache.
    ///
    /// The folios are no longer counted in `stats`.
    ///
    /// Context: may sleep; no page-cache lock is held.
    ///
    /// # Safety
    ///
    /// The folios must have been replaced in the page cache. The caller must own the references
    /// that the page cache held. The folios must still be counted in `stats`.
    pub(in crate::mm) unsafe fn free_replaced(self, stats: &[NodeStat]) {
        let mut refs = [0; bindings::FOLIO_BATCH_SIZE as usize];
        let list = ManuallyDrop::new(self);
        // The iterator advances before a folio is freed, and does not go back to it.
        let mut folios = list.iter();

        while folios.next.is_some() {
            let mut batch = MaybeUninit::uninit();
            // SAFETY: `batch` is valid for a write.
            unsafe { bindings::folio_batch_init(batch.as_mut_ptr()) };
            let mut run = StatRun::new(stats);

            for (refs, folio) in refs.iter_mut().zip(folios.by_ref()) {
                let raw = folio.as_raw();
                let nr_pages = folio.nr_pages();

                run.sub(folio, nr_pages);
                // SAFETY: The folio is alive and off the LRU, as the list owns its isolation. It is
                // no longer in the page cache, by the safety contract. A lockless lookup that found
                // it earlier checks the page cache again. `mapping` changes only under the folio
                // lock, which the list owns. The flags are changed atomically.
                unsafe {
                    bindings::folio_clear_mapping(raw);
                    bindings::folio_clear_active(raw);
                    bindings::folio_clear_unevictable(raw);
                }
                // SAFETY: The list owned the folio lock.
                unsafe { bindings::folio_unlock(raw) };
                // One reference is from locking, one from the isolation, the others are those of
                // the page cache.
                *refs = 2 + nr_pages as c_uint;
                // SAFETY: `batch` was initialized above. `refs` has as many elements as `batch`.
                unsafe { bindings::folio_batch_add(batch.as_mut_ptr(), raw) };
            }
            drop(run);
            // SAFETY: `refs` has the number of references to each folio in `batch` that the list
            // and, by the safety contract, the caller own. Neither uses them again.
            unsafe { bindings::folios_put_refs(batch.as_mut_ptr(), refs.as_mut_ptr()) };
        }
    }

    /// Iterates over the folios in order.
    #[inline]
    pub fn iter(&self) -> FolioListIter<'_> {
        // INVARIANT: `next` is the first folio of the ring, or `None`.
        FolioListIter {
            first: self.first,
            next: self.first,
            _list: PhantomData,
        }
    }

    /// Puts all folios back on their LRU and unlocks them.
    #[cold]
    #[inline(never)]
    fn put_back_all(&mut self) {
        while self.pop().is_some() {}
    }
}

impl Default for FolioList {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for FolioList {
    #[inline]
    fn drop(&mut self) {
        if self.first.is_some() {
            self.put_back_all();
        }
    }
}

/// Subtracts folios from counters, consecutive ones of the same node and memory cgroup together.
struct StatRun<'a> {
    stats: &'a [NodeStat],
    last: Option<&'a Folio>,
    pages: c_int,
}

impl<'a> StatRun<'a> {
    #[inline]
    fn new(stats: &'a [NodeStat]) -> Self {
        Self {
            stats,
            last: None,
            pages: 0,
        }
    }

    #[inline]
    fn sub(&mut self, folio: &'a Folio, pages: usize) {
        // SAFETY: Both folios are alive by the type invariant of `Folio`.
        let same =
            |last: &Folio| unsafe { bindings::folio_same_lruvec(last.as_raw(), folio.as_raw()) };

        if !self.last.is_some_and(same) {
            self.settle();
        }
        self.last = Some(folio);
        // A run has the pages of one PMD range at most.
        self.pages += pages as c_int;
    }

    #[inline]
    fn settle(&mut self) {
        let Some(folio) = self.last.take() else {
            return;
        };
        for &stat in self.stats {
            folio.mod_stat(stat, -self.pages);
        }
        self.pages = 0;
    }
}

impl Drop for StatRun<'_> {
    #[inline]
    fn drop(&mut self) {
        self.settle();
    }
}

/// Iterator over the folios of a [`FolioList`].
///
/// # Invariants
///
/// `first` is the first folio of the list's ring. `next` is `None` or a folio of the ring.
pub struct FolioListIter<'a> {
    first: Option<NonNull<bindings::folio>>,
    next: Option<NonNull<bindings::folio>>,
    _list: PhantomData<&'a FolioList>,
}

impl<'a> Iterator for FolioListIter<'a> {
    type Item = &'a Folio;

    #[inline]
    fn next(&mut self) -> Option<&'a Folio> {
        let folio = self.next?;
        // SAFETY: `folio` is in a ring of folios by the type invariant. The ring does not change
        // while the list is borrowed.
        let next = NonNull::new(unsafe {
            bindings::lru_folio((*bindings::folio_lru(folio.as_ptr())).next)
        });
        // INVARIANT: The next entry of the ring is a folio of it.
        self.next = if next == self.first { None } else { next };
        // SAFETY: The list owns a reference to the folio for as long as it is borrowed.
        Some(unsafe { Folio::from_raw(folio.as_ptr()) })
    }
}
