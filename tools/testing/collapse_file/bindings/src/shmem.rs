// SPDX-License-Identifier: GPL-2.0

//! Shmem: the charge of the file system, swap and holes.

use crate::{
    event::{Slot, What},
    folios::{
        __folio_set_locked, folio, folio_lock, folio_mark_uptodate, folio_of, folio_put,
        folio_unlock,
    },
    lru::folio_add_lru,
    mapping::{address_space, inode},
    page_cache::{self, lookup, Store},
    world::{check, fails, log, might_sleep, point, with},
};
use std::ffi::c_int;

pub type sgp_type = u32;
pub const sgp_type_SGP_NOALLOC: sgp_type = 1;

const ENOENT: c_int = 2;
const EIO: c_int = 5;
const EINVAL: c_int = 22;

/// # Safety
///
/// There are no requirements.
pub unsafe fn shmem_swap_readahead(_mapping: *mut address_space, _first: usize, _last: usize) {
    might_sleep("shmem_swap_readahead");
}

/// # Safety
///
/// `inode` must be the one of this world.
pub unsafe fn shmem_charge(_inode: *mut inode, pages: isize) -> bool {
    might_sleep("shmem_charge");
    check(
        with(|w| w.mapping.is_shmem),
        "shmem_charge() of a file that is not shmem",
    );
    let refused = fails("shmem_charge");
    let pages = pages as usize;
    let charged = !refused && with(|w| w.inode.blocks + pages <= w.room);
    if charged {
        page_cache::locked(|| with(|w| w.mapping.nrpages += pages));
        account(pages);
    }
    log(What::Charge(pages, charged));
    charged
}

/// Uncharges the pages that the file is charged for but does not have: `shmem_recalc_inode()`.
fn recalc() -> usize {
    with(|w| {
        let has = w.mapping.nrpages + w.inode.swapped;
        let freed = w.inode.blocks.saturating_sub(has);
        w.inode.blocks -= freed;
        freed
    })
}

/// # Safety
///
/// `inode` must be the one of this world.
pub unsafe fn shmem_uncharge(_inode: *mut inode, _pages: isize) {
    might_sleep("shmem_uncharge");
    check(
        with(|w| w.mapping.is_shmem),
        "shmem_uncharge() of a file that is not shmem",
    );
    let freed = recalc();
    log(What::Uncharge(freed));
}

/// Charges the file for new pages, and uncharges those that it does not have.
pub fn account(pages: usize) {
    with(|w| w.inode.blocks += pages);
    recalc();
}

/// # Safety
///
/// `inode` must be the one of this world, and `out` must be valid for writes.
pub unsafe fn shmem_get_folio(
    _inode: *mut inode,
    index: usize,
    _write_end: isize,
    out: *mut *mut folio,
    sgp: sgp_type,
) -> c_int {
    check(
        sgp == sgp_type_SGP_NOALLOC,
        "shmem_get_folio() would fill a hole",
    );
    match get_folio(index) {
        Ok(folio) => {
            // SAFETY: `out` is valid for writes by the safety requirements of this function.
            unsafe { *out = folio };
            0
        }
        Err(error) => -error,
    }
}

/// Finds or swaps in the folio at an index and locks it, as `shmem_get_folio()` with `SGP_NOALLOC`.
pub fn get_folio(index: usize) -> Result<*mut folio, c_int> {
    might_sleep("shmem_get_folio");
    check(
        with(|w| w.mapping.is_shmem),
        "shmem_get_folio() of a file that is not shmem",
    );
    if index >= with(|w| w.inode.size) {
        return Err(EINVAL);
    }
    if fails("shmem_get_folio") {
        return Err(EIO);
    }
    loop {
        match lookup(index) {
            Slot::Hole | Slot::Retry => return Err(ENOENT),
            Slot::Folio(id) => {
                let found = folio_of(id);
                // SAFETY: A folio of this world, with the reference that `lookup()` took.
                unsafe { folio_lock(found) };
                // SAFETY: Folios stay allocated until the next world.
                let this = unsafe { &*found };
                if !this.cached.get() {
                    // SAFETY: `found` is locked, and the reference is that of `lookup()`.
                    unsafe {
                        folio_unlock(found);
                        folio_put(found);
                    }
                    continue;
                }
                if !this.uptodate.get() {
                    for page in 0..this.nr() {
                        this.write(page, 0);
                    }
                    // SAFETY: `found` is a folio of this world.
                    unsafe { folio_mark_uptodate(found) };
                }
                return Ok(found);
            }
            Slot::Value(value) => {
                point();
                let new = folio::alloc(0);
                // SAFETY: `new` was allocated above, and no other task can find it.
                unsafe {
                    __folio_set_locked(new);
                    (*new).write(0, with(|w| w.swap[value]));
                    (*new).swapbacked.set(true);
                    folio_mark_uptodate(new);
                    (*new).dirty.set(true);
                }
                if page_cache::add_folio(index, new, Store::Over(Slot::Value(value))) {
                    with(|w| w.inode.swapped -= 1);
                    recalc();
                    // SAFETY: `new` is a folio of this world.
                    unsafe { folio_add_lru(new) };
                    return Ok(new);
                }
                // SAFETY: `new` is locked, and the reference is that of its allocation.
                unsafe {
                    folio_unlock(new);
                    folio_put(new);
                }
            }
        }
    }
}
