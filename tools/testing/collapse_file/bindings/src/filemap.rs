// SPDX-License-Identifier: GPL-2.0

//! These functions stand in for those of `mm/filemap.c` and for readahead.

use crate::{
    event::Slot,
    folios::{
        __folio_set_locked, folio, folio_lock, folio_of, folio_put, folio_unlock, locked, put, Lru,
    },
    list::{list_del, list_head},
    lru::{
        folio_add_lru, lru_folio, lruvec_stat_mod_folio, node_stat_item_NR_FILE_PAGES,
        node_stat_item_NR_SHMEM,
    },
    mapping::{address_space, file, file_ra_state},
    page_cache::{add_folio, lookup, Store},
    shmem,
    world::{self, check, fails, might_sleep, violation, with},
    HPAGE_PMD_NR,
};
use std::ffi::c_int;

const ENOENT: isize = 2;

/// Checks that the task has no folio of the page cache locked.
///
/// Truncation and writeback wait for folio locks, so a task that waits for them must hold none.
fn no_folio_is_locked(call: &str) {
    let locked = with(|w| {
        // SAFETY: Folios stay allocated until the next world.
        w.me().locked.iter().any(|&f| unsafe { (*f).cached.get() })
    });
    if locked {
        violation(format!("{call}() with a folio of the page cache locked"));
    }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn filemap_flush(_mapping: *mut address_space) -> c_int {
    might_sleep("filemap_flush");
    no_folio_is_locked("filemap_flush");
    with(|w| w.inode.flushed = true);
    0
}

/// Reads missing pages among the next `nr` pages, up to the end of the file.
///
/// # Safety
///
/// There are no requirements.
pub unsafe fn page_cache_sync_readahead(
    _mapping: *mut address_space,
    _ra: *mut file_ra_state,
    _file: *mut file,
    index: usize,
    nr: usize,
) {
    might_sleep("page_cache_sync_readahead");
    no_folio_is_locked("page_cache_sync_readahead");
    check(!with(|w| w.mapping.is_shmem), "readahead in shmem");
    check(
        with(|w| w.mapping.reads),
        "readahead of a mapping without a function to read folios with",
    );
    check(
        (index + nr) % HPAGE_PMD_NR == 0,
        "readahead does not end at the end of the range",
    );
    world::called("page_cache_sync_readahead");
    let size = with(|w| w.inode.size);
    for i in index..(index + nr).min(size) {
        let over = match lookup(i) {
            Slot::Folio(id) => {
                // SAFETY: A folio of this world, with the reference that `lookup()` took.
                unsafe { folio_put(folio_of(id)) };
                continue;
            }
            other => other,
        };
        let new = folio::alloc(0);
        // SAFETY: `new` was allocated above, and no other task can find it.
        let this = unsafe {
            __folio_set_locked(new);
            &*new
        };
        if add_folio(i, new, Store::Over(over)) {
            // SAFETY: `new` is a folio of this world.
            unsafe { folio_add_lru(new) };
            if !fails("read") {
                this.write(0, with(|w| w.disk[i]));
                this.uptodate.set(true);
            }
        }
        // SAFETY: `new` is locked, and the reference is that of its allocation.
        unsafe {
            folio_unlock(new);
            folio_put(new);
        }
    }
}

/// Finds the folio at an index, locks it and takes a reference.
pub fn lock_folio(index: usize) -> Option<*mut folio> {
    loop {
        let Slot::Folio(id) = lookup(index) else {
            return None;
        };
        let found = folio_of(id);
        // SAFETY: A folio of this world, with the reference that `lookup()` took.
        unsafe { folio_lock(found) };
        // SAFETY: Folios stay allocated until the next world.
        if unsafe { (*found).cached.get() } {
            return Some(found);
        }
        // SAFETY: `found` is locked, and the reference is that of `lookup()`.
        unsafe {
            folio_unlock(found);
            folio_put(found);
        }
    }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn filemap_lock_folio(_mapping: *mut address_space, index: usize) -> *mut folio {
    might_sleep("filemap_lock_folio");
    world::called("filemap_lock_folio");
    match lock_folio(index) {
        Some(folio) => folio,
        None => (-ENOENT) as *mut folio,
    }
}

/// Fills a hole with a new folio, and returns it locked and with a reference.
pub fn new_folio(index: usize, order: u32) -> Option<*mut folio> {
    let new = folio::alloc(order);
    // SAFETY: `new` was allocated above, and no other task can find it.
    unsafe {
        __folio_set_locked(new);
        (*new).swapbacked.set(with(|w| w.mapping.is_shmem));
    }
    if add_folio(index, new, Store::Over(Slot::Hole)) {
        if with(|w| w.mapping.is_shmem) {
            shmem::account(1 << order);
        }
        // SAFETY: `new` is a folio of this world.
        unsafe { folio_add_lru(new) };
        return Some(new);
    }
    // SAFETY: `new` is locked, and the reference is that of its allocation.
    unsafe {
        folio_unlock(new);
        folio_put(new);
    }
    None
}

/// # Safety
///
/// The folio must be one of this world.
pub unsafe fn filemap_release_folio(folio: *mut folio, _gfp: u32) -> bool {
    might_sleep("filemap_release_folio");
    // SAFETY: By the safety requirements of this function.
    let folio = unsafe { locked(folio, "filemap_release_folio") };
    let refuse = folio.private.get() && fails("filemap_release_folio");
    if !refuse && folio.private.take() {
        // The private data has a reference.
        put(folio, 1);
    }
    !refuse
}

/// Frees folios that another folio has replaced in the page cache.
///
/// # Safety
///
/// `list` must be a valid list of folios of this world.
pub unsafe fn filemap_free_replaced(list: *mut list_head) {
    might_sleep("filemap_free_replaced");
    loop {
        // SAFETY: By the safety requirements of this function.
        let next = unsafe { (*list).next };
        if next == list {
            return;
        }
        // SAFETY: By the safety requirements of this function.
        let folio = unsafe { locked(lru_folio(next), "filemap_free_replaced") };

        check(
            !folio.cached.get(),
            "filemap_free_replaced() of a folio in the page cache",
        );
        if folio.lru_state.get() != Lru::Isolated(with(|w| w.current)) {
            violation(format!(
                "folio {} is freed by a task that has not isolated it",
                folio.id
            ));
        }
        let pages = folio.nr() as c_int;
        // SAFETY: By the safety requirements of this function.
        unsafe {
            lruvec_stat_mod_folio(lru_folio(next), node_stat_item_NR_FILE_PAGES, -pages);
            if folio.swapbacked.get() {
                lruvec_stat_mod_folio(lru_folio(next), node_stat_item_NR_SHMEM, -pages);
            }
        }
        folio.mapping.set(core::ptr::null_mut());
        folio.active.set(false);
        folio.unevictable.set(false);
        // SAFETY: By the safety requirements of this function.
        unsafe {
            list_del(next);
            folio_unlock(lru_folio(next));
        }
        put(folio, 2 + folio.nr() as c_int);
    }
}
