// SPDX-License-Identifier: GPL-2.0

//! Lists of isolated folios, and how replaced folios are freed.

use super::{Folio, LockedFolio};
use crate::{
    bindings,
    ffi::c_uint,
    types::NotThreadSafe, //
};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull}, //
};

/// Locked folios that the task has taken off the LRU, linked through `lru` in the order they were
/// added.
///
/// The folios form a ring of their own. There is no list head, so the object can move. Dropping it
/// puts the folios back on their LRU, unlocks them, and drops the references.
///
/// # Invariants
///
/// `first` is `None`, or a folio in a ring that is linked through `lru`. The list owns the lock and
/// the isolation of each folio of the ring, and two references: one comes with the isolation.
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

    /// Removes the first folio, and hands it over with all that the list owns of it.
    #[inline]
    fn pop(&mut self) -> Option<NonNull<bindings::folio>> {
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
        Some(first)
    }

    /// Takes folios off the LRU and appends them: `folios_isolate_lru()`.
    ///
    /// Returns the number of folios that were moved. The first that was not on the LRU ends it.
    ///
    /// Context: does not sleep.
    ///
    /// # Safety
    ///
    /// The elements must be `Some`. The caller must own the lock and a reference of each folio, and
    /// hands over those of the folios that are moved.
    #[inline]
    pub(in crate::mm) unsafe fn isolate(
        &mut self,
        folios: &[Option<NonNull<bindings::folio>>],
    ) -> usize {
        // INVARIANT: The call links folios that it has isolated. The caller hands over the rest of
        // what a list owns.
        self.with_head(|head| {
            // SAFETY: The caller has references to the folios. `Option<NonNull<_>>` has the layout
            // of a pointer, and the function only reads the array. `head` is a list of isolated
            // folios, whose `lru` field is not in use otherwise.
            let nr = unsafe {
                bindings::folios_isolate_lru(
                    folios.as_ptr().cast_mut().cast(),
                    folios.len() as c_uint,
                    head,
                )
            };
            nr as usize
        })
    }

    /// Drops all references to the folios, which another folio has replaced in the page cache:
    /// `filemap_free_replaced()`.
    ///
    /// They are no longer counted as pages of a file.
    ///
    /// Context: may sleep; no page-cache lock is held.
    ///
    /// # Safety
    ///
    /// The folios must have been replaced in the page cache, and must still be counted as pages of
    /// a file. The caller must own the references that the page cache held.
    #[inline]
    pub(in crate::mm) unsafe fn free_replaced(mut self) {
        // SAFETY: The list owns the locks, the isolation and a reference of each folio. The caller
        // owns the others. The function empties the list.
        self.with_head(|head| unsafe { bindings::filemap_free_replaced(head) });
    }

    /// Calls `f` with a list head, which C code may add folios to, or empty.
    #[inline]
    fn with_head<R>(&mut self, f: impl FnOnce(*mut bindings::list_head) -> R) -> R {
        let mut head = bindings::list_head {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
        };
        let head = &raw mut head;

        match self.first {
            // SAFETY: `head` is valid for a write.
            None => unsafe { bindings::INIT_LIST_HEAD(head) },
            // SAFETY: `first` is in a ring of folios by the type invariant. The head comes before
            // it, that is after the last one.
            Some(first) => unsafe {
                bindings::list_add_tail(head, bindings::folio_lru(first.as_ptr()))
            },
        }
        let result = f(head);
        // SAFETY: `head` is in a ring.
        let next = unsafe { (*head).next };

        // INVARIANT: The first entry after the head, if there is one.
        self.first = if next == head {
            None
        } else {
            // SAFETY: Each entry but the head is the `lru` field of a folio.
            NonNull::new(unsafe { bindings::lru_folio(next) })
        };
        // SAFETY: `head` is in a ring. The others remain linked.
        unsafe { bindings::list_del(head) };
        result
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
        while let Some(folio) = self.pop() {
            // SAFETY: The list owned the isolation and its reference.
            unsafe { bindings::folio_putback_lru(folio.as_ptr()) };
            // SAFETY: The list owned the folio lock and another reference.
            drop(unsafe { LockedFolio::from_raw(folio) });
        }
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
