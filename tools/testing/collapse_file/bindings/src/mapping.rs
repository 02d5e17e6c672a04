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

/// May sleep.
pub const GFP_KERNEL: u32 = 0xcc0;

const ENOENT: isize = 2;

/// `struct address_space`.
#[repr(C)]
pub struct address_space {
    pub i_pages: xarray,
    pub host: *mut inode,
    pub nrpages: usize,
    pub is_shmem: bool,
    /// The file system can have folios of PMD size.
    pub pmd_folios: bool,
    /// There is something to read folios with.
    pub reads: bool,
}

impl address_space {
    /// Makes one that is empty, in its final place.
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
    /// Pages that the file system is charged for.
    pub blocks: usize,
    /// Pages that are swapped out.
    pub swapped: usize,
    /// Pages up to the end of the file.
    pub size: usize,
    /// Somebody has it open for writing.
    pub open_for_write: bool,
    /// `filemap_flush()` was called.
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

/// The folio of a number.
pub fn folio_of(id: usize) -> *mut folio {
    with(|w| &raw mut *w.folios[id])
}

/// The folio in the page cache at an index, for a look from outside of the simulation.
pub fn cached(index: usize) -> Option<*mut folio> {
    with(|w| {
        let found = w
            .folios
            .iter_mut()
            .find(|f| f.cached.get() && (f.index.get()..f.index.get() + f.nr()).contains(&index))?;
        Some(&raw mut **found)
    })
}

/// A cursor of the C side.
pub struct Cursor(xa_state);

impl Cursor {
    /// At an index, for an entry of an order.
    pub fn new(index: usize, order: u32) -> Self {
        let mut xas = MaybeUninit::uninit();
        let xa = with(|w| &raw mut w.mapping.i_pages);
        // SAFETY: The array is alive; the call initializes all of the cursor.
        unsafe {
            xas_init_order(xas.as_mut_ptr(), xa, index, order);
            xa::mapping_set_update(xas.as_mut_ptr(), core::ptr::null_mut());
            Self(xas.assume_init())
        }
    }

    /// Walks to the index.
    pub fn load(&mut self) -> *mut std::ffi::c_void {
        // SAFETY: The caller has the lock, or is in an RCU section: the simulation checks that.
        unsafe {
            xas_reset(&raw mut self.0);
            xas_load(&raw mut self.0)
        }
    }

    /// Takes the lock for `f`.
    pub fn locked<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        // SAFETY: The cursor is valid.
        unsafe { xas_lock_irq(&raw mut self.0) };
        let result = f(self);
        // SAFETY: The lock is held.
        unsafe { xas_unlock_irq(&raw mut self.0) };
        result
    }

    /// Stores, within the lock. Fails if a node is missing.
    pub fn store(&mut self, entry: *mut std::ffi::c_void) -> bool {
        // SAFETY: The lock is held.
        unsafe {
            xas_reset(&raw mut self.0);
            xas_store(&raw mut self.0, entry);
            xas_error(&raw const self.0) == 0
        }
    }

    /// Stores if the slot holds `over`, allocating what it takes.
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
            // SAFETY: The cursor is valid and the lock not held.
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

/// Runs `f` within the page-cache lock.
pub fn locked<R>(f: impl FnOnce() -> R) -> R {
    Cursor::new(0, 0).locked(|_| f())
}

/// What has to be where a folio is added.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// This entry.
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

/// A folio has been replaced by something else than a folio.
pub fn uncount(this: &folio) {
    count(this, -1);
}

/// Adds a locked folio to the page cache, unless something else is there. The page cache has its
/// references then, and the caller still has its own.
pub fn add_folio(index: usize, new: *mut folio, over: Store) -> bool {
    let Store::Over(over) = over;
    // SAFETY: A folio of this world.
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
        // SAFETY: The cursor is valid and the lock not held.
        if !unsafe { xas_nomem(&raw mut cursor.0, GFP_KERNEL) } {
            return false;
        }
    }
}

/// Removes a locked folio from the page cache, leaving `entry`. The page cache's references are
/// gone then.
pub fn remove_folio(old: *mut folio, entry: Slot) {
    // SAFETY: A folio of this world.
    let this = unsafe { live(old, "filemap_remove_folio") };
    let entry = match entry {
        Slot::Value(value) => mk_value(value),
        _ => core::ptr::null_mut(),
    };
    Cursor::new(this.index.get(), this.order).locked(|cursor| {
        check(cursor.store(entry), "removing a folio takes a node");
        count(this, -1);
    });
    this.mapping.set(core::ptr::null_mut());
    // SAFETY: The page cache had them.
    unsafe { crate::folios::folio_put_refs(old, this.nr() as c_int) };
}

/// Removes a value, if it is still there.
pub fn remove_value(index: usize, value: usize) -> bool {
    Cursor::new(index, 0).replace(core::ptr::null_mut(), Slot::Value(value), || ())
}

/// Puts a value into an empty slot, when a file is set up.
pub fn add_value(index: usize, value: usize) {
    Cursor::new(index, 0).replace(mk_value(value), Slot::Hole, || ());
}

/// Looks an index up without the lock and takes a reference to the folio: `filemap_get_entry()`.
pub fn lookup(index: usize) -> Slot {
    let mut retried_at = None;
    loop {
        world::point();
        with(|w| w.me().rcu += 1);
        let mut cursor = Cursor::new(index, 0);
        let found = slot(cursor.load());
        let found = match found {
            Slot::Folio(id) => {
                // SAFETY: Folios stay until the next world.
                let this = unsafe { &*folio_of(id) };
                if this.freed.get() {
                    None
                } else {
                    this.refs.set(this.refs.get() + 1);
                    world::log(What::Get(id));
                    if slot(cursor.load()) == found {
                        Some(found)
                    } else {
                        // SAFETY: The reference is ours.
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
        // Spins, in C. Whoever has the lock is going to release it, and has then removed all
        // entries to retry on. What is found again with nothing done since is there for ever.
        let now = with(|w| w.events.len());
        if retried_at == Some(now) && with(|w| w.lock_owner.is_none()) {
            stop(format!(
                "spins on XA_RETRY_ENTRY at {index}, and nobody holds the lock"
            ));
        }
        retried_at = Some(now);
        world::wait_until(Wait::Lock);
    }
}

/// Ends an RCU section.
fn rcu_unlock() {
    extern "C" {
        fn sim_rcu_read_unlock();
    }
    // SAFETY: Ends what the caller began.
    unsafe { sim_rcu_read_unlock() };
}

/// Checks what is about to be stored, and keeps account of which folios are in the page cache.
/// Returns those that are not any more.
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
        // SAFETY: A folio of this world.
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
    // SAFETY: A folio of this world.
    let new = unsafe { live(folio_of(id), "xas_store") };
    let is = |what: bool, how: &str| {
        if what {
            violation(format!("folio {id} gets into the page cache {how}"));
        }
    };
    is(new.locked.get() != Some(me), "without being locked");
    is(new.nr() != span, "in a place of another size");
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

/// The store has failed: all is in the page cache that was there before.
pub fn not_stored(stored: Slot, replaced: &[*mut folio]) {
    if let Slot::Folio(id) = stored {
        with(|w| w.folios[id].cached.set(false));
    }
    for &old in replaced {
        // SAFETY: Folios stay until the next world.
        unsafe { (*old).cached.set(true) };
    }
}

/// # Safety
///
/// `file` is that of the world.
pub unsafe fn file_mapping(file: *const file) -> *mut address_space {
    // SAFETY: As the caller says.
    unsafe { (*file).mapping }
}

/// # Safety
///
/// `file` is that of the world.
pub unsafe fn file_is_regular(_file: *const file) -> bool {
    true
}

/// # Safety
///
/// `file` is that of the world.
pub unsafe fn file_ra(_file: *mut file) -> *mut file_ra_state {
    with(|w| &raw mut *w.ra)
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn mapping_host(mapping: *const address_space) -> *mut inode {
    // SAFETY: As the caller says.
    unsafe { (*mapping).host }
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn mapping_i_pages(mapping: *mut address_space) -> *mut xarray {
    // SAFETY: As the caller says.
    unsafe { &raw mut (*mapping).i_pages }
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn mapping_sub_nrpages(mapping: *mut address_space, nr: usize) {
    check(
        with(|w| w.lock_owner == Some(w.current)),
        "nrpages changes without the page-cache lock",
    );
    // SAFETY: As the caller says.
    unsafe { (*mapping).nrpages -= nr };
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn shmem_mapping(mapping: *mut address_space) -> bool {
    // SAFETY: As the caller says.
    unsafe { (*mapping).is_shmem }
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn mapping_release_always(_mapping: *const address_space) -> bool {
    false
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn mapping_pmd_folio_support(mapping: *const address_space) -> bool {
    // SAFETY: As the caller says.
    unsafe { (*mapping).pmd_folios }
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn mapping_can_read_folios(mapping: *const address_space) -> bool {
    // SAFETY: As the caller says.
    unsafe { (*mapping).reads }
}

/// # Safety
///
/// `inode` is that of the world.
pub unsafe fn inode_is_open_for_write(inode: *const inode) -> bool {
    // SAFETY: As the caller says.
    unsafe { (*inode).open_for_write }
}

/// Truncation and writeback wait for folio locks, so a task that waits for them has none.
fn no_folio_is_locked(call: &str) {
    let locked = with(|w| {
        // SAFETY: A folio that a task has locked is one of the world.
        w.me().locked.iter().any(|&f| unsafe { (*f).cached.get() })
    });
    if locked {
        violation(format!("{call}() with a folio of the page cache locked"));
    }
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn filemap_flush(_mapping: *mut address_space) -> c_int {
    might_sleep("filemap_flush");
    no_folio_is_locked("filemap_flush");
    with(|w| w.inode.flushed = true);
    0
}

/// Reads what is missing up to the end of the file, as many pages as are asked for.
///
/// # Safety
///
/// All are those of the world.
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
        "readahead calls what is not there",
    );
    check(
        (index + nr) % HPAGE_PMD_NR == 0,
        "readahead ends elsewhere than the range",
    );
    world::called("page_cache_sync_readahead");
    let size = with(|w| w.inode.size);
    for i in index..(index + nr).min(size) {
        let over = match lookup(i) {
            Slot::Folio(id) => {
                // SAFETY: `lookup` took the reference.
                unsafe { folio_put(folio_of(id)) };
                continue;
            }
            other => other,
        };
        let new = folio::alloc(0);
        // SAFETY: New, and ours.
        let this = unsafe {
            __folio_set_locked(new);
            &*new
        };
        if add_folio(i, new, Store::Over(over)) {
            // SAFETY: Ours.
            unsafe { folio_add_lru(new) };
            if !fails("read") {
                this.write(0, with(|w| w.disk[i]));
                this.uptodate.set(true);
            }
        }
        // SAFETY: Ours.
        unsafe {
            folio_unlock(new);
            folio_put(new);
        }
    }
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn filemap_lock_folio(_mapping: *mut address_space, index: usize) -> *mut folio {
    might_sleep("filemap_lock_folio");
    world::called("filemap_lock_folio");
    match lock_folio(index) {
        Some(folio) => folio,
        None => (-ENOENT) as *mut folio,
    }
}

/// Finds and locks the folio at an index.
pub fn lock_folio(index: usize) -> Option<*mut folio> {
    loop {
        let Slot::Folio(id) = lookup(index) else {
            return None;
        };
        let found = folio_of(id);
        // SAFETY: `lookup` took a reference.
        unsafe { folio_lock(found) };
        // SAFETY: As above.
        if unsafe { (*found).cached.get() } {
            return Some(found);
        }
        // SAFETY: Ours.
        unsafe {
            folio_unlock(found);
            folio_put(found);
        }
    }
}

/// # Safety
///
/// `folio` is one of this world.
pub unsafe fn lruvec_stat_mod_folio(folio: *mut folio, item: node_stat_item, pages: c_int) {
    // SAFETY: As the caller says.
    let lruvec = unsafe { live(folio, "lruvec_stat_mod_folio").lruvec };
    with(|w| w.stat[lruvec][item as usize] += pages as isize);
}

/// Adds a folio when a file is set up, or fills a hole, and leaves it locked and referenced.
pub fn new_folio(index: usize, order: u32) -> Option<*mut folio> {
    let new = folio::alloc(order);
    // SAFETY: New, and ours.
    unsafe {
        __folio_set_locked(new);
        (*new).swapbacked.set(with(|w| w.mapping.is_shmem));
    }
    if add_folio(index, new, Store::Over(Slot::Hole)) {
        if with(|w| w.mapping.is_shmem) {
            shmem::account(1 << order);
        }
        // SAFETY: Ours.
        unsafe { folio_add_lru(new) };
        return Some(new);
    }
    // SAFETY: Ours.
    unsafe {
        folio_unlock(new);
        folio_put(new);
    }
    None
}

/// Takes a reference.
pub fn get(folio: *mut folio) {
    // SAFETY: A folio of this world.
    unsafe { folio_get(folio) };
}

/// Notes what a task is about.
pub fn note(note: &'static str) {
    world::log(What::Note(note));
}
