// SPDX-License-Identifier: GPL-2.0

//! Who maps the file: VMAs, page-table entries, translations that CPUs still have.

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
    /// Index of its first page in the file.
    pub start: usize,
    /// The number of its pages.
    pub nr: usize,
    /// A userfaultfd is registered for missing pages.
    pub uffd_missing: Cell<bool>,
    /// One is registered for protected pages, for minor faults, for all accesses to protected ones.
    pub uffd_others: Cell<[bool; 3]>,
    /// It is not there any more.
    pub gone: Cell<bool>,
}

impl vm_area_struct {
    /// Adds one.
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

    /// Whether any of these pages is one of its own.
    pub fn reaches(&self, first: usize, last: usize) -> bool {
        self.start <= last && first < self.start + self.nr
    }

    /// Whether it maps any of these pages.
    pub fn overlaps(&self, first: usize, last: usize) -> bool {
        !self.gone.get() && self.reaches(first, last)
    }
}

/// Takes `i_mmap_rwsem` for reading.
///
/// # Safety
///
/// `mapping` is that of the world.
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
/// `mapping` is that of the world.
pub unsafe fn i_mmap_unlock_read(_mapping: *mut address_space) {
    let held = with(|w| {
        let me = w.current;
        let at = w.i_mmap_readers.iter().position(|&t| t == me);
        at.map(|at| w.i_mmap_readers.swap_remove(at))
    });
    check(
        held.is_some(),
        "i_mmap_rwsem is released by who does not hold it",
    );
    log(What::IMmapUnlock);
}

/// Takes `i_mmap_rwsem` and releases it, as who looks for page tables does.
pub fn walk() {
    // SAFETY: The mapping is not looked at.
    unsafe {
        i_mmap_lock_read(core::ptr::null_mut());
        i_mmap_unlock_read(core::ptr::null_mut());
    }
}

/// Runs `f` with `i_mmap_rwsem` taken for writing.
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
        "the VMAs of a file are walked without i_mmap_rwsem",
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

/// Both ends are inclusive, as in C.
///
/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn mapping_rmap_tree_iter_first(
    _mapping: *mut address_space,
    first: usize,
    last: usize,
) -> *mut vm_area_struct {
    find(first, last, None)
}

/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn mapping_rmap_tree_iter_next(
    vma: *mut vm_area_struct,
    first: usize,
    last: usize,
) -> *mut vm_area_struct {
    // SAFETY: As the caller says.
    let after = unsafe { ((*vma).start, (*vma).id) };
    find(first, last, Some(after))
}

/// A full barrier. All orders that are explored are sequentially consistent, so it is only noted.
pub fn smp_mb() {
    with(|w| w.me().unordered = false);
}

/// The number of registrations.
///
/// # Safety
///
/// None.
pub unsafe fn read_userfaultfd_register_seq() -> c_int {
    // To register takes no lock that the caller holds.
    point();
    check(
        with(|w| !w.me().unordered),
        "the number of registrations may be read before a retry entry is visible",
    );
    with(|w| w.registrations)
}

/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn userfaultfd_missing(vma: *mut vm_area_struct) -> bool {
    // To register takes no lock that the caller holds.
    point();
    check(
        with(|w| w.i_mmap_readers.contains(&w.current)),
        "a VMA of the file is looked at without i_mmap_rwsem",
    );
    check(
        with(|w| !w.me().unordered),
        "the flags of a VMA may be read before a retry entry is visible",
    );
    // SAFETY: As the caller says.
    let vma = unsafe { &*vma };
    log(What::CheckVma(vma.id, vma.uffd_missing.get()));
    vma.uffd_missing.get()
}

/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn userfaultfd_wp(vma: *mut vm_area_struct) -> bool {
    // SAFETY: As the caller says.
    unsafe { &*vma }.uffd_others.get()[0]
}

/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn userfaultfd_minor(vma: *mut vm_area_struct) -> bool {
    // SAFETY: As the caller says.
    unsafe { &*vma }.uffd_others.get()[1]
}

/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn userfaultfd_rwp(vma: *mut vm_area_struct) -> bool {
    // SAFETY: As the caller says.
    unsafe { &*vma }.uffd_others.get()[2]
}

/// An address is the number of a page, and each page is mapped at its own.
///
/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn vma_vm_start(vma: *const vm_area_struct) -> usize {
    // SAFETY: As the caller says.
    unsafe { (*vma).start }
}

/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn vma_vm_end(vma: *const vm_area_struct) -> usize {
    // SAFETY: As the caller says.
    unsafe { (*vma).start + (*vma).nr }
}

/// # Safety
///
/// `vma` is one of this world.
pub unsafe fn vma_start_pgoff(vma: *const vm_area_struct) -> usize {
    // SAFETY: As the caller says.
    unsafe { (*vma).start }
}

/// Maps a page of a locked folio.
///
/// # Safety
///
/// `folio` is one of this world.
pub unsafe fn map(vma: usize, index: usize, folio: *mut folio) {
    with(|w| w.ptes.push((vma, index, folio)));
    // SAFETY: As the caller says.
    unsafe {
        (*folio).mapcount.set((*folio).mapcount.get() + 1);
        folio_get(folio);
    }
}

/// The folio that a page-table entry maps.
pub fn mapped(vma: usize, index: usize) -> Option<*mut folio> {
    with(|w| {
        let found = w.ptes.iter().find(|p| (p.0, p.1) == (vma, index))?;
        Some(found.2)
    })
}

/// Clears page-table entries for which `which` says so.
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
        // SAFETY: The entry had a reference.
        unsafe {
            (*folio).mapcount.set((*folio).mapcount.get() - 1);
            folio_put(folio);
        }
    }
    cleared
}

/// Unmaps folios up to the first that has further references or is dirty.
///
/// # Safety
///
/// `folios` has `nr` folios of this world.
pub unsafe fn try_to_unmap_file_run(
    folios: *mut *mut folio,
    nr: u32,
    flags: ttu_flags,
    refs: c_int,
    clean: bool,
) -> u32 {
    // SAFETY: As the caller says.
    let ptrs = unsafe { core::slice::from_raw_parts(folios, nr as usize) };
    let run: Vec<&folio> = ptrs
        .iter()
        // SAFETY: As the caller says.
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
        "try_to_unmap_file_run() of folios that are not of one file, in order",
    );
    check(
        flags & ttu_flags_TTU_BATCH_FLUSH != 0,
        "try_to_unmap_file_run() without batching the flush",
    );
    // SAFETY: The mapping is that of the world.
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

        // Others take references meanwhile.
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
    // SAFETY: The mapping is that of the world.
    unsafe { i_mmap_unlock_read(run[0].mapping.get()) };
    run[..len]
        .iter()
        .position(|folio| ends(folio, 0))
        .map_or(len, |n| n + 1) as u32
}

/// # Safety
///
/// None.
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
            // SAFETY: Folios stay until the next world.
            unsafe { (*folio).stale.set(None) };
        }
        w.tlb.retain(|t| !flushed.contains(&t.2));
    });
    log(What::Flush);
}

/// Writes by a translation that the task's CPU still has, if it has one.
pub fn write_by_tlb(index: usize, content: u64) -> bool {
    let found = with(|w| {
        let me = w.current;
        w.tlb
            .iter()
            .find(|t| t.0 == me && t.1 == index)
            .map(|t| t.2)
    });
    let Some(folio) = found else { return false };
    // SAFETY: Folios stay until the next world.
    let this = unsafe { live(folio, "a store by a stale translation") };
    this.pages[index - this.index.get()].content.set(content);
    this.dirty.set(true);
    log(What::Write(index, content));
    true
}
