// SPDX-License-Identifier: GPL-2.0

//! The entry point of a collapse, and the report of its result.

use crate::{
    bindings,
    ffi::{c_int, c_ulong},
    mm::{
        folio::HPAGE_PMD_NR,
        mapping::FileRef,
        Mm, //
    },
    tracepoint::declare_trace,
    types::{NotThreadSafe, Opaque}, //
};

/// The result of a collapse: the values of `enum scan_result` that `collapse_file()` returns.
///
/// `madvise_collapse_errno()` maps them to an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ScanResult {
    /// A page is not available or not uptodate.
    Fail = bindings::scan_result_SCAN_FAIL,
    /// The range is one huge folio now.
    Succeed = bindings::scan_result_SCAN_SUCCEED,
    /// The range has holes, and a userfaultfd is registered for missing pages.
    ExceedNonePte = bindings::scan_result_SCAN_EXCEED_NONE_PTE,
    /// The range is one huge folio. Page tables may still map it page by page.
    PteMappedHugepage = bindings::scan_result_SCAN_PTE_MAPPED_HUGEPAGE,
    /// Another task has a reference to a folio.
    PageCount = bindings::scan_result_SCAN_PAGE_COUNT,
    /// Another task has locked a folio.
    PageLock = bindings::scan_result_SCAN_PAGE_LOCK,
    /// A folio is not on the LRU.
    DelPageLru = bindings::scan_result_SCAN_DEL_PAGE_LRU,
    /// There is no memory for a huge folio, or for a node of the page cache.
    AllocHugePageFail = bindings::scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL,
    /// The memory cgroup has no room for a huge folio.
    CgroupChargeFail = bindings::scan_result_SCAN_CGROUP_CHARGE_FAIL,
    /// The range was truncated, or has become one hole.
    Truncated = bindings::scan_result_SCAN_TRUNCATED,
    /// The file system does not release the data it has attached to a folio.
    PageHasPrivate = bindings::scan_result_SCAN_PAGE_HAS_PRIVATE,
    /// A slot of the page cache is missing and cannot be allocated.
    StoreFailed = bindings::scan_result_SCAN_STORE_FAILED,
    /// The memory of an old folio is failing.
    CopyMc = bindings::scan_result_SCAN_COPY_MC,
    /// A hole was filled, or a new one was created, since the holes were counted.
    PageFilled = bindings::scan_result_SCAN_PAGE_FILLED,
    /// A folio of a regular file is dirty or under writeback.
    PageDirtyOrWriteback = bindings::scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK,
    /// The file system or a quota has no room for the holes.
    NoSpace = bindings::scan_result_SCAN_NO_SPACE,
}

/// The caller's context for a collapse: `struct collapse_control`.
///
/// # Invariants
///
/// The object is initialized, and only one collapse uses it.
#[repr(transparent)]
pub struct CollapseControl {
    inner: Opaque<bindings::collapse_control>,
    _not_send: NotThreadSafe,
}

impl CollapseControl {
    /// Creates a Rust reference from a C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must point to an initialized `collapse_control` that no other task uses for `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::collapse_control) -> &'a Self {
        // SAFETY: `CollapseControl` is transparent over the C type. The caller promises the rest.
        unsafe { &*ptr.cast() }
    }

    /// Returns the C object.
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::collapse_control {
        self.inner.get()
    }

    /// Returns whether the caller is khugepaged, and not `madvise(MADV_COLLAPSE)`.
    #[inline]
    pub fn is_khugepaged(&self) -> bool {
        // SAFETY: The object is initialized by the type invariant.
        unsafe { bindings::collapse_control_is_khugepaged(self.as_raw()) }
    }
}

declare_trace! {
    /// # Safety
    ///
    /// `mm` must be null or valid, and `file` valid.
    // These are the arguments of the C event. The macro's unsafe block takes variables only.
    #[allow(clippy::too_many_arguments, clippy::macro_metavars_in_unsafe)]
    unsafe fn mm_khugepaged_collapse_file(
        mm: *mut bindings::mm_struct,
        new_pfn: c_ulong,
        index: c_ulong,
        addr: c_ulong,
        is_shmem: bool,
        file: *mut bindings::file,
        nr: c_int,
        result: c_int,
    );
}

/// Reports the result of a collapse: the trace event `huge_memory:mm_khugepaged_collapse_file`.
///
/// `new_pfn` is the first page of the new folio, or all ones if there was none. `index` is the
/// place in the file where the collapse ended, and `addr` the address in `mm`.
#[inline]
pub fn trace_collapse_file(
    mm: &Mm,
    new_pfn: usize,
    index: usize,
    addr: usize,
    is_shmem: bool,
    file: &FileRef,
    result: ScanResult,
) {
    // SAFETY: Both objects are alive by their type invariants.
    unsafe {
        mm_khugepaged_collapse_file(
            mm.as_raw(),
            new_pfn,
            index,
            addr,
            is_shmem,
            file.as_raw(),
            HPAGE_PMD_NR as c_int,
            result as c_int,
        )
    };
}

/// Exports a safe function as `rust_collapse_file()`, for `mm/khugepaged.c` to call.
///
/// The macro expands to the only unsafe code in the file that uses it: the entry point from C.
/// `#![forbid(unsafe_code)]` covers what that file itself contains.
#[macro_export]
macro_rules! export_collapse_file {
    ($collapse_file:path) => {
        // The function has the prototype that C sees.
        const _: () = {
            if true {
                $crate::bindings::rust_collapse_file
            } else {
                rust_collapse_file
            };
        };

        /// The entry point from C.
        ///
        /// # Safety
        ///
        /// For the time of the call, `mm` must be grabbed, `file` must be referenced, and `cc` must
        /// be initialized and used by no other task. `start` must be a multiple of `HPAGE_PMD_NR`.
        ///
        /// Context: may sleep.
        #[no_mangle]
        pub unsafe extern "C" fn rust_collapse_file(
            mm: *mut $crate::bindings::mm_struct,
            addr: $crate::ffi::c_ulong,
            file: *mut $crate::bindings::file,
            start: $crate::ffi::c_ulong,
            cc: *mut $crate::bindings::collapse_control,
        ) -> $crate::bindings::scan_result {
            // SAFETY: The caller has grabbed `mm`.
            let mm = unsafe { $crate::mm::Mm::from_raw(mm) };
            // SAFETY: The caller holds a reference to `file`.
            let file = unsafe { $crate::mm::mapping::FileRef::from_raw(file) };
            // SAFETY: `cc` is initialized, and no other task uses it.
            let cc = unsafe { $crate::mm::collapse::CollapseControl::from_raw(cc) };
            let result: $crate::mm::collapse::ScanResult =
                $collapse_file(mm, addr, file, start, cc);

            result as $crate::bindings::scan_result
        }
    };
}
pub use export_collapse_file;
