// SPDX-License-Identifier: GPL-2.0

//! The huge folio that a collapse creates.

use super::{CollapseControl, ScanResult};
use crate::{
    bindings,
    mm::{
        folio::{Folio, FolioList, LockedFolio, HPAGE_PMD_NR, HPAGE_PMD_ORDER},
        mapping::PmdRange,
        mmdebug::vm_bug_on,
        Mm, //
    },
};
use core::{
    mem::ManuallyDrop,
    ops::Range,
    ptr::NonNull, //
};

/// A huge folio that will replace the small folios of a range.
///
/// Dropping it frees it.
///
/// # Invariants
///
/// - `folio` is of order [`HPAGE_PMD_ORDER`], and in no page cache. No other task reads or
///   writes its content.
/// - Its mapping and index are those of `range`.
pub struct NewFolio<'m> {
    folio: LockedFolio,
    range: PmdRange<'m>,
}

impl<'m> NewFolio<'m> {
    /// Allocates a huge folio for `range`, charges it to the memory cgroup of `mm`, and locks it:
    /// `alloc_charge_folio()`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ScanResult::AllocHugePageFail`] and [`ScanResult::CgroupChargeFail`], and
    /// [`ScanResult::Fail`] if the file does not support huge folios.
    #[inline]
    pub fn alloc_charged(
        mm: &Mm,
        cc: &CollapseControl,
        range: PmdRange<'m>,
    ) -> Result<Self, ScanResult> {
        let mut folio = core::ptr::null_mut();
        let mapping = range.mapping();

        // For shmem, the caller decides by the mount options.
        if !mapping.is_shmem() && !mapping.supports_pmd_folios() {
            return Err(ScanResult::Fail);
        }
        // SAFETY: `mm` and `cc` are alive by their type invariants. `folio` is valid for a write.
        let result = unsafe {
            bindings::alloc_charge_folio(&mut folio, mm.as_raw(), cc.as_raw(), HPAGE_PMD_ORDER)
        };
        let folio = match (result, NonNull::new(folio)) {
            (bindings::scan_result_SCAN_SUCCEED, Some(folio)) => folio,
            (bindings::scan_result_SCAN_CGROUP_CHARGE_FAIL, _) => {
                return Err(ScanResult::CgroupChargeFail)
            }
            _ => return Err(ScanResult::AllocHugePageFail),
        };

        // SAFETY: The folio is new, and in no page cache and no page table. A task that finds it by
        // its frame number may take a reference, but leaves the flags alone while it is not on the
        // LRU. So the flags need not be set atomically.
        unsafe {
            bindings::__folio_set_locked(folio.as_ptr());
            if mapping.is_shmem() {
                bindings::__folio_set_swapbacked(folio.as_ptr());
            }
            bindings::folio_set_mapping(folio.as_ptr(), mapping.as_raw(), range.start());
        }
        // SAFETY: The folio was locked above. The allocation has returned one reference.
        let folio = unsafe { LockedFolio::from_raw(folio) };
        // INVARIANT: The folio was allocated with this order. Mapping and index were set above.
        Ok(Self { folio, range })
    }

    /// Returns the folio.
    #[inline]
    pub fn folio(&self) -> &Folio {
        &self.folio
    }

    /// Returns the range that the folio is for.
    #[inline]
    pub(super) fn range(&self) -> PmdRange<'m> {
        self.range
    }

    /// Copies the old folios, clears the pages between them, and marks the new folio uptodate:
    /// `copy_mc_highpage()`, `clear_highpage()`, `folio_mark_uptodate()`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Returns the index of the first page whose memory is failing.
    ///
    /// # Safety
    ///
    /// The folios of `old` must be in the range, in index order, without overlap, and locked. Their
    /// content must not change.
    pub(super) unsafe fn fill(&mut self, old: &FolioList) -> Result<(), usize> {
        let start = self.range.start();
        let mut written = 0;

        for from in old.iter() {
            let offset = from.index().wrapping_sub(start);
            let nr_pages = from.nr_pages();

            vm_bug_on!(offset < written || offset + nr_pages > HPAGE_PMD_NR);
            if written < offset {
                self.clear(written..offset);
            }
            for n in 0..nr_pages {
                // SAFETY: Both pages exist, because `from` is in the range. The kernel maps both:
                // memory that it does not map, such as that of secretmem, is never in large folios.
                // No other task uses the content of the new folio.
                let unread = unsafe {
                    bindings::copy_mc_highpage(
                        self.page(offset + n),
                        bindings::folio_page(from.as_raw(), n),
                    )
                };

                if unread > 0 {
                    return Err(start + offset + n);
                }
            }
            written = offset + nr_pages;
        }
        self.clear(written..HPAGE_PMD_NR);
        // SAFETY: The folio is alive.
        unsafe { bindings::folio_mark_uptodate(self.folio.as_raw()) };
        Ok(())
    }

    /// Clears pages, as far as the folio has them.
    #[inline(never)]
    fn clear(&mut self, pages: Range<usize>) {
        for n in pages.start..pages.end.min(HPAGE_PMD_NR) {
            // SAFETY: The folio has this page. No other task uses its content.
            unsafe { bindings::clear_highpage(self.page(n)) };
        }
    }

    /// Returns page `n` of the folio.
    ///
    /// # Safety
    ///
    /// `n` must be less than [`HPAGE_PMD_NR`].
    #[inline]
    unsafe fn page(&self, n: usize) -> *mut bindings::page {
        // SAFETY: The folio has a page `n`, by the safety contract and the type invariant.
        unsafe { bindings::folio_page(self.folio.as_raw(), n) }
    }

    /// Converts the folio after it was stored in the page cache.
    ///
    /// # Safety
    ///
    /// The folio must have been stored over the whole of its range. The page cache must have taken
    /// over the folio's reference, with others for the other pages.
    #[inline]
    pub(super) unsafe fn into_inserted(self) -> HugeFolio<'m> {
        let this = ManuallyDrop::new(self);

        // INVARIANT: The folio is in the page cache by the safety contract. The object takes over
        // the folio lock.
        HugeFolio {
            // SAFETY: `this` is not dropped and not used again.
            folio: ManuallyDrop::new(unsafe { core::ptr::read(&this.folio) }),
            range: this.range,
        }
    }
}

impl Drop for NewFolio<'_> {
    #[inline]
    fn drop(&mut self) {
        // The field that is dropped next unlocks and frees the folio.
        //
        // SAFETY: The folio is locked and in no page cache by the type invariants. A folio that is
        // freed must have no mapping.
        unsafe { bindings::folio_clear_mapping(self.folio.as_raw()) };
    }
}

/// The huge folio in the page cache, still locked, so that no page table can map it yet.
///
/// Dropping it unlocks the folio.
///
/// # Invariants
///
/// `folio` is in the page cache at `range`. The object owns the folio lock. The page cache owns all
/// references, so the reference of `folio` is never dropped.
pub struct HugeFolio<'m> {
    folio: ManuallyDrop<LockedFolio>,
    range: PmdRange<'m>,
}

impl HugeFolio<'_> {
    /// Frees the page tables that mapped the small folios, where possible, so that the next fault
    /// maps the huge one: `retract_page_tables()`.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem` and page-table locks.
    #[inline]
    pub fn retract_page_tables(&self) {
        // SAFETY: The mapping is alive. The folio is locked by the type invariant, so faults do not
        // fill the tables again.
        unsafe { bindings::retract_page_tables(self.range.mapping().as_raw(), self.range.start()) };
    }

    /// Unlocks the folio.
    #[inline]
    pub fn unlock(self) {}
}

impl Drop for HugeFolio<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The object owns the folio lock. A locked folio stays in the page cache, which has
        // references to it.
        unsafe { bindings::folio_unlock(self.folio.as_raw()) };
    }
}
