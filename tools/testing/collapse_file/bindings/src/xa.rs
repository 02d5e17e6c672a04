// SPDX-License-Identifier: GPL-2.0

//! The XArray: the kernel's `lib/xarray.c`, `rust/helpers/xa_state.c` and the functions they call.

use crate::{
    event::{Slot, What},
    mapping,
    world::{self, check, lockless_point, log, stop, violation, with, Wait},
};
use std::{
    alloc::{alloc, dealloc, Layout},
    ffi::{c_char, c_int, c_ulong, c_void, CStr},
};

/// `spinlock_t`.
#[repr(C)]
#[derive(Default)]
pub struct spinlock_t(u32);

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
            xa_lock: spinlock_t(0),
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

    fn xa_destroy(xa: *mut xarray);
    fn sim_xa_init(xa: *mut xarray);
    fn sim_has_update(xas: *const xa_state) -> bool;
    fn sim_xas_index(xas: *const xa_state) -> c_ulong;
    fn sim_xas_span(xas: *const xa_state) -> c_ulong;
    fn sim_mapping_set_update(xas: *mut xa_state);
    fn sim_mk_value(value: c_ulong) -> *mut c_void;
    fn sim_to_value(entry: *const c_void) -> c_ulong;
}

/// The addresses of all nodes of the array, by state.
#[derive(Default)]
pub struct Nodes {
    /// Allocated nodes.
    live: Vec<usize>,
    /// Nodes that hold only values: the list of shadow nodes.
    listed: Vec<usize>,
    /// Removed nodes that RCU readers may still access.
    waiting: Vec<usize>,
    /// Freed nodes.
    ///
    /// Their memory is kept until the end of the execution.
    freed: Vec<usize>,
    size: usize,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in self
            .live
            .drain(..)
            .chain(self.waiting.drain(..))
            .chain(self.freed.drain(..))
        {
            // SAFETY: `sim_node_alloc()` allocated the node with this layout, and no task of the
            // execution runs any more.
            unsafe { dealloc(node as *mut u8, layout(self.size)) };
        }
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 64).expect("a node is small")
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

/// # Safety
///
/// `xas` must be a valid cursor.
pub unsafe fn mapping_set_update(xas: *mut xa_state, _mapping: *mut mapping::address_space) {
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
    let replaced = mapping::check_store(index, span, stored);
    let at = with(|w| w.events.len());
    log(What::Store(index, span.trailing_zeros(), stored));
    // SAFETY: By the safety requirements of this function.
    let old = unsafe { real_xas_store(xas, entry) };
    // SAFETY: `xas` is valid by the safety requirements of this function.
    if unsafe { xas_error(xas) } != 0 {
        with(|w| w.events[at].what = What::Note("cannot store"));
        mapping::not_stored(stored, &replaced);
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
            .map(|index| slot(mapping::Cursor::new(index, 0).load()))
            .collect()
    };

    let before = slots();
    let result = call();
    for (n, (before, after)) in before.into_iter().zip(slots()).enumerate() {
        if before != after {
            mapping::check_store(first + n, 1, after);
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

/// Frees all nodes as the eviction of the inode does, and checks that no node is leaked.
pub fn evict() {
    for index in 0..with(|w| w.inode.size) {
        if let Slot::Value(value) = slot(mapping::Cursor::new(index, 0).locked(|c| c.load())) {
            mapping::remove_value(index, value);
        }
    }
    let xa = with(|w| &raw mut w.mapping.i_pages);
    // SAFETY: The array is that of the world.
    unsafe { xa_destroy(xa) };
    with(|w| w.nodes.quiesce());
    let (live, listed) = with(|w| (w.nodes.live.len(), w.nodes.listed.len()));
    check(live == 0, &format!("{live} xa_nodes leaked"));
    check(
        listed == 0,
        "a freed xa_node is on the list of shadow nodes",
    );
}

impl Nodes {
    /// Ends a grace period: overwrites and frees the removed nodes.
    fn quiesce(&mut self) {
        for &node in &self.waiting {
            // SAFETY: The node has `size` bytes, and after the grace period no reader accesses it.
            unsafe { core::ptr::write_bytes(node as *mut u8, 0xa6, self.size) };
        }
        self.freed.append(&mut self.waiting);
    }

    fn contains(nodes: &[usize], size: usize, address: usize) -> bool {
        nodes
            .iter()
            .any(|&node| (node..node + size).contains(&address))
    }
}

#[no_mangle]
extern "C" fn sim_bug(what: *const c_char, line: c_int) {
    // SAFETY: `BUG_ON()` and `WARN_ON()` pass a string literal.
    let what = unsafe { CStr::from_ptr(what) }.to_string_lossy();
    stop(format!("BUG at line {line} of lib/xarray.c: {what}"))
}

#[no_mangle]
extern "C" fn sim_might_alloc(may_sleep: bool) {
    if may_sleep {
        world::might_sleep("xas_nomem");
    }
}

#[no_mangle]
extern "C" fn sim_node_alloc(size: usize, may_sleep: bool) -> *mut c_void {
    if may_sleep {
        world::might_sleep("kmem_cache_alloc_lru");
    }
    if world::fails(if may_sleep { "node" } else { "node-atomic" }) {
        log(What::NodeRefused);
        return core::ptr::null_mut();
    }
    // SAFETY: `size` is that of `struct xa_node`, which is not zero.
    let node = unsafe { alloc(layout(size)) };
    with(|w| {
        w.nodes.size = size;
        w.nodes.live.push(node as usize);
    });
    node.cast()
}

fn forget_live(node: usize) {
    let known = with(|w| {
        let at = w.nodes.live.iter().position(|&n| n == node);
        at.map(|at| w.nodes.live.swap_remove(at))
    });
    check(known.is_some(), "an xa_node is freed twice");
    let listed = with(|w| w.nodes.listed.contains(&node));
    check(!listed, "an xa_node on the list of shadow nodes is freed");
}

#[no_mangle]
extern "C" fn sim_node_free(node: *mut c_void) {
    forget_live(node as usize);
    with(|w| w.nodes.freed.push(node as usize));
}

#[no_mangle]
extern "C" fn sim_call_rcu(node: *mut c_void) {
    forget_live(node as usize);
    with(|w| {
        w.nodes.waiting.push(node as usize);
        if w.tasks.iter().all(|t| t.rcu == 0) {
            w.nodes.quiesce();
        }
    });
}

#[no_mangle]
extern "C" fn sim_node_update(_node: *const c_void, locked: bool) {
    check(locked, "an xa_node changes without the page-cache lock");
}

#[no_mangle]
extern "C" fn sim_node_listed(node: *const c_void, listed: bool) {
    with(|w| {
        let at = w.nodes.listed.iter().position(|&n| n == node as usize);
        match (at, listed) {
            (None, true) => w.nodes.listed.push(node as usize),
            (Some(at), false) => {
                w.nodes.listed.swap_remove(at);
            }
            _ => (),
        }
    });
}

#[no_mangle]
extern "C" fn sim_rcu_read_lock() {
    with(|w| w.me().rcu += 1);
}

#[no_mangle]
extern "C" fn sim_rcu_read_unlock() {
    with(|w| {
        w.me().rcu -= 1;
        if w.tasks.iter().all(|t| t.rcu == 0) {
            w.nodes.quiesce();
        }
    });
}

#[no_mangle]
extern "C" fn sim_rcu_read(from: *const c_void, protected: bool) {
    let (freed, rcu, lock) = with(|w| {
        let nodes = &w.nodes;
        (
            Nodes::contains(&nodes.freed, nodes.size, from as usize),
            w.tasks[w.current].rcu > 0,
            w.lock_owner == Some(w.current),
        )
    });
    if freed {
        stop("a freed xa_node is read");
    }
    check(
        protected || rcu,
        "the XArray is read without the page-cache lock or rcu_read_lock()",
    );
    if rcu && !lock {
        // Other tasks can run between two steps of a lockless walk.
        lockless_point();
    }
}

#[no_mangle]
extern "C" fn sim_rcu_assign(to: *const c_void) {
    let freed = with(|w| {
        let nodes = &w.nodes;
        Nodes::contains(&nodes.freed, nodes.size, to as usize)
            || Nodes::contains(&nodes.waiting, nodes.size, to as usize)
    });
    if freed {
        stop("a freed xa_node is written");
    }
    // Lockless readers can run between two steps of a store.
    lockless_point();
}

/// Takes the page-cache lock.
#[no_mangle]
extern "C" fn sim_lock(_lock: *mut c_void, irq: bool) {
    check(
        irq,
        "the page-cache lock is taken without disabling interrupts",
    );
    world::called("lock");
    if with(|w| w.lock_owner == Some(w.current)) {
        stop("the page-cache lock is taken twice");
    }
    check(
        with(|w| w.me().irqs_disabled == 0),
        "the page-cache lock is taken with interrupts off, and its release enables them",
    );
    acquire();
}

fn acquire() {
    world::wait_until(Wait::Lock);
    with(|w| {
        w.lock_owner = Some(w.current);
        w.me().irqs_disabled += 1;
    });
    log(What::Lock);
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn irqs_disabled() -> bool {
    with(|w| w.me().irqs_disabled > 0)
}

/// Takes the page-cache lock.
///
/// Interrupts may be disabled already.
///
/// # Safety
///
/// There are no requirements.
pub unsafe fn spin_lock_irq_disable(_lock: *mut spinlock_t) {
    world::called("lock");
    if with(|w| w.lock_owner == Some(w.current)) {
        stop("the page-cache lock is taken twice");
    }
    acquire();
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn spin_unlock_irq_enable(lock: *mut spinlock_t) {
    sim_unlock(lock.cast(), true);
}

#[no_mangle]
extern "C" fn sim_unlock(_lock: *mut c_void, _irq: bool) {
    check(
        with(|w| w.lock_owner == Some(w.current)),
        "the page-cache lock is released by a task that does not hold it",
    );
    log(What::Unlock);
    with(|w| {
        w.lock_owner = None;
        w.me().irqs_disabled -= 1;
        // All retry entries are gone by now; `retry_is_not_left()` checks this.
        w.me().unordered = false;
    });
    world::called("unlocked");
}

#[no_mangle]
extern "C" fn sim_lock_is_held(_lock: *const c_void) -> bool {
    with(|w| w.lock_owner == Some(w.current))
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn lockdep_assert_irqs_enabled() {
    check(
        with(|w| w.me().irqs_disabled == 0),
        "interrupts are off where they must be enabled",
    );
}
