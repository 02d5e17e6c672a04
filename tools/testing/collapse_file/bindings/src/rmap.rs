// SPDX-License-Identifier: GPL-2.0

//! The mappings of the file: VMAs, page-table entries and translations that CPUs still have.

use crate::{
    event::What,
    folios::{folio, folio_get, folio_put, live},
    mapping::address_space,
    world::{self, check, fails, log, might_sleep, point, stop, violation, with, Wait},
};
use std::{
    cell::Cell,
    ffi::c_int, //
};

pub type ttu_flags = u32;
pub const ttu_flags_TTU_BATCH_FLUSH: ttu_flags = 0x40;
pub const ttu_flags_TTU_KEEP_RWP: ttu_flags = 0x100;

/// `struct vm_area_struct`.
pub struct vm_area_struct {
    pub id: usize,
    /// The index of its first page in the file.
    pub start: usize,
    /// The number of its pages.
    pub nr: usize,
    /// True if a userfaultfd is registered for missing pages.
    pub uffd_missing: Cell<bool>,
    /// The modes `WP`, `MINOR` and `RWP`: true if a userfaultfd is registered in this mode.
    pub uffd_others: Cell<[bool; 3]>,
    /// True if it was unmapped.
    pub gone: Cell<bool>,
}

impl vm_area_struct {
    /// Adds a VMA and returns its number.
    pub fn add(start: usize, nr: usize) -> usize {
        with(|w| {
            let id = w.vmas.len();
            w.vmas.push(Box::new(vm_area_struct {
                id,
                start,
                nr,
                uffd_missing: Cell::new(false),
                uffd_others: Cell::new([false; 3]),
                gone: Cell::new(false),
            }));
            id
        })
    }

    /// Returns whether it has any of these pages, even if it was unmapped.
    pub fn reaches(&self, first: usize, last: usize) -> bool {
        self.start <= last && first < self.start + self.nr
    }

    /// Returns whether it maps any of these pages.
    pub fn overlaps(&self, first: usize, last: usize) -> bool {
        !self.gone.get() && self.reaches(first, last)
    }
}

/// Takes `i_mmap_rwsem` for reading.
///
/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn i_mmap_lock_read(_mapping: *mut address_space) {
    might_sleep("i_mmap_lock_read");
    if with(|w| w.i_mmap_readers.contains(&w.current)) {
        stop("i_mmap_rwsem is taken twice: a writer in between is a deadlock");
    }
    world::wait_until(Wait::IMmapRead);
    with(|w| {
        let me = w.current;
        w.i_mmap_readers.push(me)
    });
    log(What::IMmapRead);
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn i_mmap_unlock_read(_mapping: *mut address_space) {
    let held = with(|w| {
        let me = w.current;
        let at = w.i_mmap_readers.iter().position(|&t| t == me);
        at.map(|at| w.i_mmap_readers.swap_remove(at))
    });
    check(
        held.is_some(),
        "i_mmap_rwsem is released by a task that does not hold it",
    );
    log(What::IMmapUnlock);
}

/// Takes `i_mmap_rwsem` for reading and releases it, as a walk of the page tables does.
pub fn walk() {
    // SAFETY: Neither function uses the mapping.
    unsafe {
        i_mmap_lock_read(core::ptr::null_mut());
        i_mmap_unlock_read(core::ptr::null_mut());
    }
}

/// Runs `f` with `i_mmap_rwsem` held for writing.
pub fn i_mmap_write(f: impl FnOnce()) {
    might_sleep("i_mmap_lock_write");
    world::wait_until(Wait::IMmapWrite);
    with(|w| w.i_mmap_writer = Some(w.current));
    f();
    with(|w| w.i_mmap_writer = None);
}

fn find(first: usize, last: usize, after: Option<(usize, usize)>) -> *mut vm_area_struct {
    check(
        with(|w| w.i_mmap_readers.contains(&w.current)),
        "the VMAs of the file are walked without i_mmap_rwsem",
    );
    with(|w| {
        w.vmas
            .iter_mut()
            .filter(|v| {
                v.overlaps(first, last) && after.is_none_or(|after| (v.start, v.id) > after)
            })
            .min_by_key(|v| (v.start, v.id))
            .map_or(core::ptr::null_mut(), |v| &raw mut **v)
    })
}

/// Finds the first VMA with a page from `first` to `last`, both inclusive.
///
/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_rmap_tree_iter_first(
    _mapping: *mut address_space,
    first: usize,
    last: usize,
) -> *mut vm_area_struct {
    find(first, last, None)
}

/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn mapping_rmap_tree_iter_next(
    vma: *mut vm_area_struct,
    first: usize,
    last: usize,
) -> *mut vm_area_struct {
    // SAFETY: `vma` is valid by the safety requirements of this function.
    let after = unsafe { ((*vma).start, (*vma).id) };
    find(first, last, Some(after))
}

/// Records a full barrier.
///
/// It has no other effect, because all interleavings are sequentially consistent.
pub fn smp_mb() {
    with(|w| w.me().unordered = false);
}

/// Returns the number of registrations.
///
/// # Safety
///
/// There are no requirements.
pub unsafe fn read_userfaultfd_register_seq() -> c_int {
    // A registration takes no lock that the caller holds.
    point();
    check(
        with(|w| !w.me().unordered),
        "the number of registrations may be read before a retry entry is visible",
    );
    with(|w| w.registrations)
}

/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn userfaultfd_missing(vma: *mut vm_area_struct) -> bool {
    // A registration takes no lock that the caller holds.
    point();
    check(
        with(|w| w.i_mmap_readers.contains(&w.current)),
        "a VMA of the file is checked without i_mmap_rwsem",
    );
    check(
        with(|w| !w.me().unordered),
        "the flags of a VMA may be read before a retry entry is visible",
    );
    // SAFETY: `vma` is valid by the safety requirements of this function.
    let vma = unsafe { &*vma };
    log(What::CheckVma(vma.id, vma.uffd_missing.get()));
    vma.uffd_missing.get()
}

/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn userfaultfd_wp(vma: *mut vm_area_struct) -> bool {
    // SAFETY: `vma` is valid by the safety requirements of this function.
    unsafe { &*vma }.uffd_others.get()[0]
}

/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn userfaultfd_minor(vma: *mut vm_area_struct) -> bool {
    // SAFETY: `vma` is valid by the safety requirements of this function.
    unsafe { &*vma }.uffd_others.get()[1]
}

/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn userfaultfd_rwp(vma: *mut vm_area_struct) -> bool {
    // SAFETY: `vma` is valid by the safety requirements of this function.
    unsafe { &*vma }.uffd_others.get()[2]
}

/// Returns the start address.
///
/// An address is the index of a page, and each page is mapped at its own index.
///
/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn vma_vm_start(vma: *const vm_area_struct) -> usize {
    // SAFETY: `vma` is valid by the safety requirements of this function.
    unsafe { (*vma).start }
}

/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn vma_vm_end(vma: *const vm_area_struct) -> usize {
    // SAFETY: `vma` is valid by the safety requirements of this function.
    unsafe { (*vma).start + (*vma).nr }
}

/// # Safety
///
/// `vma` must be one of this world.
pub unsafe fn vma_start_pgoff(vma: *const vm_area_struct) -> usize {
    // SAFETY: `vma` is valid by the safety requirements of this function.
    unsafe { (*vma).start }
}

/// Maps a page of a locked folio in a VMA.
///
/// # Safety
///
/// `folio` must be one of this world.
pub unsafe fn map(vma: usize, index: usize, folio: *mut folio) {
    with(|w| w.ptes.push((vma, index, folio)));
    // SAFETY: `folio` is valid by the safety requirements of this function.
    unsafe {
        (*folio).mapcount.set((*folio).mapcount.get() + 1);
        folio_get(folio);
    }
}

/// Returns the folio that a page-table entry maps.
pub fn mapped(vma: usize, index: usize) -> Option<*mut folio> {
    with(|w| {
        let found = w.ptes.iter().find(|p| (p.0, p.1) == (vma, index))?;
        Some(found.2)
    })
}

/// Clears the page-table entries for which `which` returns true, and returns their folios.
pub fn unmap(which: impl Fn(usize, usize, *mut folio) -> bool) -> Vec<*mut folio> {
    let cleared: Vec<*mut folio> = with(|w| {
        let cleared = w
            .ptes
            .iter()
            .filter(|p| which(p.0, p.1, p.2))
            .map(|p| p.2)
            .collect();
        w.ptes.retain(|p| !which(p.0, p.1, p.2));
        cleared
    });
    for &folio in &cleared {
        // SAFETY: The folio is one of this world, with the reference of the entry.
        unsafe {
            (*folio).mapcount.set((*folio).mapcount.get() - 1);
            folio_put(folio);
        }
    }
    cleared
}

/// Unmaps folios in order, and stops after the first that has other references or is dirty.
///
/// A dirty folio ends the run only if `clean` is set. Returns the length of the run.
///
/// # Safety
///
/// `folios` must have `nr` folios of this world.
pub unsafe fn try_to_unmap_file_run(
    folios: *mut *mut folio,
    nr: u32,
    flags: ttu_flags,
    refs: c_int,
    clean: bool,
) -> u32 {
    // SAFETY: `folios` has `nr` folios by the safety requirements of this function.
    let ptrs = unsafe { core::slice::from_raw_parts(folios, nr as usize) };
    let run: Vec<&folio> = ptrs
        .iter()
        // SAFETY: The folio is one of this world by the safety requirements of this function.
        .map(|&folio| unsafe { live(folio, "try_to_unmap_file_run") })
        .collect();
    let ends = |folio: &folio, mapcount| {
        folio.refs.get() != folio.nr() as c_int + refs + mapcount || clean && folio.dirty.get()
    };
    let mut len = run.len();

    for folio in &run {
        if folio.locked.get() != Some(with(|w| w.current)) {
            violation(format!(
                "try_to_unmap_file_run() of folio {}, which the task has not locked",
                folio.id
            ));
        }
    }
    check(
        run.windows(2).all(|two| {
            two[0].mapping == two[1].mapping
                && two[0].index.get() + two[0].nr() <= two[1].index.get()
        }),
        "try_to_unmap_file_run() of folios that are not of one file in index order",
    );
    check(
        flags & ttu_flags_TTU_BATCH_FLUSH != 0,
        "try_to_unmap_file_run() without batching the flush",
    );
    // SAFETY: All folios of a run have the mapping of this world.
    unsafe { i_mmap_lock_read(run[0].mapping.get()) };
    let (first, last) = (
        run[0].index.get(),
        run[len - 1].index.get() + run[len - 1].nr() - 1,
    );
    let several = with(|w| w.vmas.iter().filter(|v| v.overlaps(first, last)).count() > 1);
    if several {
        let end = run.iter().position(|f| ends(f, f.mapcount.get()));
        len = end.map_or(len, |n| n + 1);
    }
    for n in 0..len {
        let folio = run[n];

        // Other tasks may take references before the folio is unmapped.
        point();
        if folio.mapcount.get() > 0 && !fails("try_to_unmap_file_run") {
            log(What::Unmap(folio.id));
            unmap(|_, _, f| core::ptr::eq(f, ptrs[n]));
            if folio.pte_dirty.take() {
                folio.dirty.set(true);
            }
            with(|w| {
                folio.stale.set(Some(w.current));
                w.me().unflushed.push(ptrs[n]);
            });
        }
        if !several && ends(folio, 0) {
            len = n + 1;
            break;
        }
    }
    // SAFETY: All folios of a run have the mapping of this world.
    unsafe { i_mmap_unlock_read(run[0].mapping.get()) };
    run[..len]
        .iter()
        .position(|folio| ends(folio, 0))
        .map_or(len, |n| n + 1) as u32
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn try_to_unmap_flush() {
    check(
        with(|w| w.me().irqs_disabled == 0),
        "try_to_unmap_flush() with interrupts off",
    );
    if with(|w| w.me().unflushed.is_empty()) {
        return;
    }
    if with(|w| w.stale_writers) {
        point();
    }
    with(|w| {
        let flushed = std::mem::take(&mut w.me().unflushed);
        for &folio in &flushed {
            // SAFETY: Folios stay allocated until the next world.
            unsafe { (*folio).stale.set(None) };
        }
        w.tlb.retain(|t| !flushed.contains(&t.2));
    });
    log(What::Flush);
}

/// Writes through a translation that the CPU of the task still has.
///
/// Returns whether it has one.
pub fn write_by_tlb(index: usize, content: u64) -> bool {
    let found = with(|w| {
        let me = w.current;
        w.tlb
            .iter()
            .find(|t| t.0 == me && t.1 == index)
            .map(|t| t.2)
    });
    let Some(folio) = found else { return false };
    // SAFETY: Folios stay allocated until the next world.
    let this = unsafe { live(folio, "a store by a stale translation") };
    this.pages[index - this.index.get()].content.set(content);
    this.dirty.set(true);
    log(What::Write(index, content));
    true
}
