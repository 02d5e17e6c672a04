// SPDX-License-Identifier: GPL-2.0

//! What `mm/khugepaged.c` gives to `mm/collapse_file.rs`, and what calls it.

use crate::{
    event::What,
    folios::folio,
    mapping::{address_space, file},
    rmap,
    world::{self, check, fails, log, might_sleep, violation, with},
    HPAGE_PMD_NR, HPAGE_PMD_ORDER,
};
use std::ffi::c_int;

pub type scan_result = u32;

macro_rules! scan_results {
    ($($name:ident)*) => {
        scan_results!(@ 0u32; $($name)*);
        /// The names by value.
        pub const SCAN_RESULTS: &[&str] = &[$(stringify!($name)),*];
    };
    (@ $value:expr; $name:ident $($rest:ident)*) => {
        pub const $name: scan_result = $value;
        scan_results!(@ $value + 1; $($rest)*);
    };
    (@ $value:expr;) => {};
}

scan_results! {
    scan_result_SCAN_FAIL
    scan_result_SCAN_SUCCEED
    scan_result_SCAN_NO_PTE_TABLE
    scan_result_SCAN_PMD_MAPPED
    scan_result_SCAN_EXCEED_NONE_PTE
    scan_result_SCAN_EXCEED_SWAP_PTE
    scan_result_SCAN_EXCEED_SHARED_PTE
    scan_result_SCAN_PTE_NON_PRESENT
    scan_result_SCAN_PTE_UFFD
    scan_result_SCAN_PTE_MAPPED_HUGEPAGE
    scan_result_SCAN_LACK_REFERENCED_PAGE
    scan_result_SCAN_PAGE_NULL
    scan_result_SCAN_SCAN_ABORT
    scan_result_SCAN_PAGE_COUNT
    scan_result_SCAN_PAGE_LRU
    scan_result_SCAN_PAGE_LOCK
    scan_result_SCAN_PAGE_ANON
    scan_result_SCAN_PAGE_LAZYFREE
    scan_result_SCAN_PAGE_COMPOUND
    scan_result_SCAN_ANY_PROCESS
    scan_result_SCAN_VMA_NULL
    scan_result_SCAN_VMA_CHECK
    scan_result_SCAN_ADDRESS_RANGE
    scan_result_SCAN_DEL_PAGE_LRU
    scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL
    scan_result_SCAN_CGROUP_CHARGE_FAIL
    scan_result_SCAN_TRUNCATED
    scan_result_SCAN_PAGE_HAS_PRIVATE
    scan_result_SCAN_STORE_FAILED
    scan_result_SCAN_COPY_MC
    scan_result_SCAN_PAGE_FILLED
    scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK
    scan_result_SCAN_NO_SPACE
}

/// `struct mm_struct`.
#[derive(Default)]
#[repr(C)]
pub struct mm_struct {
    _unused: usize,
}

/// `struct collapse_control`.
#[repr(C)]
pub struct collapse_control {
    /// Not `madvise()`.
    pub is_khugepaged: bool,
}

extern "C" {
    /// Exported by `mm/collapse_file.rs`.
    pub fn rust_collapse_file(
        mm: *mut mm_struct,
        addr: usize,
        file: *mut file,
        start: usize,
        cc: *mut collapse_control,
    ) -> scan_result;
}

/// # Safety
///
/// `cc` is valid.
pub unsafe fn collapse_control_is_khugepaged(cc: *const collapse_control) -> bool {
    // SAFETY: As the caller says.
    unsafe { (*cc).is_khugepaged }
}

/// # Safety
///
/// `new` is valid.
pub unsafe fn alloc_charge_folio(
    new: *mut *mut folio,
    _mm: *mut mm_struct,
    _cc: *mut collapse_control,
    order: u32,
) -> scan_result {
    might_sleep("alloc_charge_folio");
    if fails("alloc_charge_folio") {
        return scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL;
    }
    if fails("mem_cgroup_charge") {
        return scan_result_SCAN_CGROUP_CHARGE_FAIL;
    }
    // SAFETY: As the caller says.
    unsafe { *new = folio::alloc(order) };
    scan_result_SCAN_SUCCEED
}

/// # Safety
///
/// `mapping` is that of the world.
pub unsafe fn retract_page_tables(_mapping: *mut address_space, start: usize) {
    might_sleep("retract_page_tables");
    check(
        with(|w| {
            w.folios.iter().any(|f| {
                f.cached.get()
                    && f.index.get() == start
                    && f.order == HPAGE_PMD_ORDER
                    && f.locked.get() == Some(w.current)
            })
        }),
        "retract_page_tables() without the huge folio being locked",
    );
    rmap::walk();
    log(What::Retract);
}

pub type collapse_file_impl = u32;
pub const collapse_file_impl_COLLAPSE_FILE_RUST: collapse_file_impl = 1;

/// Where the page-cache lock is held, the measurement of that begins or ends.
fn measure(begins: bool) {
    check(
        with(|w| w.lock_owner == Some(w.current)),
        "the last hold of the page-cache lock is measured without the lock",
    );
    let was = with(|w| core::mem::replace(&mut w.me().measuring, begins));
    check(
        was != begins,
        "the last hold of the page-cache lock is not measured once",
    );
}

/// # Safety
///
/// None.
pub unsafe fn collapse_file_hold_begin() -> u64 {
    measure(true);
    1
}

/// # Safety
///
/// None.
pub unsafe fn collapse_file_hold_end(rust: collapse_file_impl, begin: u64) {
    check(
        rust == collapse_file_impl_COLLAPSE_FILE_RUST && begin == 1,
        "a hold of the page-cache lock is counted for another",
    );
    measure(false);
}

/// The trace event.
///
/// # Safety
///
/// None.
#[allow(clippy::too_many_arguments)]
pub unsafe fn trace_mm_khugepaged_collapse_file(
    _mm: *mut mm_struct,
    new_pfn: usize,
    index: usize,
    _addr: usize,
    is_shmem: bool,
    file: *mut file,
    nr: c_int,
    result: c_int,
) {
    // SAFETY: The file is that of the world.
    let really_shmem = unsafe { (*(*file).mapping).is_shmem };
    if is_shmem != really_shmem || nr as usize != HPAGE_PMD_NR {
        violation("the trace event's arguments are wrong");
    }
    // There is a new folio if it was memory for a node that was missing.
    let told = if new_pfn == usize::MAX {
        let none = [
            scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL,
            scan_result_SCAN_CGROUP_CHARGE_FAIL,
        ];
        none.contains(&(result as u32))
    } else {
        with(|w| {
            let mut huge = w.folios.iter().filter(|f| f.order == HPAGE_PMD_ORDER);
            huge.any(|f| f.pfn() == new_pfn)
        })
    };
    check(
        told,
        "the trace event tells of another folio than the new one",
    );
    log(What::End(result as u32, index));
}

/// Collapses, as `collapse_scan_file()` calls it.
pub fn collapse(start: usize, is_khugepaged: bool) -> scan_result {
    let mut mm = mm_struct::default();
    let mut cc = collapse_control { is_khugepaged };
    let file = with(|w| &raw mut *w.file);
    with(|w| w.me().collapsing = true);
    log(What::Begin);
    // SAFETY: All are valid.
    let result =
        unsafe { rust_collapse_file(&raw mut mm, 0x7f00_0000_0000, file, start, &raw mut cc) };
    with(|w| w.me().collapsing = false);
    check(
        with(|w| !w.me().measuring),
        "the last hold of the page-cache lock does not end",
    );
    if world::found().is_none() {
        let traced = with(|w| {
            let me = w.current;
            w.events.iter().rev().find_map(|e| match e.what {
                What::End(result, _) if e.task == me => Some(result),
                _ => None,
            })
        });
        check(
            traced == Some(result),
            "the result is not the one that was traced",
        );
    }
    result
}
