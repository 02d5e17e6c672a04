// SPDX-License-Identifier: GPL-2.0

//! A batch of old folios that were found under one hold of the page-cache lock.
//!
//! The batch holds references. Its folios are locked when their turn comes, and a page fault on a
//! folio whose turn has not come can finish.

use crate::{
    bindings,
    mm::folio::{Folio, FolioList, LockedFolio},
    sync::aref::ARef, //
};
use core::{ops::Range, ptr::NonNull};

/// The number of folios that a batch has room for, the same as in a `struct folio_batch`.
pub const BATCH_SIZE: usize = if cfg!(CONFIG_RUST_COLLAPSE_FILE_ONE_BY_ONE) {
    1
} else {
    bindings::FOLIO_BATCH_SIZE as usize
};

/// Folios that [`OldFolios`](super::OldFolios) has found, with holes between and after them.
///
/// Dropping it unlocks the folios and drops the references.
///
/// # Invariants
///
/// The object owns a reference to each folio of `folios[begin..len]`, and the locks of those before
/// `locked`. `begin <= locked <= len <= BATCH_SIZE`. The folios are in index order. All elements
/// before `len` are `Some`.
pub(super) struct Batch {
    folios: [Option<NonNull<bindings::folio>>; BATCH_SIZE],
    /// The folios before it were handed out.
    begin: usize,
    locked: usize,
    len: usize,
    /// The index after the last folio and the holes that follow it.
    end: usize,
}

impl Batch {
    /// Creates an empty batch.
    #[inline]
    pub(super) fn new() -> Self {
        // INVARIANT: There are no folios.
        Self {
            folios: [None; BATCH_SIZE],
            begin: 0,
            locked: 0,
            len: 0,
            end: 0,
        }
    }

    /// Starts over at `index`.
    #[inline]
    pub(super) fn restart(&mut self, index: usize) {
        self.clear();
        self.end = index;
    }

    /// Returns the number of folios, with those that were handed out.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is room for one more folio.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.len < BATCH_SIZE
    }

    /// Returns the index after the last folio and the holes that follow it.
    #[inline]
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Counts a hole at the end.
    #[inline]
    pub(super) fn add_hole(&mut self) {
        self.end += 1;
    }

    /// Adds a folio at the end. Does nothing if there is no room.
    #[inline]
    pub(super) fn push(&mut self, folio: ARef<Folio>) {
        let nr_pages = folio.nr_pages();

        if let Some(slot) = self.folios.get_mut(self.len) {
            *slot = Some(ARef::into_raw(folio).cast());
            // INVARIANT: The slot after the last folio has one now, with its reference.
            self.len += 1;
            self.end += nr_pages;
        }
    }

    /// Adds a folio that is locked already and has no data of the file system, if all others are
    /// locked. Drops it if there is no room.
    #[inline]
    pub(super) fn push_locked(&mut self, folio: LockedFolio) {
        if self.locked == self.len && self.has_room() {
            self.end += folio.nr_pages();
            self.folios[self.len] = Some(folio.into_raw());
            // INVARIANT: The object takes over the lock and the reference of the last folio.
            self.len += 1;
            self.locked = self.len;
        }
    }

    /// Returns folio `n`, if it is one of the batch.
    #[inline]
    pub(super) fn get(&self, n: usize) -> Option<&Folio> {
        if !(self.begin..self.len).contains(&n) {
            return None;
        }
        let folio = (*self.folios.get(n)?)?;

        // SAFETY: The batch owns a reference by the type invariant, for as long as it is borrowed.
        Some(unsafe { Folio::from_raw(folio.as_ptr()) })
    }

    /// Returns whether all folios are locked.
    #[inline]
    pub(super) fn is_locked(&self) -> bool {
        self.locked == self.len
    }

    /// Locks one folio after the other, if its lock is free, and passes it to `accept`:
    /// `folio_trylock()`.
    ///
    /// Passes `None` if the lock is not free. `accept` returns whether to go on. Returns the number
    /// of folios that were accepted.
    #[inline]
    pub(super) fn lock_while(
        &mut self,
        mut accept: impl FnMut(Option<&LockedFolio>) -> bool,
    ) -> usize {
        let (mut accepted, mut locked) = (self.begin, self.locked);

        for folio in self.folios[..self.len].iter().skip(accepted).flatten() {
            // SAFETY: The folio is alive, as the batch owns a reference.
            if accepted == locked && unsafe { bindings::folio_trylock(folio.as_ptr()) } {
                locked += 1;
            }
            // SAFETY: The batch owns the reference by the type invariant, and the lock by that or
            // since now. It keeps them while `accept` runs.
            let folio = (accepted < locked).then(|| unsafe { LockedFolio::from_ref(folio) });

            if !accept(folio) {
                break;
            }
            accepted += 1;
        }
        // INVARIANT: The locks of these folios were taken in the loop.
        self.locked = locked;
        accepted
    }

    /// Iterates over folios of the batch if all of them are locked.
    #[inline]
    pub(super) fn locked(&self, range: Range<usize>) -> impl Iterator<Item = &LockedFolio> {
        let folios = self.locked_folios(range).unwrap_or(&[]);

        folios.iter().flatten().map(|folio| {
            // SAFETY: The batch owns the reference and the lock by the type invariant. It keeps
            // them for as long as it is borrowed.
            unsafe { LockedFolio::from_ref(folio) }
        })
    }

    /// Returns folios of the batch if all of them are locked.
    #[inline]
    pub(super) fn locked_folios(
        &self,
        range: Range<usize>,
    ) -> Option<&[Option<NonNull<bindings::folio>>]> {
        if range.start < self.begin {
            return None;
        }
        self.folios[..self.locked].get(range)
    }

    /// Unlocks the folios from `n` on, and keeps their references.
    ///
    /// If one of them was unmapped, the TLBs must have been flushed.
    #[inline]
    pub(super) fn unlock_from(&mut self, n: usize) {
        while self.locked > n.max(self.begin) {
            // INVARIANT: The object gives up the lock of the last folio that is locked.
            self.locked -= 1;
            if let Some(folio) = self.get(self.locked) {
                // SAFETY: The batch owned the lock by the type invariant.
                unsafe { bindings::folio_unlock(folio.as_raw()) };
            }
        }
    }

    /// Takes the locked folios off the LRU and moves them to `list`.
    ///
    /// # Errors
    ///
    /// The first folio that is not on the LRU, which stays in the batch, as do those after it.
    #[inline]
    pub(super) fn isolate(&mut self, list: &mut FolioList) -> Result<(), &Folio> {
        let folios = &self.folios[self.begin..self.locked];

        // SAFETY: The batch owns the locks and the references by the type invariant. It gives up
        // those that are moved.
        let moved = unsafe { list.isolate(folios) };

        // INVARIANT: The list owns the folios that were moved.
        self.begin += moved;
        if self.begin == self.locked {
            return Ok(());
        }
        self.get(self.begin).map_or(Ok(()), Err)
    }

    /// Unlocks the folios and drops the references.
    #[inline]
    pub(super) fn clear(&mut self) {
        if self.begin < self.len {
            self.drop_all();
        }
        // INVARIANT: There are no folios.
        (self.begin, self.locked, self.len) = (0, 0, 0);
    }

    #[cold]
    #[inline(never)]
    fn drop_all(&mut self) {
        self.unlock_from(self.begin);
        for folio in self.folios[self.begin..self.len].iter().flatten() {
            // SAFETY: The batch owned a reference by the type invariant. The caller forgets the
            // folios.
            unsafe { bindings::folio_put(folio.as_ptr()) };
        }
    }
}

impl Drop for Batch {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}
