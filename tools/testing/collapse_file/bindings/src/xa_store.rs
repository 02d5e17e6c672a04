// SPDX-License-Identifier: GPL-2.0

//! Stores to the page cache's XArray, with a check of each, and the cursor of the simulated C code.

use crate::{
    event::{Slot, What},
    folios::{folio, folio_of, live},
    mapping::address_space,
    world::{self, log, violation, with},
    xa::{
        slot, xa_state, xas_destroy, xas_error, xas_init_order, xas_load, xas_lock_irq, xas_reset,
        xas_unlock_irq,
    },
    HPAGE_PMD_ORDER,
};
use std::{
    ffi::{c_ulong, c_void},
    mem::MaybeUninit,
};

/// The flags of an allocation that may sleep.
pub const GFP_KERNEL: u32 = 0xcc0;

extern "C" {
    #[link_name = "xas_create_range"]
    fn real_xas_create_range(xas: *mut xa_state);
    #[link_name = "xas_nomem"]
    fn real_xas_nomem(xas: *mut xa_state, gfp: u32) -> bool;
    #[link_name = "xas_store"]
    fn real_xas_store(xas: *mut xa_state, entry: *mut c_void) -> *mut c_void;
    #[link_name = "xas_fill_empty"]
    fn real_xas_fill_empty(xas: *mut xa_state, max: usize, entry: *mut c_void) -> usize;
    #[link_name = "xas_unfill"]
    fn real_xas_unfill(xas: *mut xa_state, max: usize, entry: *mut c_void);

    fn sim_has_update(xas: *const xa_state) -> bool;
    fn sim_xas_index(xas: *const xa_state) -> c_ulong;
    fn sim_xas_span(xas: *const xa_state) -> c_ulong;
    fn sim_mapping_set_update(xas: *mut xa_state);
}

/// # Safety
///
/// `xas` must be a valid cursor.
pub unsafe fn mapping_set_update(xas: *mut xa_state, _mapping: *mut address_space) {
    // SAFETY: `xas` is valid by the safety requirements of this function.
    unsafe { sim_mapping_set_update(xas) };
}

fn check_change(xas: *const xa_state, call: &str) {
    // SAFETY: The callers pass a valid cursor.
    if !unsafe { sim_has_update(xas) } {
        violation(format!("{call}() without mapping_set_update()"));
    }
    if with(|w| w.lock_owner != Some(w.current)) {
        violation(format!("{call}() without the page-cache lock"));
    }
}

/// Checks a store before it happens, and updates which folios are in the page cache.
///
/// Returns the folios that the store removes.
fn check_store(index: usize, span: usize, stored: Slot) -> Vec<*mut folio> {
    let me = with(|w| w.current);
    let end = index + span;
    let replaced: Vec<*mut folio> = with(|w| {
        w.folios
            .iter_mut()
            .filter(|f| f.cached.get() && f.index.get() < end && index < f.index.get() + f.nr())
            .map(|f| &raw mut **f)
            .collect()
    });
    for &old in &replaced {
        // SAFETY: `old` is a folio of this world.
        let old = unsafe { live(old, "xas_store") };
        if old.locked.get() != Some(me) {
            violation(format!(
                "folio {} is removed from the page cache while it is not locked",
                old.id
            ));
        }
        if old.mapcount.get() > 0 {
            violation(format!(
                "folio {} is removed from the page cache while it is mapped",
                old.id
            ));
        }
        if stored == Slot::Retry || old.index.get() < index || old.index.get() + old.nr() > end {
            violation(format!(
                "a part of folio {} is overwritten in the page cache",
                old.id
            ));
        }
        old.cached.set(false);
    }
    let Slot::Folio(id) = stored else {
        return replaced;
    };
    // SAFETY: `folio_of()` returns a folio of this world.
    let new = unsafe { live(folio_of(id), "xas_store") };
    let is = |what: bool, how: &str| {
        if what {
            violation(format!("folio {id} is added to the page cache {how}"));
        }
    };
    is(new.locked.get() != Some(me), "without being locked");
    is(new.nr() != span, "with an entry of another size");
    is(new.index.get() != index, "at another index than its own");
    is(
        new.mapping.get() != with(|w| &raw mut *w.mapping),
        "without its mapping set",
    );
    is(
        (new.refs.get() as usize) < span,
        "without references for each page",
    );
    is(
        with(|w| w.mapping.is_shmem) != new.swapbacked.get(),
        "with the wrong swapbacked flag",
    );
    if with(|w| w.me().collapsing) && new.order == HPAGE_PMD_ORDER {
        is(!new.uptodate.get(), "before it is uptodate");
        is(
            with(|w| w.mapping.is_shmem) && !new.dirty.get(),
            "without being dirty",
        );
    }
    new.cached.set(true);
    replaced
}

/// Undoes the update of [`check_store`] after the store failed.
fn not_stored(stored: Slot, replaced: &[*mut folio]) {
    if let Slot::Folio(id) = stored {
        with(|w| w.folios[id].cached.set(false));
    }
    for &old in replaced {
        // SAFETY: Folios stay allocated until the next world.
        unsafe { (*old).cached.set(true) };
    }
}

/// # Safety
///
/// As for the C function.
pub unsafe fn xas_create_range(xas: *mut xa_state) {
    check_change(xas, "xas_create_range");
    // SAFETY: By the safety requirements of this function.
    unsafe { real_xas_create_range(xas) };
}

/// # Safety
///
/// As for the C function.
pub unsafe fn xas_nomem(xas: *mut xa_state, gfp: u32) -> bool {
    world::called("xas_nomem");
    // SAFETY: By the safety requirements of this function.
    unsafe { real_xas_nomem(xas, gfp) }
}

/// # Safety
///
/// As for the C function.
pub unsafe fn xas_store(xas: *mut xa_state, entry: *mut c_void) -> *mut c_void {
    check_change(xas, "xas_store");
    // SAFETY: `xas` is valid by the safety requirements of this function.
    let (index, span) = unsafe { (sim_xas_index(xas) as usize, sim_xas_span(xas) as usize) };
    let index = index & !(span - 1);
    let stored = slot(entry);
    let replaced = check_store(index, span, stored);
    let at = with(|w| w.events.len());
    log(What::Store(index, span.trailing_zeros(), stored));
    // SAFETY: By the safety requirements of this function.
    let old = unsafe { real_xas_store(xas, entry) };
    // SAFETY: `xas` is valid by the safety requirements of this function.
    if unsafe { xas_error(xas) } != 0 {
        with(|w| w.events[at].what = What::Note("cannot store"));
        not_stored(stored, &replaced);
    } else {
        with(|w| w.me().unordered |= matches!(stored, Slot::Retry));
        log(What::Stored);
    }
    old
}

/// Runs `call` and records a store for each slot up to `max` that it changes.
fn changes<R>(xas: *mut xa_state, max: usize, call: impl FnOnce() -> R) -> R {
    // SAFETY: The callers pass a valid cursor.
    let first = unsafe { sim_xas_index(xas) as usize };
    let slots = || -> Vec<Slot> {
        (first..=max)
            .map(|index| slot(Cursor::new(index, 0).load()))
            .collect()
    };

    let before = slots();
    let result = call();
    for (n, (before, after)) in before.into_iter().zip(slots()).enumerate() {
        if before != after {
            check_store(first + n, 1, after);
            with(|w| w.me().unordered |= matches!(after, Slot::Retry));
            log(What::Store(first + n, 0, after));
            log(What::Stored);
        }
    }
    result
}

/// # Safety
///
/// As for the C function.
pub unsafe fn xas_fill_empty(xas: *mut xa_state, max: usize, entry: *mut c_void) -> usize {
    check_change(xas, "xas_fill_empty");
    // SAFETY: By the safety requirements of this function.
    changes(xas, max, || unsafe { real_xas_fill_empty(xas, max, entry) })
}

/// # Safety
///
/// As for the C function.
pub unsafe fn xas_unfill(xas: *mut xa_state, max: usize, entry: *mut c_void) {
    check_change(xas, "xas_unfill");
    // SAFETY: By the safety requirements of this function.
    changes(xas, max, || unsafe { real_xas_unfill(xas, max, entry) })
}

/// A cursor of the simulated C code.
pub struct Cursor(pub(crate) xa_state);

impl Cursor {
    /// Creates a cursor at an index, for an entry of an order.
    pub fn new(index: usize, order: u32) -> Self {
        let mut xas = MaybeUninit::uninit();
        let xa = with(|w| &raw mut w.mapping.i_pages);
        // SAFETY: `xa` is the array of the world. `xas_init_order()` initializes the whole cursor.
        unsafe {
            xas_init_order(xas.as_mut_ptr(), xa, index, order);
            mapping_set_update(xas.as_mut_ptr(), core::ptr::null_mut());
            Self(xas.assume_init())
        }
    }

    /// Walks to the index and returns its entry.
    pub fn load(&mut self) -> *mut c_void {
        // SAFETY: The cursor is valid. `sim_rcu_read()` checks that the caller holds the lock or is
        // in an RCU read-side critical section.
        unsafe {
            xas_reset(&raw mut self.0);
            xas_load(&raw mut self.0)
        }
    }

    /// Runs `f` under the page-cache lock.
    pub fn locked<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        // SAFETY: The cursor is valid.
        unsafe { xas_lock_irq(&raw mut self.0) };
        let result = f(self);
        // SAFETY: The cursor is valid, and the lock was taken above.
        unsafe { xas_unlock_irq(&raw mut self.0) };
        result
    }

    /// Stores an entry under the page-cache lock.
    ///
    /// Returns false if a node is missing.
    pub fn store(&mut self, entry: *mut c_void) -> bool {
        // SAFETY: The cursor is valid. `check_change()` checks that the lock is held.
        unsafe {
            xas_reset(&raw mut self.0);
            xas_store(&raw mut self.0, entry);
            xas_error(&raw const self.0) == 0
        }
    }

    /// Stores an entry if the slot holds `over`, and then calls `then`.
    ///
    /// Allocates missing nodes.
    pub(crate) fn replace(&mut self, entry: *mut c_void, over: Slot, then: impl Fn()) -> bool {
        loop {
            let stored = self.locked(|cursor| {
                if slot(cursor.load()) != over {
                    return Some(false);
                }
                cursor.store(entry).then(|| {
                    then();
                    true
                })
            });
            if let Some(stored) = stored {
                return stored;
            }
            // SAFETY: The cursor is valid, and the lock was released above.
            if !unsafe { xas_nomem(&raw mut self.0, GFP_KERNEL) } {
                return false;
            }
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: The cursor is valid.
        unsafe { xas_destroy(&raw mut self.0) };
    }
}
