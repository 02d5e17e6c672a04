// SPDX-License-Identifier: GPL-2.0

//! The XArray's advanced API: a cursor that walks and stores entries one by one.
//!
//! [`XaState`] is a `struct xa_state`. It remembers a node of the array. Other tasks may free that
//! node as soon as the array's lock is released. The operations that read the node therefore exist
//! only on [`XaLockIrqGuard`], which holds the lock. Taking the lock resets the cursor.
//!
//! This module does not know the meaning of the entries: they are plain pointers. The owner of an
//! array builds a safe interface on top (see [`crate::mm::page_cache`]).
//!
//! # Interrupts
//!
//! The lock is taken with `spin_lock_irq_disable()`, which counts how often interrupts were
//! disabled. Guards can therefore nest with each other and with
//! [`local_interrupt_disable()`](crate::interrupt::local_interrupt_disable), and can be dropped in
//! any order.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use crate::{
    alloc,
    bindings,
    error::{code::ENOMEM, to_result, Result},
    ffi::c_void,
    interrupt::LocalInterruptDisabled,
    types::NotThreadSafe, //
};
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit}, //
};

/// An entry of an XArray, as a cursor finds it.
///
/// Only a look at it: a pointer entry may be dereferenced as long as the array's owner says that
/// what it points to is alive.
#[derive(Clone, Copy)]
pub struct XaEntry(*mut c_void);

impl XaEntry {
    /// Returns whether the slot is empty.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_null()
    }

    /// Returns whether the entry is an integer and not a pointer: `xa_is_value()`.
    #[inline]
    pub fn is_value(self) -> bool {
        // SAFETY: `xa_is_value` looks at the bits of the pointer only.
        unsafe { bindings::xa_is_value(self.0) }
    }

    /// The integer that the entry is, if it is one: `xa_to_value()`.
    #[inline]
    pub fn to_value(self) -> Option<usize> {
        // SAFETY: `xa_to_value` makes a number of the pointer's bits.
        self.is_value()
            .then(|| unsafe { bindings::xa_to_value(self.0) })
    }

    /// Returns whether the entry is the array's own, and neither empty nor a value nor a pointer:
    /// `xa_is_internal()`.
    #[inline]
    pub fn is_internal(self) -> bool {
        // SAFETY: `xa_is_internal` looks at the bits of the pointer only.
        unsafe { bindings::xa_is_internal(self.0) }
    }

    /// Returns whether the entry is `XA_RETRY_ENTRY`, which makes lockless readers look again.
    #[inline]
    pub fn is_retry(self) -> bool {
        // SAFETY: `xa_is_retry` looks at the bits of the pointer only.
        unsafe { bindings::xa_is_retry(self.0) }
    }

    /// The entry itself.
    #[inline]
    pub fn as_ptr(self) -> *mut c_void {
        self.0
    }
}

/// A cursor over the entries of an XArray whose lock is taken with interrupts disabled
/// (`XA_FLAGS_LOCK_IRQ`): `struct xa_state`.
///
/// Nodes allocated ahead of their use are freed when it is dropped (`xas_destroy()`).
///
/// # Examples
///
/// ```
/// # use kernel::xarray::kunit::IrqArray;
/// # let array = IrqArray::new()?;
/// // The owner of the array hands out a cursor for index 3.
/// let mut state = array.state(3, 0);
///
/// loop {
///     // SAFETY: A number, which this array may have in it, in the place of nothing.
///     let stored = unsafe { state.lock_irq().store(IrqArray::value(42)) };
///
///     if stored.is_ok() {
///         break;
///     }
///     // The lock is released by now, so that this may sleep.
///     state.nomem(GFP_KERNEL)?;
/// }
///
/// let mut guard = state.lock_irq();
/// let (entry, next) = (guard.load_at(3), guard.load_at(4));
///
/// drop(guard);
/// assert_eq!(entry.to_value(), Some(42));
/// assert!(next.is_empty());
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// - `inner.xa` points to an initialized XArray that lives for `'a`.
/// - Unless a [`XaLockIrqGuard`] of this cursor exists, `inner.xa_node` is not used to reach a
///   node: it is reset when the lock is taken.
/// - If `at_slot` is set while a guard exists, a step leads to the slot of the next index.
pub struct XaState<'a> {
    inner: bindings::xa_state,
    at_slot: bool,
    _array: PhantomData<&'a bindings::xarray>,
}

impl<'a> XaState<'a> {
    /// Creates a cursor for an entry of `order` that contains `index`: `XA_STATE_ORDER()`.
    ///
    /// # Safety
    ///
    /// - `xa` must point to an initialized XArray that lives for `'a` and has
    ///   `XA_FLAGS_LOCK_IRQ` set.
    /// - The owner of the array must allow entries to be stored through the cursor that this crate
    ///   hands out. If it wants an update callback for its nodes, the caller must set that with
    ///   [`XaState::as_raw`] before the cursor's first use.
    ///
    /// # Panics
    ///
    /// If there are no entries of that order.
    #[inline]
    pub unsafe fn new(xa: *mut bindings::xarray, index: usize, order: u32) -> Self {
        assert!(order < usize::BITS);
        let mut inner = MaybeUninit::uninit();
        // SAFETY: `inner` is valid for a write of an `xa_state`; `xa` is a valid array.
        unsafe { bindings::xas_init_order(inner.as_mut_ptr(), xa, index, order) };
        // INVARIANT: `xa` is valid for `'a` by the safety contract; a new cursor is on no node.
        Self {
            // SAFETY: `xas_init_order` initialized every field.
            inner: unsafe { inner.assume_init() },
            at_slot: false,
            _array: PhantomData,
        }
    }

    /// The C object.
    #[inline]
    pub fn as_raw(&mut self) -> *mut bindings::xa_state {
        &raw mut self.inner
    }

    /// Moves the cursor to the entry of `order` that contains `index`: `xas_set_order()`.
    ///
    /// # Panics
    ///
    /// Panics if there are no entries of that order.
    #[inline]
    pub fn set_order(&mut self, index: usize, order: u32) {
        assert!(order < usize::BITS);
        self.at_slot = false;
        // SAFETY: Writes to fields of the cursor only. Multi-index entries are built in, as
        // `TRANSPARENT_HUGEPAGE` selects them.
        unsafe { bindings::xas_set_order(self.as_raw(), index, order) };
    }

    /// Takes the array's lock and disables interrupts: `spin_lock_irq_disable(&xa->xa_lock)`.
    ///
    /// Context: does not sleep. Taking the lock of an array that this task has already locked is a
    /// deadlock.
    #[inline(never)]
    pub fn lock_irq(&mut self) -> XaLockIrqGuard<'_, 'a> {
        // Before the lock, to keep it shorter. Nodes are freed while it is not held.
        //
        // SAFETY: `inner` is initialized. `xas_reset()` writes to the cursor only.
        unsafe { bindings::xas_reset(self.as_raw()) };
        self.at_slot = false;
        // SAFETY: `inner.xa` points to an initialized array by the type invariant, so its lock is
        // initialized too. Any task may take it in any context, since that disables interrupts. A
        // task that holds it already waits forever; on a kernel for one CPU it does not wait, and
        // the owner of the array must cope with that.
        unsafe { bindings::spin_lock_irq_disable(&raw mut (*self.inner.xa).xa_lock) };
        // INVARIANT: The lock was taken above, with interrupts disabled until it is released. The
        // cursor is on no node, by the reset.
        XaLockIrqGuard {
            state: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Allocates the node that the last operation could not allocate: `xas_nomem()`.
    ///
    /// Context: may sleep, if `gfp` allows it.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or if the last operation did not lack a node.
    #[inline]
    pub fn nomem(&mut self, gfp: alloc::Flags) -> Result {
        // SAFETY: `inner` is initialized. `xas_nomem` frees or sets `xa_alloc`, which only this
        // cursor owns, and looks at no node.
        if unsafe { bindings::xas_nomem(self.as_raw(), gfp.as_raw()) } {
            Ok(())
        } else {
            Err(ENOMEM)
        }
    }
}

impl Drop for XaState<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: Frees the list of nodes in `xa_alloc`, which only this cursor owns.
        unsafe { bindings::xas_destroy(self.as_raw()) };
    }
}

/// The lock of an XArray, with a cursor that may read its nodes.
///
/// Dropping it releases the lock.
///
/// # Invariants
///
/// - The guard owns the lock of the array and one count of `local_interrupt_disable()`.
/// - `state` is on no node, or at a slot of a node that it reached since the lock was taken.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct XaLockIrqGuard<'s, 'a> {
    state: &'s mut XaState<'a>,
    _not_send: NotThreadSafe,
}

impl<'s, 'a> XaLockIrqGuard<'s, 'a> {
    /// Releases the lock: `spin_unlock_irq_enable(&xa->xa_lock)`.
    #[inline]
    pub fn unlock(self) -> &'s mut XaState<'a> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: The guard owns the lock by the type invariant. Its `drop` does not run.
        unsafe { this.release() };
        let state: *mut XaState<'a> = &raw mut *this.state;
        // SAFETY: `state` comes from the `&'s mut` in the guard. The guard is not used again and
        // its `drop` does not run, so this is the only reference.
        unsafe { &mut *state }
    }

    /// Releases the lock.
    ///
    /// # Safety
    ///
    /// The guard must own the lock. It must not be used afterwards.
    #[inline(never)]
    unsafe fn release(&mut self) {
        // SAFETY: `inner.xa` points to an initialized array by the type invariant of `XaState`. The
        // caller owns the lock, which was taken by `spin_lock_irq_disable()`.
        unsafe { bindings::spin_unlock_irq_enable(&raw mut (*self.state.inner.xa).xa_lock) };
    }

    /// Proof that interrupts are disabled as long as the lock is held.
    #[inline]
    pub fn irq_disabled(&self) -> &LocalInterruptDisabled {
        // SAFETY: The guard owns a count of `local_interrupt_disable()` by the type invariant. It
        // keeps that for at least as long as it is borrowed. Functions that enable interrupts
        // regardless of the count must not be called with a lock held.
        unsafe { LocalInterruptDisabled::assume_disabled() }
    }

    /// Creates a slot for each index of the cursor's range: `xas_create_range()`.
    ///
    /// From then on the cursor stores into single slots, until [`set_order`](Self::set_order). It
    /// has to be moved before it is used.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if a node could not be allocated without sleeping. Release the lock, call
    /// [`XaState::nomem`] and try again.
    #[inline]
    pub fn create_range(&mut self) -> Result {
        self.state.at_slot = false;
        // SAFETY: `inner` is initialized.
        unsafe { bindings::xas_reset(self.state.as_raw()) };
        // SAFETY: The lock is held, and the cursor begins at the root. A cursor that is at a slot
        // of another size would be taken for one of this size.
        unsafe { bindings::xas_create_range(self.state.as_raw()) };
        self.error()
    }

    /// Moves the cursor to `index`: `xas_set()`. The next operation walks there.
    #[inline]
    pub fn set(&mut self, index: usize) {
        self.state.at_slot = false;
        // SAFETY: Writes to fields of the cursor only.
        unsafe { bindings::xas_set(self.state.as_raw(), index) };
    }

    /// [`XaState::set_order`], with the lock held.
    #[inline]
    pub fn set_order(&mut self, index: usize, order: u32) {
        self.state.set_order(index, order);
    }

    /// Returns the entry at the cursor, or the one it is a part of: `xas_load()`.
    ///
    /// If the cursor is for entries of an order above 0, that may be a node.
    #[inline]
    pub fn load(&mut self) -> XaEntry {
        self.state.at_slot = false;
        // SAFETY: The lock is held and the cursor is where it may be, by the type invariants.
        XaEntry(unsafe { bindings::xas_load(self.state.as_raw()) })
    }

    /// Returns the entry at `index`, or the one it is a part of.
    ///
    /// The cursor must be for single entries. The array is not walked from its root if the index
    /// before was loaded last.
    #[inline]
    pub fn load_at(&mut self, index: usize) -> XaEntry {
        if self.state.at_slot && self.state.inner.xa_index.wrapping_add(1) == index {
            let entry = self.next_slot();

            // An internal entry is a slot after the first one of a multi-index entry.
            if !entry.is_internal() {
                return entry;
            }
        }
        self.load_from_root(index)
    }

    #[inline(never)]
    fn load_from_root(&mut self, index: usize) -> XaEntry {
        self.set(index);
        let entry = self.load();

        // INVARIANT: The call says whether the cursor is at the slot of its index.
        //
        // SAFETY: Reads the cursor and its node, which is not stale by the type invariants.
        self.state.at_slot =
            index != usize::MAX && unsafe { bindings::xas_is_at_slot(self.state.as_raw()) };
        entry
    }

    /// Moves to the next index and returns what its slot holds: `xas_next()`.
    ///
    /// The first call after [`set`](Self::set) does not move. Unlike [`load`](Self::load) it does
    /// not resolve the slots after the first one of a multi-index entry: these are not empty, but
    /// not a pointer either.
    #[inline]
    pub fn next_slot(&mut self) -> XaEntry {
        // INVARIANT: The cursor is at the slot of its index if it was before.
        //
        // SAFETY: The lock is held and the cursor is where it may be, by the type invariants.
        XaEntry(unsafe { bindings::xas_next(self.state.as_raw()) })
    }

    /// Finds the first entry for `index` or above, up to and including `max`, past empty slots:
    /// `xas_find()`.
    ///
    /// Returns the first index that it is for, which may be below `index`, and its order: it is for
    /// `1 << order` indices. The cursor must be for single entries.
    #[inline]
    pub fn find(&mut self, index: usize, max: usize) -> Option<(usize, u32, XaEntry)> {
        self.set(index);
        // SAFETY: The lock is held and the cursor is where it may be, by the type invariants.
        let entry = XaEntry(unsafe { bindings::xas_find(self.state.as_raw(), max) });

        if entry.is_empty() {
            // INVARIANT: On no node. The search may have left the cursor past the last slot of one.
            self.set(self.state.inner.xa_index);
            return None;
        }
        // SAFETY: The cursor is on an entry, as it has just found it.
        let order = unsafe { bindings::xas_get_order(self.state.as_raw()) } as u32;
        // Entries are aligned to their size.
        let start = self.state.inner.xa_index >> order << order;
        Some((start, order, entry))
    }

    /// Stores `XA_RETRY_ENTRY` at the cursor: lockless readers wait until something else is
    /// stored.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if a node could not be allocated.
    ///
    /// # Safety
    ///
    /// The slot must be empty, and must be stored to again before the lock is released.
    #[inline]
    pub unsafe fn store_retry(&mut self) -> Result {
        self.state.at_slot = false;
        // SAFETY: The lock is held and the cursor is where it may be, by the type invariants. A
        // retry entry is allowed in any array.
        unsafe { bindings::xas_store(self.state.as_raw(), bindings::xa_retry_entry()) };
        self.error()
    }

    /// Stores `XA_RETRY_ENTRY` in each empty slot from the cursor up to and including index `max`:
    /// `xas_fill_empty()`.
    ///
    /// Allocates nothing, so it stops at the first index that has no slot. Moves the cursor there,
    /// or to the index after `max`. Returns the number of indices that were filled.
    ///
    /// # Safety
    ///
    /// The slots must be stored to again before the lock is released.
    #[inline]
    pub unsafe fn fill_retry(&mut self, max: usize) -> usize {
        self.state.at_slot = false;
        // SAFETY: The lock is held and the cursor is where it may be, by the type invariants. A
        // retry entry is allowed in any array.
        unsafe { bindings::xas_fill_empty(self.state.as_raw(), max, bindings::xa_retry_entry()) }
    }

    /// Empties each slot from the cursor up to and including index `max` that holds
    /// `XA_RETRY_ENTRY`: `xas_unfill()`.
    #[inline]
    pub fn remove_retry(&mut self, max: usize) {
        self.state.at_slot = false;
        // SAFETY: The lock is held and the cursor is where it may be, by the type invariants. A
        // retry entry owns nothing.
        unsafe { bindings::xas_unfill(self.state.as_raw(), max, bindings::xa_retry_entry()) };
    }

    /// Returns the index of the cursor.
    #[inline]
    pub fn index(&self) -> usize {
        self.state.inner.xa_index
    }

    /// Empties the slot at the cursor.
    ///
    /// # Safety
    ///
    /// Nothing may be owned by the array through the entry that is removed.
    #[inline]
    pub unsafe fn store_empty(&mut self) {
        self.state.at_slot = false;
        // SAFETY: The lock is held and the cursor is where it may be, by the invariants. Storing
        // nothing allocates nothing and so cannot fail.
        unsafe { bindings::xas_store(self.state.as_raw(), core::ptr::null_mut()) };
    }

    /// Stores `entry` over the whole range of the cursor, whatever is there: `xas_store()`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if a node could not be allocated.
    ///
    /// # Safety
    ///
    /// `entry` must be a pointer that the owner of the array allows in it, and what the replaced
    /// entries owned must have been taken over by the caller.
    #[inline]
    pub unsafe fn store(&mut self, entry: *mut c_void) -> Result {
        self.state.at_slot = false;
        // SAFETY: The lock is held and the cursor is where it may be, by the invariants; the
        // caller answers for the entry.
        unsafe { bindings::xas_store(self.state.as_raw(), entry) };
        self.error()
    }

    #[inline]
    fn error(&mut self) -> Result {
        // SAFETY: Reads the cursor only.
        match unsafe { bindings::xas_error(self.state.as_raw()) } {
            // Not by `to_result`, which is a call for each slot.
            0 => Ok(()),
            err => to_result(err),
        }
    }
}

impl Drop for XaLockIrqGuard<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The guard owns the lock by the type invariant, and is being dropped.
        unsafe { self.release() };
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_xarray_state)]
mod tests {
    // Values are read under the lock and checked after it. A test that fails ends its thread.

    use super::*;
    use crate::{
        alloc::flags::GFP_KERNEL,
        interrupt::local_interrupt_disable,
        xarray::kunit::{irqs_disabled, IrqArray},
    };

    const ORDER: u32 = 9;
    const NR: usize = 1 << ORDER;

    #[test]
    fn empty_array_has_no_entries() -> Result {
        let array = IrqArray::new()?;
        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();

        let loaded = [guard.load_at(0), guard.load_at(1), guard.load_at(NR)];
        guard.set(7);
        let next = guard.next_slot();
        let found = guard.find(0, usize::MAX).is_some();
        drop(guard);

        assert!(loaded.iter().all(|entry| entry.is_empty()));
        assert!(next.is_empty() && !found);
        Ok(())
    }

    #[test]
    fn numbers_are_loaded_as_they_were_stored() -> Result {
        let array = IrqArray::new()?;
        array.store(1, 0, 0)?;
        array.store(2, 0, 20)?;
        // In another node, and in one of another height.
        array.store(70, 0, 700)?;
        array.store(NR * NR, 0, 5)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        let loaded = [0, 1, 2, 3, 69, 70, 71, NR * NR].map(|index| guard.load_at(index).to_value());
        let one = guard.load_at(1);
        drop(guard);

        assert!(
            loaded
                == [
                    None,
                    Some(0),
                    Some(20),
                    None,
                    None,
                    Some(700),
                    None,
                    Some(5)
                ]
        );
        // The number 0 is an entry.
        assert!(one.is_value() && !one.is_empty() && !one.is_internal() && !one.is_retry());
        assert_eq!(one.as_ptr(), IrqArray::value(0));
        Ok(())
    }

    #[test]
    fn first_step_after_set_does_not_move() -> Result {
        let array = IrqArray::new()?;
        array.store(62, 0, 1)?;
        array.store(64, 0, 3)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        guard.set(62);
        let steps = [(); 4].map(|()| guard.next_slot().to_value());
        guard.set(62);
        let again = guard.next_slot().to_value();
        drop(guard);

        // The second step leaves the first node.
        assert!(steps == [Some(1), None, Some(3), None]);
        assert_eq!(again, Some(1));
        Ok(())
    }

    #[test]
    fn search_does_not_go_beyond_the_last_index() -> Result {
        let array = IrqArray::new()?;
        array.store(100, 0, 1)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        let found = [
            guard.find(3, 99).map(|(start, ..)| start),
            guard.find(3, 100).map(|(start, ..)| start),
            guard.find(101, usize::MAX).map(|(start, ..)| start),
        ];
        drop(guard);

        assert!(found == [None, Some(100), None]);
        Ok(())
    }

    #[test]
    fn multi_index_entry_is_found_from_each_of_its_slots() -> Result {
        let array = IrqArray::new()?;
        array.store(8, 2, 1)?;
        array.store(NR, ORDER, 2)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        let loaded = [7, 8, 9, 11, 12].map(|index| guard.load_at(index).to_value());
        let huge =
            [NR - 1, NR, NR + 1, 2 * NR - 1, 2 * NR].map(|index| guard.load_at(index).to_value());
        let found = guard.find(10, usize::MAX).map(|found| (found.0, found.1));
        let found_huge = guard
            .find(NR + 100, usize::MAX)
            .map(|found| (found.0, found.1));
        drop(guard);

        assert!(loaded == [None, Some(1), Some(1), Some(1), None]);
        assert!(huge == [None, Some(2), Some(2), Some(2), None]);
        assert_eq!(found, Some((8, 2)));
        assert_eq!(found_huge, Some((NR, ORDER)));
        Ok(())
    }

    #[test]
    fn slots_behind_the_first_one_are_not_resolved_by_a_step() -> Result {
        let array = IrqArray::new()?;
        array.store(8, 1, 1)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        guard.set(8);
        let [first, second, next] = [(); 3].map(|()| guard.next_slot());
        drop(guard);

        assert_eq!(first.to_value(), Some(1));
        assert!(second.is_internal() && !second.is_empty() && !second.is_value());
        assert!(!second.is_retry());
        assert!(next.is_empty());
        Ok(())
    }

    #[test]
    fn store_replaces_all_of_the_range() -> Result {
        let array = IrqArray::new()?;
        array.store(7, 0, 1)?;
        array.store(8, 0, 2)?;
        array.store(11, 0, 3)?;
        array.store(12, 0, 4)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        guard.set_order(9, 2);
        // SAFETY: A number in the place of numbers.
        let stored = unsafe { guard.store(IrqArray::value(5)) };
        let loaded = [7, 8, 9, 11, 12].map(|index| {
            guard
                .find(index, index)
                .and_then(|found| found.2.to_value())
        });
        drop(guard);

        stored?;
        assert!(loaded == [Some(1), Some(5), Some(5), Some(5), Some(4)]);
        Ok(())
    }

    #[test]
    fn created_slots_are_single_ones() -> Result {
        let array = IrqArray::new()?;
        let mut state = array.state(NR, ORDER);

        // Checks that each slot is in a node of the lowest level.
        let reachable = |guard: &mut XaLockIrqGuard<'_, '_>| {
            (NR..2 * NR)
                .filter(|&index| {
                    guard.set(index);
                    guard.load();
                    // SAFETY: The lock is held, and the node was found since it was taken.
                    unsafe {
                        bindings::xas_is_at_slot(guard.state.as_raw())
                            && (*guard.state.inner.xa_node).shift == 0
                    }
                })
                .count()
        };

        let before = reachable(&mut state.lock_irq());
        loop {
            let mut guard = state.lock_irq();
            guard.set_order(NR, ORDER);
            if guard.create_range().is_ok() {
                break;
            }
            drop(guard);
            state.nomem(GFP_KERNEL)?;
        }
        let mut guard = state.lock_irq();
        let after = reachable(&mut guard);
        guard.set(NR + 1);
        // SAFETY: A number in the place of nothing.
        let stored = unsafe { guard.store(IrqArray::value(1)) };
        let loaded = [NR, NR + 1, NR + 2].map(|index| guard.load_at(index).to_value());
        drop(guard);

        stored?;
        assert_eq!((before, after), (0, NR));
        assert!(loaded == [None, Some(1), None]);
        Ok(())
    }

    #[test]
    fn retry_entry_is_neither_empty_nor_a_number() -> Result {
        let array = IrqArray::new()?;
        array.store(1, 0, 1)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        guard.set(3);
        // SAFETY: The slot is empty, and emptied again below.
        let stored = unsafe { guard.store_retry() };
        let retry = guard.load_at(3);
        let neighbours = [guard.load_at(2), guard.load_at(4)];
        guard.set(3);
        // SAFETY: The entry owns nothing.
        unsafe { guard.store_empty() };
        let emptied = guard.load_at(3);
        let other = guard.load_at(1);
        drop(guard);

        stored?;
        assert!(retry.is_retry() && retry.is_internal());
        assert!(!retry.is_empty() && !retry.is_value() && retry.to_value().is_none());
        assert!(neighbours.iter().all(|entry| entry.is_empty()));
        assert!(emptied.is_empty() && !emptied.is_retry());
        assert_eq!(other.to_value(), Some(1));
        Ok(())
    }

    #[cfg(CONFIG_SMP)]
    #[test]
    fn guard_holds_the_lock_until_it_is_dropped() -> Result {
        let array = IrqArray::new()?;
        let mut state = array.state(0, 0);
        let mut held = [array.is_locked(); 5];

        let guard = state.lock_irq();
        held[1] = array.is_locked();
        drop(guard);
        held[2] = array.is_locked();
        let guard = state.lock_irq();
        held[3] = array.is_locked();
        guard.unlock();
        held[4] = array.is_locked();

        assert!(held == [false, true, false, true, false]);
        Ok(())
    }

    #[test]
    fn interrupts_stay_disabled_until_the_last_guard_is_dropped() -> Result {
        let array = IrqArray::new()?;
        let mut state = array.state(0, 0);
        let mut disabled = [irqs_disabled(); 5];

        // Not dropped in reverse order, which only a count gets right.
        let irq = local_interrupt_disable();
        let guard = state.lock_irq();
        disabled[1] = irqs_disabled();
        drop(irq);
        disabled[2] = irqs_disabled();
        let _: &LocalInterruptDisabled = guard.irq_disabled();
        disabled[3] = irqs_disabled();
        drop(guard);
        disabled[4] = irqs_disabled();

        assert!(disabled == [false, true, true, true, false]);
        Ok(())
    }

    #[test]
    fn guard_does_not_enable_interrupts_that_were_disabled() -> Result {
        let array = IrqArray::new()?;
        let mut state = array.state(0, 0);

        let irq = local_interrupt_disable();
        drop(state.lock_irq());
        let after = irqs_disabled();
        drop(irq);

        assert!(after && !irqs_disabled());
        Ok(())
    }

    #[test]
    fn search_that_finds_nothing_forgets_the_slot() -> Result {
        let array = IrqArray::new()?;
        array.store(448, 0, 1)?;
        array.store(513, 0, 2)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        // The last slot of the node.
        let found = guard.find(449, 511).is_some();
        let after = guard.load_at(513).to_value();
        drop(guard);

        assert!(!found && after == Some(2));
        Ok(())
    }

    #[test]
    fn step_begins_where_the_cursor_is() -> Result {
        let array = IrqArray::new()?;
        array.store(0, 0, 1)?;
        array.store(8, 1, 8)?;
        array.store(10, 0, 10)?;
        array.store(11, 0, 11)?;

        let mut state = array.state(0, 0);
        let mut guard = state.lock_irq();
        // At the first slot of the entry, and by a step at the second, for the index after it.
        guard.load_at(9);
        guard.next_slot();
        let after = guard.load_at(11).to_value();
        guard.load_at(usize::MAX);
        let first = guard.load_at(0).to_value();
        drop(guard);

        assert!(after == Some(11) && first == Some(1));
        Ok(())
    }

    #[test]
    fn slots_are_created_wherever_the_cursor_was() -> Result {
        let array = IrqArray::new()?;
        array.store(70, 0, 1)?;

        let mut state = array.state(0, 0);
        loop {
            let mut guard = state.lock_irq();
            guard.find(0, usize::MAX);
            guard.set_order(0, ORDER);
            if guard.create_range().is_ok() {
                break;
            }
            drop(guard);
            state.nomem(GFP_KERNEL)?;
        }
        let mut guard = state.lock_irq();
        let loaded = [guard.load_at(69), guard.load_at(70)].map(XaEntry::to_value);
        drop(guard);

        assert!(loaded == [None, Some(1)]);
        Ok(())
    }

    #[test]
    fn taking_the_lock_forgets_the_node() -> Result {
        let array = IrqArray::new()?;
        array.store(70, 0, 1)?;

        let mut state = array.state(70, 0);
        let mut guard = state.lock_irq();
        guard.load();
        // SAFETY: The lock is held, and the node was found since it was taken.
        let found = unsafe { bindings::xas_is_at_slot(guard.state.as_raw()) };
        let guard = guard.unlock().lock_irq();
        // SAFETY: As above, or it is on no node.
        let kept = unsafe { bindings::xas_is_at_slot(guard.state.as_raw()) };
        drop(guard);

        assert!(found && !kept);
        Ok(())
    }

    #[test]
    fn nothing_is_allocated_unless_memory_was_wanted() -> Result {
        let array = IrqArray::new()?;
        let mut state = array.state(0, 0);

        assert_eq!(state.nomem(GFP_KERNEL), Err(ENOMEM));
        assert!(state.inner.xa_alloc.is_null());
        Ok(())
    }

    #[test]
    fn unused_node_is_freed() -> Result {
        let array = IrqArray::new()?;
        let mut state = ManuallyDrop::new(array.state(70, 0));

        // A store that has found no memory leaves `XA_ERROR(-ENOMEM)` there.
        state.inner.xa_node = ((ENOMEM.to_errno() as isize) << 2 | 2) as *mut bindings::xa_node;
        state.nomem(GFP_KERNEL)?;
        let allocated = !state.inner.xa_alloc.is_null();
        // SAFETY: From here on only the fields are looked at, and these are plain data.
        unsafe { ManuallyDrop::drop(&mut state) };

        assert!(allocated);
        assert!(state.inner.xa_alloc.is_null());
        Ok(())
    }
}
