// SPDX-License-Identifier: GPL-2.0

//! The file and its page cache.

use crate::{
    event::{Slot, What},
    folios::{
        __folio_set_locked, folio, folio_add_lru, folio_get, folio_lock, folio_put, folio_unlock,
        live,
    },
    shmem,
    world::{self, check, fails, might_sleep, stop, violation, with, Wait},
    xa::{
        self, mk_value, slot, xa_state, xarray, xas_init_order, xas_load, xas_lock_irq, xas_reset,
    },
    xa::{xas_destroy, xas_error, xas_nomem, xas_store, xas_unlock_irq},
    HPAGE_PMD_NR, HPAGE_PMD_ORDER,
};
use std::{ffi::c_int, mem::MaybeUninit};

pub type node_stat_item = u32;
pub const node_stat_item_NR_FILE_PAGES: node_stat_item = 0;
pub const node_stat_item_NR_FILE_THPS: node_stat_item = 1;
pub const node_stat_item_NR_SHMEM: node_stat_item = 2;
pub const node_stat_item_NR_SHMEM_THPS: node_stat_item = 3;

/// The flags of an allocation that may sleep.
pub const GFP_KERNEL: u32 = 0xcc0;

const ENOENT: isize = 2;

/// `struct address_space`.
#[repr(C)]
pub struct address_space {
    pub i_pages: xarray,
    pub host: *mut inode,
    pub nrpages: usize,
    pub is_shmem: bool,
    /// True if the file system supports folios of PMD size.
    pub pmd_folios: bool,
    /// True if the file system has a function to read folios with.
    pub reads: bool,
}

impl address_space {
    /// Creates an empty mapping at its final address.
    pub fn new(is_shmem: bool) -> Box<Self> {
        Box::new(Self {
            i_pages: xarray::default(),
            host: core::ptr::null_mut(),
            nrpages: 0,
            is_shmem,
            pmd_folios: true,
            reads: true,
        })
    }
}

/// `struct inode`.
#[repr(C)]
pub struct inode {
    pub mapping: *mut address_space,
    /// The number of pages that the file is charged for.
    pub blocks: usize,
    /// The number of pages that are swapped out.
    pub swapped: usize,
    /// The number of pages up to the end of the file.
    pub size: usize,
    /// True if a task has it open for writing.
    pub open_for_write: bool,
    /// True if `filemap_flush()` was called.
    pub flushed: bool,
}

impl Default for inode {
    fn default() -> Self {
        Self {
            mapping: core::ptr::null_mut(),
            blocks: 0,
            swapped: 0,
            size: 4 * HPAGE_PMD_NR,
            open_for_write: false,
            flushed: false,
        }
    }
}

/// `struct file_ra_state`.
#[derive(Default)]
pub struct file_ra_state {
    _unused: usize,
}

/// `struct file`.
#[repr(C)]
pub struct file {
    pub mapping: *mut address_space,
}

impl Default for file {
    fn default() -> Self {
        Self {
            mapping: core::ptr::null_mut(),
        }
    }
}

/// Returns the folio with a number.
pub fn folio_of(id: usize) -> *mut folio {
    with(|w| &raw mut *w.folios[id])
}

/// Returns the folio in the page cache at an index, for tests.
///
/// No task notices the lookup.
pub fn cached(index: usize) -> Option<*mut folio> {
    with(|w| {
        let found = w
            .folios
            .iter_mut()
            .find(|f| f.cached.get() && (f.index.get()..f.index.get() + f.nr()).contains(&index))?;
        Some(&raw mut **found)
    })
}

/// A cursor of the simulated C code.
pub struct Cursor(xa_state);

impl Cursor {
    /// Creates a cursor at an index, for an entry of an order.
    pub fn new(index: usize, order: u32) -> Self {
        let mut xas = MaybeUninit::uninit();
        let xa = with(|w| &raw mut w.mapping.i_pages);
        // SAFETY: `xa` is the array of the world. `xas_init_order()` initializes the whole cursor.
        unsafe {
            xas_init_order(xas.as_mut_ptr(), xa, index, order);
            xa::mapping_set_update(xas.as_mut_ptr(), core::ptr::null_mut());
            Self(xas.assume_init())
        }
    }

    /// Walks to the index and returns its entry.
    pub fn load(&mut self) -> *mut std::ffi::c_void {
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
    pub fn store(&mut self, entry: *mut std::ffi::c_void) -> bool {
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
    fn replace(&mut self, entry: *mut std::ffi::c_void, over: Slot, then: impl Fn()) -> bool {
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

/// Runs `f` under the page-cache lock.
pub fn locked<R>(f: impl FnOnce() -> R) -> R {
    Cursor::new(0, 0).locked(|_| f())
}

/// The condition for adding a folio.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The slot holds this entry.
    Over(Slot),
}

fn count(this: &folio, sign: isize) {
    let pages = sign * this.nr() as isize;
    with(|w| {
        w.mapping.nrpages = w.mapping.nrpages.wrapping_add_signed(pages);
        let stat = &mut w.stat[this.lruvec];
        stat[node_stat_item_NR_FILE_PAGES as usize] += pages;
        let huge = this.order == HPAGE_PMD_ORDER;
        if w.mapping.is_shmem {
            stat[node_stat_item_NR_SHMEM as usize] += pages;
            if huge {
                stat[node_stat_item_NR_SHMEM_THPS as usize] += pages;
            }
        } else if huge {
            stat[node_stat_item_NR_FILE_THPS as usize] += pages;
        }
    });
}

/// Subtracts the pages of a folio from the statistics, after another kind of entry replaced it.
pub fn uncount(this: &folio) {
    count(this, -1);
}

/// Adds a locked folio to the page cache, unless the slot holds another entry.
///
/// The page cache takes its own references. The caller keeps its reference.
pub fn add_folio(index: usize, new: *mut folio, over: Store) -> bool {
    let Store::Over(over) = over;
    // SAFETY: `new` is a folio of this world.
    let this = unsafe { live(new, "filemap_add_folio") };
    let mapping = with(|w| &raw mut *w.mapping);
    this.mapping.set(mapping);
    this.index.set(index);
    this.refs.set(this.refs.get() + this.nr() as c_int);
    let added = if this.order == 0 {
        Cursor::new(index, 0).replace(new.cast(), over, || count(this, 1))
    } else {
        add_large(index, this)
    };
    if !added {
        this.refs.set(this.refs.get() - this.nr() as c_int);
        this.mapping.set(core::ptr::null_mut());
    }
    added
}

fn add_large(index: usize, this: &folio) -> bool {
    let mut cursor = Cursor::new(index, this.order);
    loop {
        let stored = cursor.locked(|cursor| {
            if (index..index + this.nr()).any(|i| slot(Cursor::new(i, 0).load()) != Slot::Hole) {
                return Some(false);
            }
            cursor.store((&raw const *this).cast_mut().cast()).then(|| {
                count(this, 1);
                true
            })
        });
        if let Some(stored) = stored {
            return stored;
        }
        // SAFETY: The cursor is valid, and the lock was released above.
        if !unsafe { xas_nomem(&raw mut cursor.0, GFP_KERNEL) } {
            return false;
        }
    }
}

/// Replaces a locked folio in the page cache with `entry`, and drops the page cache's references.
pub fn remove_folio(old: *mut folio, entry: Slot) {
    // SAFETY: `old` is a folio of this world.
    let this = unsafe { live(old, "filemap_remove_folio") };
    let entry = match entry {
        Slot::Value(value) => mk_value(value),
        _ => core::ptr::null_mut(),
    };
    Cursor::new(this.index.get(), this.order).locked(|cursor| {
        check(cursor.store(entry), "removing a folio needs a new node");
        count(this, -1);
    });
    this.mapping.set(core::ptr::null_mut());
    // SAFETY: `old` is a folio of this world. The references are those of the page cache.
    unsafe { crate::folios::folio_put_refs(old, this.nr() as c_int) };
}

/// Removes a value if it is still there.
///
/// Returns whether it was.
pub fn remove_value(index: usize, value: usize) -> bool {
    Cursor::new(index, 0).replace(core::ptr::null_mut(), Slot::Value(value), || ())
}

/// Stores a value in an empty slot, for the setup of a file.
pub fn add_value(index: usize, value: usize) {
    Cursor::new(index, 0).replace(mk_value(value), Slot::Hole, || ());
}

/// Looks up an index without the lock and takes a reference to a folio: `filemap_get_entry()`.
pub fn lookup(index: usize) -> Slot {
    let mut retried_at = None;
    loop {
        world::point();
        with(|w| w.me().rcu += 1);
        let mut cursor = Cursor::new(index, 0);
        let found = slot(cursor.load());
        let found = match found {
            Slot::Folio(id) => {
                // SAFETY: Folios stay allocated until the next world.
                let this = unsafe { &*folio_of(id) };
                if this.freed.get() {
                    None
                } else {
                    this.refs.set(this.refs.get() + 1);
                    world::log(What::Get(id));
                    if slot(cursor.load()) == found {
                        Some(found)
                    } else {
                        // SAFETY: The reference was taken above.
                        unsafe { folio_put(folio_of(id)) };
                        None
                    }
                }
            }
            Slot::Retry => None,
            other => Some(other),
        };
        drop(cursor);
        rcu_unlock();
        if let Some(found) = found {
            return found;
        }
        // C spins here. The owner of the lock removes all retry entries before it releases the
        // lock. An entry that is still there after no other event stays forever.
        let now = with(|w| w.events.len());
        if retried_at == Some(now) && with(|w| w.lock_owner.is_none()) {
            stop(format!(
                "spins on XA_RETRY_ENTRY at {index}, and no task holds the lock"
            ));
        }
        retried_at = Some(now);
        world::wait_until(Wait::Lock);
    }
}

/// Ends an RCU read-side critical section.
fn rcu_unlock() {
    extern "C" {
        fn sim_rcu_read_unlock();
    }
    // SAFETY: The function only changes the state of the world.
    unsafe { sim_rcu_read_unlock() };
}

/// Checks a store before it happens, and updates which folios are in the page cache.
///
/// Returns the folios that the store removes.
pub fn check_store(index: usize, span: usize, stored: Slot) -> Vec<*mut folio> {
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
pub fn not_stored(stored: Slot, replaced: &[*mut folio]) {
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
/// `file` must be the one of this world.
pub unsafe fn file_mapping(file: *const file) -> *mut address_space {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*file).mapping }
}

/// # Safety
///
/// `file` must be the one of this world.
pub unsafe fn file_is_regular(_file: *const file) -> bool {
    true
}

/// # Safety
///
/// `file` must be the one of this world.
pub unsafe fn file_ra(_file: *mut file) -> *mut file_ra_state {
    with(|w| &raw mut *w.ra)
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_host(mapping: *const address_space) -> *mut inode {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).host }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_i_pages(mapping: *mut address_space) -> *mut xarray {
    // SAFETY: By the safety requirements of this function.
    unsafe { &raw mut (*mapping).i_pages }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_sub_nrpages(mapping: *mut address_space, nr: usize) {
    check(
        with(|w| w.lock_owner == Some(w.current)),
        "nrpages changes without the page-cache lock",
    );
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).nrpages -= nr };
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn shmem_mapping(mapping: *mut address_space) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).is_shmem }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_release_always(_mapping: *const address_space) -> bool {
    false
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_pmd_folio_support(mapping: *const address_space) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).pmd_folios }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_can_read_folios(mapping: *const address_space) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).reads }
}

/// # Safety
///
/// `inode` must be the one of this world.
pub unsafe fn inode_is_open_for_write(inode: *const inode) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*inode).open_for_write }
}

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
/// `folio` must be one of this world.
pub unsafe fn lruvec_stat_mod_folio(folio: *mut folio, item: node_stat_item, pages: c_int) {
    // SAFETY: By the safety requirements of this function.
    let lruvec = unsafe { live(folio, "lruvec_stat_mod_folio").lruvec };
    with(|w| w.stat[lruvec][item as usize] += pages as isize);
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

/// Takes a reference to a folio of this world.
pub fn get(folio: *mut folio) {
    // SAFETY: The callers pass a folio of this world.
    unsafe { folio_get(folio) };
}
