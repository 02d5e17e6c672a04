// SPDX-License-Identifier: GPL-2.0

//! Folios: references, the folio lock, flags, content.
//!
//! A freed folio keeps its memory until the end of the execution, so that each later use of it is
//! noticed.

use crate::{
    event::What,
    list::list_head,
    mapping::address_space,
    world::{self, check, fails, log, might_sleep, point, stop, violation, with, Task, Wait},
};
use std::{
    cell::Cell,
    ffi::c_int, //
};

/// The state of a folio with respect to the LRU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lru {
    /// Not added yet.
    Unborn,
    /// In the LRU batch of a task's CPU.
    Batch(Task),
    /// On the LRU.
    Listed,
    /// Isolated by a task.
    Isolated(Task),
}

/// `struct page`.
#[derive(Debug)]
pub struct page {
    pub folio: *mut folio,
    pub index: usize,
    /// Its content, as one number.
    pub content: Cell<u64>,
}

/// The number of pairs of a node and a memory cgroup.
pub const LRUVECS: usize = 2;

/// The content of a page that was not written since its allocation.
pub const GARBAGE: u64 = u64::MAX;

/// `struct folio`.
#[repr(C)]
#[derive(Debug)]
pub struct folio {
    // The first field, because `lru_folio()` casts its address.
    pub(crate) lru: list_head,
    pub id: usize,
    pub order: u32,
    /// The number of its node and memory cgroup.
    pub lruvec: usize,
    pub refs: Cell<c_int>,
    pub locked: Cell<Option<Task>>,
    pub lru_state: Cell<Lru>,
    pub uptodate: Cell<bool>,
    pub dirty: Cell<bool>,
    pub writeback: Cell<bool>,
    pub swapbacked: Cell<bool>,
    pub active: Cell<bool>,
    pub unevictable: Cell<bool>,
    pub mlocked: Cell<bool>,
    pub private: Cell<bool>,
    /// The number of page-table entries that map it.
    ///
    /// Each has a reference.
    pub mapcount: Cell<c_int>,
    /// True if a page-table entry that maps it is dirty.
    pub pte_dirty: Cell<bool>,
    /// The task that unmapped it and has not flushed the TLBs yet.
    pub stale: Cell<Option<Task>>,
    pub mapping: Cell<*mut address_space>,
    pub index: Cell<usize>,
    /// True if it is in the page cache.
    pub cached: Cell<bool>,
    pub freed: Cell<bool>,
    /// The page whose memory is failing.
    pub poisoned: Cell<Option<usize>>,
    pub pages: Vec<page>,
}

impl folio {
    /// Allocates a folio with one reference.
    pub fn alloc(order: u32) -> *mut folio {
        let (id, ptr) = with(|w| {
            let id = w.folios.len();
            let mut new = Box::new(folio {
                lru: list_head {
                    next: core::ptr::null_mut(),
                    prev: core::ptr::null_mut(),
                },
                id,
                order,
                // Some neighbours have the same lruvec, and others do not.
                lruvec: id / 2 % LRUVECS,
                refs: Cell::new(1),
                locked: Cell::new(None),
                lru_state: Cell::new(Lru::Unborn),
                uptodate: Cell::new(false),
                dirty: Cell::new(false),
                writeback: Cell::new(false),
                swapbacked: Cell::new(false),
                active: Cell::new(false),
                unevictable: Cell::new(false),
                mlocked: Cell::new(false),
                private: Cell::new(false),
                mapcount: Cell::new(0),
                pte_dirty: Cell::new(false),
                stale: Cell::new(None),
                mapping: Cell::new(core::ptr::null_mut()),
                index: Cell::new(0),
                cached: Cell::new(false),
                freed: Cell::new(false),
                poisoned: Cell::new(None),
                pages: Vec::new(),
            });
            let ptr = &raw mut *new;
            new.pages = (0..1 << order)
                .map(|index| page {
                    folio: ptr,
                    index,
                    content: Cell::new(GARBAGE),
                })
                .collect();
            w.memcg += 1 << order;
            w.folios.push(new);
            w.folio_ids.insert(ptr as usize, id);
            (id, ptr)
        });
        log(What::Alloc(id, order));
        ptr
    }

    /// Returns the number of pages.
    pub fn nr(&self) -> usize {
        1 << self.order
    }

    /// Returns a number that no other folio has.
    pub fn pfn(&self) -> usize {
        self.id << 10
    }

    /// Sets the content of a page.
    pub fn write(&self, page: usize, content: u64) {
        self.pages[page].content.set(content);
        log(What::Content(self.id, page, content));
    }
}

/// Returns the folio with a number.
pub fn folio_of(id: usize) -> *mut folio {
    with(|w| &raw mut *w.folios[id])
}

/// Returns a reference to a folio, after a check that it is not freed.
///
/// # Safety
///
/// `folio` must be one of this world.
pub unsafe fn live<'a>(folio: *const folio, call: &str) -> &'a folio {
    // SAFETY: Folios stay allocated until the next world.
    let folio = unsafe { &*folio };
    if folio.freed.get() {
        stop(format!(
            "{call}() of folio {}, which has been freed",
            folio.id
        ));
    }
    folio
}

/// Returns a reference to a folio, after a check that it is not freed and the task has it locked.
///
/// # Safety
///
/// As for [`live`].
pub(crate) unsafe fn locked<'a>(folio: *const folio, call: &str) -> &'a folio {
    // SAFETY: By the safety requirements of this function.
    let folio = unsafe { live(folio, call) };
    if folio.locked.get() != Some(with(|w| w.current)) {
        violation(format!(
            "{call}() of folio {}, which the task has not locked",
            folio.id
        ));
    }
    folio
}

macro_rules! folio_fns {
    ($($(#[$doc:meta])* fn $name:ident($folio:ident $(, $arg:ident: $type:ty)*) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// The folio must be one of this world.
        pub unsafe fn $name($folio: *mut folio $(, $arg: $type)*) $(-> $ret)? {
            // SAFETY: By the safety requirements of this function.
            let $folio = unsafe { live($folio, stringify!($name)) };
            $body
        }
    )*};
}

folio_fns! {
    /// Returns the number of references.
    fn folio_ref_count(folio) -> c_int { folio.refs.get() }
    /// Returns the number of pages.
    fn folio_nr_pages(folio) -> usize { folio.nr() }
    /// Returns the base-2 logarithm of the number of pages.
    fn folio_order(folio) -> u32 { folio.order }
    /// Returns the page frame number of the first page.
    fn folio_pfn(folio) -> usize { folio.pfn() }
    /// Returns `folio->index`.
    fn folio_index(folio) -> usize { folio.index.get() }
    /// Returns whether a task has it locked.
    fn folio_test_locked(folio) -> bool { folio.locked.get().is_some() }
    /// Returns whether a task waits for the lock.
    fn folio_test_waiters(folio) -> bool {
        let this = (&raw const *folio).cast_mut();
        with(|w| w.tasks.iter().any(|t| t.wait == Some(Wait::Folio(this))))
    }
    /// Returns whether it is on the LRU.
    fn folio_test_lru(folio) -> bool { folio.lru_state.get() == Lru::Listed }
    /// Returns whether it has private data of the file system.
    fn folio_has_private(folio) -> c_int { c_int::from(folio.private.get()) }
    /// Returns whether it is uptodate.
    fn folio_test_uptodate(folio) -> bool { folio.uptodate.get() }
    /// Returns whether it is dirty.
    fn folio_test_dirty(folio) -> bool { folio.dirty.get() }
    /// Returns whether it is under writeback.
    fn folio_test_writeback(folio) -> bool { folio.writeback.get() }
    /// Returns whether a page table maps it.
    fn folio_mapped(folio) -> bool { folio.mapcount.get() > 0 }
    /// Takes a reference.
    fn folio_get(folio) {
        check(folio.refs.get() > 0, "folio_get() of a folio without references");
        folio.refs.set(folio.refs.get() + 1);
    }
    /// Takes several references.
    fn folio_ref_add(folio, refs: c_int) { folio.refs.set(folio.refs.get() + refs); }
    /// Drops several references, which are not the last ones.
    fn folio_ref_sub(folio, refs: c_int) { folio.refs.set(folio.refs.get() - refs); }
    /// Drops a reference.
    fn folio_put(folio) { put(folio, 1); }
    /// Drops several references.
    fn folio_put_refs(folio, refs: c_int) { put(folio, refs); }
    /// Returns whether `folio->mapping` is `mapping`.
    fn folio_mapping_is(folio, mapping: *mut address_space) -> bool { folio.mapping.get() == mapping }
    /// Locks a folio that no other task can find.
    fn __folio_set_locked(folio) {
        check(!folio.cached.get(), "__folio_set_locked() of a folio that other tasks can find");
        acquired(folio);
    }
    /// Sets `PG_swapbacked`.
    fn __folio_set_swapbacked(folio) { folio.swapbacked.set(true); }
    /// Sets `folio->mapping` and `folio->index`.
    fn folio_set_mapping(folio, mapping: *mut address_space, index: usize) {
        folio.mapping.set(mapping);
        folio.index.set(index);
    }
    /// Sets `folio->mapping` to `NULL`.
    fn folio_clear_mapping(folio) {
        check(!folio.cached.get(), "folio->mapping of a folio in the page cache is cleared");
        folio.mapping.set(core::ptr::null_mut());
    }
    /// Marks the content as valid.
    fn folio_mark_uptodate(folio) {
        if folio.pages.iter().any(|p| p.content.get() == GARBAGE) {
            violation(format!("folio {} is marked uptodate with unwritten pages", folio.id));
        }
        folio.uptodate.set(true);
        log(What::Uptodate(folio.id));
    }
    /// Takes the lock if no task has it.
    ///
    /// Returns whether it did.
    fn folio_trylock(folio) -> bool {
        // There is no switch under the page-cache lock, to keep the number of executions low.
        if !with(|w| w.lock_owner == Some(w.current)) {
            point();
        }
        world::called("folio_trylock");
        if folio.locked.get().is_some() {
            log(What::FolioLockFailed(folio.id));
            return false;
        }
        acquired(folio);
        true
    }
    /// Returns page `n`.
    fn folio_page(folio, n: usize) -> *mut page {
        check(n < folio.nr(), "folio_page() past the end of the folio");
        (&raw const folio.pages[n.min(folio.nr() - 1)]).cast_mut()
    }
    /// Returns `&folio->lru`.
    fn folio_lru(folio) -> *mut list_head { (&raw const folio.lru).cast_mut() }
}

/// The number of folios in a batch: so small that a small range has more than one.
pub const FOLIO_BATCH_SIZE: u32 = 3;

fn acquired(folio: &folio) {
    folio.locked.set(Some(with(|w| w.current)));
    with(|w| w.me().locked.push((&raw const *folio).cast_mut()));
    log(What::FolioLock(folio.id));
}

/// Drops references, and frees the folio if none is left.
pub(crate) fn put(folio: &folio, refs: c_int) {
    let left = folio.refs.get() - refs;

    folio.refs.set(left);
    if left < 0 {
        violation(format!("folio {} has {left} references", folio.id));
    }
    if left > 0 {
        return;
    }
    folio.freed.set(true);
    log(What::Free(folio.id));
    if folio.lru_state.get() == Lru::Listed {
        // The kernel clears these flags when it removes the folio from the LRU. It does not clear
        // them for an isolated folio.
        folio.active.set(false);
        folio.unevictable.set(false);
    }
    let is = |what: bool, how: &str| {
        if what {
            violation(format!("folio {} is freed {how}", folio.id));
        }
    };
    is(folio.locked.get().is_some(), "while it is locked");
    is(folio.cached.get(), "while it is in the page cache");
    is(folio.mapcount.get() > 0, "while page tables map it");
    is(folio.stale.get().is_some(), "before the TLBs are flushed");
    is(
        !folio.mapping.get().is_null() && folio.lru_state.get() == Lru::Unborn,
        "with its mapping set",
    );
    is(
        folio.active.get() || folio.unevictable.get(),
        "with LRU flags set",
    );
    is(
        matches!(folio.lru_state.get(), Lru::Batch(_)),
        "while it is in an LRU batch",
    );
    folio.lru_state.set(Lru::Unborn);
    with(|w| w.memcg -= folio.nr() as isize);
}

/// # Safety
///
/// The folio must be one of this world.
pub unsafe fn folio_unlock(folio: *mut folio) {
    // SAFETY: By the safety requirements of this function.
    let folio = unsafe { locked(folio, "folio_unlock") };
    if folio.stale.get().is_some() {
        violation(format!(
            "folio {} is unlocked before the TLBs are flushed",
            folio.id
        ));
    }
    folio.locked.set(None);
    with(|w| w.me().locked.retain(|&f| !core::ptr::eq(f, folio)));
    log(What::FolioUnlock(folio.id));
    world::called("folio_unlock");
}

/// Waits for the folio lock and takes it.
///
/// Only the simulated C code calls this.
///
/// # Safety
///
/// The folio must be one of this world.
pub unsafe fn folio_lock(folio: *mut folio) {
    might_sleep("folio_lock");
    // SAFETY: By the safety requirements of this function.
    let this = unsafe { live(folio, "folio_lock") };
    let me = with(|w| w.current);
    if this.locked.get() == Some(me) {
        stop(format!("folio {} is locked twice", this.id));
    }
    // A task waits for folio locks in index order.
    let index = this.index.get();
    if with(|w| {
        w.me().locked.iter().any(|&f| {
            // SAFETY: Folios stay allocated until the next world.
            unsafe { (*f).cached.get() && (*f).index.get() > index }
        })
    }) {
        violation("waits for the lock of a folio with one of a higher index locked");
    }
    world::wait_until(Wait::Folio(folio));
    acquired(this);
}

/// # Safety
///
/// The folio must be one of this world.
pub unsafe fn folio_mark_dirty(folio: *mut folio) {
    // SAFETY: By the safety requirements of this function.
    let folio = unsafe { locked(folio, "folio_mark_dirty") };
    folio.dirty.set(true);
}

/// Checks that a page belongs to a folio that is not in the page cache.
fn check_new(page: &page, call: &str) {
    // SAFETY: Folios stay allocated until the next world.
    let folio = unsafe { live(page.folio, call) };
    if folio.cached.get() {
        violation(format!(
            "{call}() writes to folio {}, which is in the page cache",
            folio.id
        ));
    }
}

/// # Safety
///
/// `page` must be one of this world.
pub unsafe fn clear_highpage(page: *mut page) {
    // SAFETY: By the safety requirements of this function.
    let page = unsafe { &*page };
    check_new(page, "clear_highpage");
    // SAFETY: Folios stay allocated until the next world.
    unsafe { (*page.folio).write(page.index, 0) };
}

/// # Safety
///
/// Both pages must be of this world.
pub unsafe fn copy_mc_highpage(to: *mut page, from: *mut page) -> c_int {
    if with(|w| w.stale_writers) {
        point();
    }
    // SAFETY: By the safety requirements of this function.
    let (to, from) = unsafe { (&*to, &*from) };
    check_new(to, "copy_mc_highpage");
    // SAFETY: Folios stay allocated until the next world.
    let old = unsafe { locked(from.folio, "copy_mc_highpage") };
    if old.stale.get().is_some() {
        violation(format!(
            "folio {} is copied before the TLBs are flushed",
            old.id
        ));
    }
    if old.mapcount.get() > 0 {
        violation(format!(
            "folio {} is copied while page tables map it",
            old.id
        ));
    }
    check(old.uptodate.get(), "a folio that is not uptodate is copied");
    if fails("copy_mc_highpage") || old.poisoned.get() == Some(from.index) {
        return 1;
    }
    // SAFETY: Folios stay allocated until the next world.
    unsafe { (*to.folio).write(to.index, from.content.get()) };
    0
}
