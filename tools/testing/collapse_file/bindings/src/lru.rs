// SPDX-License-Identifier: GPL-2.0

//! The LRU: batches, isolation, putback, and the statistics of each lruvec.
//!
//! A small folio is added to the LRU through a batch of the CPU, which holds a reference. No task
//! can isolate the folio before the batch is drained.

use crate::{
    event::What,
    folios::{folio, folio_lru, live, put, Lru},
    list::{list_add_tail, list_del, list_head, INIT_LIST_HEAD},
    world::{check, fails, log, might_sleep, point, violation, with, Task},
};
use std::ffi::c_int;

pub type node_stat_item = u32;
pub const node_stat_item_NR_FILE_PAGES: node_stat_item = 0;
pub const node_stat_item_NR_FILE_THPS: node_stat_item = 1;
pub const node_stat_item_NR_SHMEM: node_stat_item = 2;
pub const node_stat_item_NR_SHMEM_THPS: node_stat_item = 3;

/// # Safety
///
/// `folio` must be one of this world.
pub unsafe fn lruvec_stat_mod_folio(folio: *mut folio, item: node_stat_item, pages: c_int) {
    // SAFETY: By the safety requirements of this function.
    let lruvec = unsafe { live(folio, "lruvec_stat_mod_folio").lruvec };
    with(|w| w.stat[lruvec][item as usize] += pages as isize);
}

impl folio {
    /// Returns whether the multi-gen LRU has it in a generation, so that `lru` is on no list.
    fn has_generation(&self) -> bool {
        self.id % 5 == 4
    }

    /// Removes it from its LRU list, if it is on one.
    pub fn take_off_list(&self) {
        if !self.lru.next.is_null() {
            // SAFETY: `lru` is on a list, because its `next` is set.
            unsafe { list_del((&raw const self.lru).cast_mut()) };
        }
    }
}

/// # Safety
///
/// `lru` must be the field of a folio.
pub unsafe fn lru_folio(lru: *mut list_head) -> *mut folio {
    lru.cast()
}

fn listed(folio: &folio) {
    folio.lru_state.set(Lru::Listed);
    if !folio.has_generation() && !folio.unevictable.get() {
        let entry = (&raw const folio.lru).cast_mut();
        // SAFETY: The entry belongs to the folio, which stays allocated until the next world.
        unsafe { INIT_LIST_HEAD(entry) };
    }
}

fn add_lru(folio: &folio) {
    if folio.order > 0 {
        listed(folio);
        return;
    }
    folio.refs.set(folio.refs.get() + 1);
    with(|w| {
        folio.lru_state.set(Lru::Batch(w.current));
        w.me().lru_batch.push((&raw const *folio).cast_mut());
    });
}

/// Adds a new folio to the LRU.
///
/// # Safety
///
/// The folio must be one of this world.
pub unsafe fn folio_add_lru(folio: *mut folio) {
    // SAFETY: By the safety requirements of this function.
    let folio = unsafe { live(folio, "folio_add_lru") };
    check(
        folio.lru_state.get() == Lru::Unborn,
        "folio_add_lru() of a folio that is on an LRU",
    );
    add_lru(folio);
}

/// Drains the LRU batch of a task's CPU.
pub fn drain(task: Task) {
    let batch = with(|w| std::mem::take(&mut w.tasks[task].lru_batch));
    for ptr in batch {
        // SAFETY: A batch has folios of this world.
        let folio = unsafe { live(ptr, "lru_add_drain") };
        listed(folio);
        put(folio, 1);
    }
}

/// Drains the LRU batches of all CPUs.
///
/// # Safety
///
/// There are no requirements.
pub unsafe fn lru_add_drain_all() {
    might_sleep("lru_add_drain_all");
    (0..with(|w| w.tasks.len())).for_each(drain);
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn lru_add_drain() {
    drain(with(|w| w.current));
}

/// Isolates folios up to the first that is not on the LRU, and adds them to `list`.
///
/// Returns the number of isolated folios.
///
/// # Safety
///
/// `folios` must have `nr` folios of this world, and `list` must be a valid list.
pub unsafe fn folios_isolate_lru(folios: *mut *mut folio, nr: u32, list: *mut list_head) -> u32 {
    // SAFETY: `folios` has `nr` folios by the safety requirements of this function.
    let folios = unsafe { core::slice::from_raw_parts(folios, nr as usize) };

    for (n, &ptr) in folios.iter().enumerate() {
        point();
        let refuse = fails("folios_isolate_lru");
        // SAFETY: By the safety requirements of this function.
        let folio = unsafe { live(ptr, "folios_isolate_lru") };
        let isolated = !refuse && folio.lru_state.get() == Lru::Listed;
        log(What::Isolate(folio.id, isolated));
        if !isolated {
            return n as u32;
        }
        folio.lru_state.set(Lru::Isolated(with(|w| w.current)));
        folio.refs.set(folio.refs.get() + 1);
        folio.take_off_list();
        // SAFETY: By the safety requirements of this function.
        unsafe { list_add_tail(folio_lru(ptr), list) };
    }
    nr
}

/// # Safety
///
/// The folio must be one of this world.
pub unsafe fn folio_putback_lru(folio: *mut folio) {
    check(
        with(|w| w.me().irqs_disabled == 0),
        "folio_putback_lru() with interrupts off",
    );
    // SAFETY: By the safety requirements of this function.
    let folio = unsafe { live(folio, "folio_putback_lru") };
    if folio.lru_state.get() != Lru::Isolated(with(|w| w.current)) {
        violation(format!(
            "folio {} is put back by a task that has not isolated it",
            folio.id
        ));
    }
    log(What::Putback(folio.id));
    add_lru(folio);
    put(folio, 1);
}
