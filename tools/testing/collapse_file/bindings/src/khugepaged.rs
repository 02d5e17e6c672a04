// SPDX-License-Identifier: GPL-2.0

//! The functions of `mm/khugepaged.c` that `mm/collapse_file.rs` calls, and its caller.

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
        /// The names of the results, by value.
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
    /// True if khugepaged is the caller, and not `madvise()`.
    pub is_khugepaged: bool,
}

extern "C" {
    /// The collapse, which `mm/collapse_file.rs` exports.
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
/// `cc` must be valid for reads.
pub unsafe fn collapse_control_is_khugepaged(cc: *const collapse_control) -> bool {
    // SAFETY: `cc` is valid by the safety requirements of this function.
    unsafe { (*cc).is_khugepaged }
}

/// # Safety
///
/// `new` must be valid for writes.
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
    // SAFETY: `new` is valid for writes by the safety requirements of this function.
    unsafe { *new = folio::alloc(order) };
    scan_result_SCAN_SUCCEED
}

/// # Safety
///
/// `mapping` must be the one of this world.
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
        "retract_page_tables() without the lock of the huge folio",
    );
    rmap::walk();
    log(What::Retract);
}

pub type collapse_file_impl = u32;
pub const collapse_file_impl_COLLAPSE_FILE_RUST: collapse_file_impl = 1;

/// Checks that the measurement of the final critical section begins once and ends once.
fn measure(begins: bool) {
    check(
        with(|w| w.lock_owner == Some(w.current)),
        "the final critical section is measured without the page-cache lock",
    );
    let was = with(|w| core::mem::replace(&mut w.me().measuring, begins));
    check(
        was != begins,
        "the measurement of the final critical section begins or ends twice",
    );
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn collapse_file_hold_begin() -> u64 {
    measure(true);
    1
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn collapse_file_hold_end(rust: collapse_file_impl, begin: u64) {
    check(
        rust == collapse_file_impl_COLLAPSE_FILE_RUST && begin == 1,
        "the final critical section is counted with wrong arguments",
    );
    measure(false);
}

/// Records the result and the index of the trace event, and checks its other arguments.
///
/// # Safety
///
/// `file` must be the one of this world.
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
    // SAFETY: `file` is the one of this world by the safety requirements of this function.
    let really_shmem = unsafe { (*(*file).mapping).is_shmem };
    if is_shmem != really_shmem || nr as usize != HPAGE_PMD_NR {
        violation("the trace event's arguments are wrong");
    }
    // Without a new folio, only these two results are possible. The first one also follows from a
    // failed node allocation, after the new folio was allocated.
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
        "the trace event reports another folio than the new one",
    );
    log(What::End(result as u32, index));
}

/// Calls `collapse_file()` as `collapse_scan_file()` does.
pub fn collapse(start: usize, is_khugepaged: bool) -> scan_result {
    let mut mm = mm_struct::default();
    let mut cc = collapse_control { is_khugepaged };
    let file = with(|w| &raw mut *w.file);
    with(|w| w.me().collapsing = true);
    log(What::Begin);
    // SAFETY: `file` is the one of this world; the other objects are valid for the call.
    let result =
        unsafe { rust_collapse_file(&raw mut mm, 0x7f00_0000_0000, file, start, &raw mut cc) };
    with(|w| w.me().collapsing = false);
    check(
        with(|w| !w.me().measuring),
        "the measurement of the final critical section does not end",
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
            "the result differs from the traced one",
        );
    }
    result
}
