// SPDX-License-Identifier: GPL-2.0

//! A batch of old folios that were found under one hold of the page-cache lock.
//!
//! A batch holds references, and locks its folios one after the other. A page fault on a folio
//! whose turn has not come can therefore finish. If all folios were locked at once, a fault would
//! take a reference and wait for the lock, and that reference would make the collapse fail.

use crate::{
    bindings,
    mm::folio::{Folio, LockedFolio},
    sync::aref::ARef, //
};

/// The number of folios in a batch, the same as in a `struct folio_batch`.
const SIZE: usize = bindings::FOLIO_BATCH_SIZE as usize;

/// Folios that [`OldFolios`](super::OldFolios) has found, with holes between and after them.
///
/// Its user keeps it on the stack, because it is large. `OldFolios` only borrows it while it moves
/// from one state to another. Dropping it unlocks the folios and drops the references.
///
/// # Invariants
///
/// The first `len` of `folios` are `Some`, and the others `None`. They are in index order. The
/// object owns the locks of the first `locked`, which is at most `len`.
pub struct Batch {
    folios: [Option<ARef<Folio>>; SIZE],
    len: usize,
    locked: usize,
    /// The index after the last folio and the holes that follow it.
    end: usize,
    /// The first folio was locked before it was added.
    came_locked: bool,
}

impl Batch {
    /// Creates an empty batch.
    #[inline]
    pub fn new() -> Self {
        // INVARIANT: There are no folios.
        Self {
            folios: [const { None }; SIZE],
            len: 0,
            locked: 0,
            end: 0,
            came_locked: false,
        }
    }

    /// Starts over at `index`.
    #[inline]
    pub(super) fn restart(&mut self, index: usize) {
        self.clear();
        self.end = index;
    }

    /// Returns the number of folios.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is room for one more folio.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.len < SIZE
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
            *slot = Some(folio);
            // INVARIANT: The slot after the last folio has one now.
            self.len += 1;
            self.end += nr_pages;
        }
    }

    /// Starts over at `index` with a folio that is locked already.
    #[inline]
    pub(super) fn restart_with(&mut self, index: usize, folio: LockedFolio) {
        self.restart(index);
        self.push(folio.into_parts());
        // INVARIANT: The object takes over the lock of the only folio.
        self.locked = self.len;
        self.came_locked = true;
    }

    /// Returns whether folio `n` was locked before it was added.
    #[inline]
    pub(super) fn came_locked(&self, n: usize) -> bool {
        self.came_locked && n == 0
    }

    /// Returns folio `n`, which must be one of the batch.
    #[inline]
    pub(super) fn get(&self, n: usize) -> Option<&Folio> {
        self.folios.get(n)?.as_deref()
    }

    /// Locks folio `n`, the first that is not locked, if its lock is free: `folio_trylock()`.
    ///
    /// Returns whether it is locked. Returns true if it was locked before.
    #[inline]
    pub(super) fn try_lock(&mut self, n: usize) -> bool {
        if n < self.locked {
            return true;
        }
        let Some(folio) = self.get(n).filter(|_| n == self.locked) else {
            return false;
        };
        // SAFETY: The folio is alive, as the batch owns a reference.
        let locked = unsafe { bindings::folio_trylock(folio.as_raw()) };

        // INVARIANT: The lock of the next folio was taken just now, if at all.
        self.locked += usize::from(locked);
        locked
    }

    /// Returns folio `n` if it is locked.
    #[inline]
    pub(super) fn locked(&self, n: usize) -> Option<&LockedFolio> {
        let folio = self.folios[..self.locked].get(n)?.as_ref()?;

        // SAFETY: The batch owns the locks of the first `locked` folios by the type invariant. It
        // keeps them for as long as it is borrowed.
        Some(unsafe { LockedFolio::from_ref(folio) })
    }

    /// Unlocks the last folio that is locked, and keeps its reference.
    #[inline]
    pub(super) fn unlock_last(&mut self) {
        if let Some(folio) = self.locked(self.locked.wrapping_sub(1)) {
            let folio = folio.as_raw();

            // INVARIANT: The object gives up the lock of the last folio that is locked.
            self.locked -= 1;
            self.came_locked = false;
            // SAFETY: The batch owned the lock by the type invariant. Its user has flushed the TLBs
            // if the folio was unmapped.
            unsafe { bindings::folio_unlock(folio) };
        }
    }

    /// Hands out the locked folios in order.
    #[inline]
    pub(super) fn drain_locked(&mut self) -> DrainLocked<'_> {
        let (len, locked) = (self.len, self.locked);

        // INVARIANT: There are no folios. The iterator takes over the locks and empties its slots,
        // and the rest of the slots are emptied here.
        (self.len, self.locked) = (0, 0);
        let (locked, rest) = self.folios[..len].split_at_mut(locked);
        rest.fill_with(|| None);
        DrainLocked(locked.iter_mut())
    }

    /// Unlocks the folios and drops the references.
    #[inline]
    pub(super) fn clear(&mut self) {
        if self.len > 0 {
            self.drop_all();
        }
        self.came_locked = false;
    }

    #[cold]
    #[inline(never)]
    fn drop_all(&mut self) {
        drop(self.drain_locked());
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Batch {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

/// The locked folios of a [`Batch`], in order.
///
/// Dropping it unlocks those that are left.
///
/// # Invariants
///
/// The object owns the locks of all folios that are left.
pub(super) struct DrainLocked<'a>(core::slice::IterMut<'a, Option<ARef<Folio>>>);

impl Iterator for DrainLocked<'_> {
    type Item = LockedFolio;

    #[inline]
    fn next(&mut self) -> Option<LockedFolio> {
        let folio = self.0.next()?.take()?;

        // SAFETY: The iterator owns the lock by the type invariant, and hands it over.
        Some(unsafe { LockedFolio::from_parts(folio) })
    }
}

impl Drop for DrainLocked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
    }
}
