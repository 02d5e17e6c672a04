// SPDX-License-Identifier: GPL-2.0

//! The XArray: the kernel's `lib/xarray.c` and `rust/helpers/xa_state.c`.

use crate::{
    event::Slot,
    world::{stop, with},
    xa_lock::spinlock_t,
};
use std::ffi::{c_char, c_int, c_ulong, c_void, CStr};

/// `struct xarray`.
///
/// `csrc/xarray.c` checks its size.
#[repr(C)]
pub struct xarray {
    pub xa_lock: spinlock_t,
    flags: u32,
    head: usize,
}

impl Default for xarray {
    fn default() -> Self {
        let mut xa = Self {
            xa_lock: spinlock_t::default(),
            flags: 0,
            head: 0,
        };
        // SAFETY: `xa` is as large as the C type, by the assertion in `csrc/xarray.c`.
        unsafe { sim_xa_init(&raw mut xa) };
        xa
    }
}

/// `struct xa_state`.
///
/// `csrc/xarray.c` checks its size.
#[repr(C)]
pub struct xa_state {
    pub xa: *mut xarray,
    pub xa_index: usize,
    rest: [usize; 5],
}

extern "C" {
    #[link_name = "rust_helper_xas_init_order"]
    pub fn xas_init_order(xas: *mut xa_state, xa: *mut xarray, index: usize, order: u32);
    #[link_name = "sim_xas_lock_irq"]
    pub fn xas_lock_irq(xas: *mut xa_state);
    #[link_name = "sim_xas_unlock_irq"]
    pub fn xas_unlock_irq(xas: *mut xa_state);
    #[link_name = "rust_helper_xas_error"]
    pub fn xas_error(xas: *const xa_state) -> c_int;
    #[link_name = "rust_helper_xas_reset"]
    pub fn xas_reset(xas: *mut xa_state);
    #[link_name = "rust_helper_xas_set"]
    pub fn xas_set(xas: *mut xa_state, index: usize);
    #[link_name = "rust_helper_xas_set_order"]
    pub fn xas_set_order(xas: *mut xa_state, index: usize, order: u32);
    #[link_name = "rust_helper_xas_is_at_slot"]
    pub fn xas_is_at_slot(xas: *const xa_state) -> bool;
    #[link_name = "rust_helper_xas_next"]
    pub fn xas_next(xas: *mut xa_state) -> *mut c_void;
    #[link_name = "rust_helper_xa_is_value"]
    pub fn xa_is_value(entry: *const c_void) -> bool;
    #[link_name = "rust_helper_xa_to_value"]
    pub fn xa_to_value(entry: *const c_void) -> usize;
    #[link_name = "rust_helper_xa_is_internal"]
    pub fn xa_is_internal(entry: *const c_void) -> bool;
    #[link_name = "rust_helper_xa_is_retry"]
    pub fn xa_is_retry(entry: *const c_void) -> bool;
    #[link_name = "rust_helper_xa_retry_entry"]
    pub fn xa_retry_entry() -> *mut c_void;
    pub fn xas_load(xas: *mut xa_state) -> *mut c_void;
    pub fn xas_find(xas: *mut xa_state, max: usize) -> *mut c_void;
    pub fn xas_get_order(xas: *mut xa_state) -> c_int;
    pub fn xas_destroy(xas: *mut xa_state);

    pub(crate) fn xa_destroy(xa: *mut xarray);
    fn sim_xa_init(xa: *mut xarray);
    fn sim_mk_value(value: c_ulong) -> *mut c_void;
    fn sim_to_value(entry: *const c_void) -> c_ulong;
}

/// Returns the meaning of an entry.
pub fn slot(entry: *mut c_void) -> Slot {
    if entry.is_null() {
        return Slot::Hole;
    }
    // SAFETY: The functions read only the bits of the pointer.
    unsafe {
        if xa_is_retry(entry) {
            return Slot::Retry;
        }
        if xa_is_value(entry) {
            return Slot::Value(sim_to_value(entry) as usize);
        }
    }
    match with(|w| w.folio_ids.get(&(entry as usize)).copied()) {
        Some(id) => Slot::Folio(id),
        None => stop("the page cache holds an entry that is not a folio"),
    }
}

/// Returns a value entry.
pub fn mk_value(value: usize) -> *mut c_void {
    // SAFETY: The function only converts a number to a pointer.
    unsafe { sim_mk_value(value as c_ulong) }
}

#[no_mangle]
extern "C" fn sim_bug(what: *const c_char, line: c_int) {
    // SAFETY: `BUG_ON()` and `WARN_ON()` pass a string literal.
    let what = unsafe { CStr::from_ptr(what) }.to_string_lossy();
    stop(format!("BUG at line {line} of lib/xarray.c: {what}"))
}
