// SPDX-License-Identifier: GPL-2.0

//! The nodes of the XArray: allocation, RCU, and the list of shadow nodes.
//!
//! `lib/xarray.c` calls these functions through `csrc/`.

use crate::{
    event::What,
    world::{self, check, lockless_point, log, stop, with},
};
use std::{
    alloc::{alloc, dealloc, Layout},
    ffi::c_void,
};

/// The addresses of all nodes of the array, by state.
#[derive(Default)]
pub struct Nodes {
    /// Allocated nodes.
    pub(crate) live: Vec<usize>,
    /// Nodes that hold only values: the list of shadow nodes.
    pub(crate) listed: Vec<usize>,
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

impl Nodes {
    /// Ends a grace period: overwrites and frees the removed nodes.
    pub(crate) fn quiesce(&mut self) {
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
