// SPDX-License-Identifier: GPL-2.0

//! The page cache of the file, as other tasks and the simulated C code use it.

use crate::{
    event::{Slot, What},
    folios::{folio, folio_get, folio_of, folio_put, folio_put_refs, live},
    lru::{
        node_stat_item_NR_FILE_PAGES, node_stat_item_NR_FILE_THPS, node_stat_item_NR_SHMEM,
        node_stat_item_NR_SHMEM_THPS,
    },
    world::{self, check, stop, with, Wait},
    xa::{mk_value, slot, xa_destroy},
    xa_store::{xas_nomem, Cursor, GFP_KERNEL},
    HPAGE_PMD_ORDER,
};
use std::ffi::c_int;

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
    unsafe { folio_put_refs(old, this.nr() as c_int) };
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

/// Takes a reference to a folio of this world.
pub fn get(folio: *mut folio) {
    // SAFETY: The callers pass a folio of this world.
    unsafe { folio_get(folio) };
}

/// Frees all nodes as the eviction of the inode does, and checks that no node is leaked.
pub fn evict() {
    for index in 0..with(|w| w.inode.size) {
        if let Slot::Value(value) = slot(Cursor::new(index, 0).locked(|c| c.load())) {
            remove_value(index, value);
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
