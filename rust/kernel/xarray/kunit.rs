// SPDX-License-Identifier: GPL-2.0

//! An array for the tests and the examples of [`state`](super::state).
//!
//! It is public because examples are a crate of their own.

use crate::{
    alloc::{flags::GFP_KERNEL, KBox},
    bindings,
    error::Result,
    ffi::c_void,
    types::Opaque,
    xarray::state::XaState, //
};

/// An array whose lock is taken with interrupts disabled, and that owns nothing through its
/// entries.
///
/// # Invariants
///
/// The array is initialized, has `XA_FLAGS_LOCK_IRQ` set, and only this object and the cursors that
/// it hands out use it.
pub struct IrqArray(KBox<Opaque<bindings::xarray>>);

impl IrqArray {
    /// Makes an empty array.
    pub fn new() -> Result<Self> {
        let array = KBox::new(Opaque::<bindings::xarray>::uninit(), GFP_KERNEL)?;

        // SAFETY: The memory is valid for a write, and stays where it is.
        unsafe { bindings::xa_init_flags(array.get(), bindings::xa_lock_type_XA_LOCK_IRQ) };
        // INVARIANT: Initialized above.
        Ok(Self(array))
    }

    /// Makes a cursor for an entry of `order` that contains `index`.
    pub fn state(&self, index: usize, order: u32) -> XaState<'_> {
        // SAFETY: The array is as the invariants say, and lives as long as it is borrowed. It does
        // not mind what is stored in it, and wants no callback.
        unsafe { XaState::new(self.0.get(), index, order) }
    }

    /// The entry that is this number: `xa_mk_value()`.
    pub fn value(number: usize) -> *mut c_void {
        (number << 1 | 1) as *mut c_void
    }

    /// Stores a number in all slots of an entry of `order`, whatever is there.
    pub fn store(&self, index: usize, order: u32, number: usize) -> Result {
        let mut state = self.state(index, order);

        loop {
            // SAFETY: Neither a number nor what it replaces owns anything.
            let stored = unsafe { state.lock_irq().store(Self::value(number)) };

            if stored.is_ok() {
                return Ok(());
            }
            state.nomem(GFP_KERNEL)?;
        }
    }

    /// Returns whether a task holds the lock. A kernel for one CPU does not know.
    #[cfg(CONFIG_SMP)]
    pub fn is_locked(&self) -> bool {
        // SAFETY: The array is initialized.
        if unsafe { bindings::xa_trylock(self.0.get()) } == 0 {
            return true;
        }
        // SAFETY: The lock was taken above.
        unsafe { bindings::xa_unlock(self.0.get()) };
        false
    }
}

/// Returns whether interrupts are disabled on this CPU.
pub fn irqs_disabled() -> bool {
    // SAFETY: No preconditions.
    unsafe { bindings::irqs_disabled() }
}

impl Drop for IrqArray {
    fn drop(&mut self) {
        // SAFETY: The array is initialized, no cursor is left, and nothing is owned by its entries.
        unsafe { bindings::xa_destroy(self.0.get()) };
    }
}
