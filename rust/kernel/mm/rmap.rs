// SPDX-License-Identifier: GPL-2.0

//! Unmapping folios through the reverse mapping, and the TLB flushes that this defers.
//!
//! See [`mapping`](super::mapping) for the lock order.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)

use crate::{
    bindings,
    mm::{
        folio::LockedFolio,
        mapping::{AddressSpace, IMmapReadGuard}, //
    },
    types::NotThreadSafe, //
};

/// The TLB flushes that this task owes for the folios it has unmapped.
///
/// CPUs may still read and write an unmapped folio through their TLBs until the flush. Dropping the
/// object flushes.
///
/// Context: interrupts are enabled when it is dropped, because the flush waits for other CPUs.
pub struct UnmapBatch(NotThreadSafe);

impl UnmapBatch {
    /// Creates an empty batch.
    #[inline]
    pub fn new() -> Self {
        Self(NotThreadSafe)
    }

    /// Flushes the TLBs for all folios of the batch: `try_to_unmap_flush()`.
    ///
    /// Context: interrupts are enabled.
    #[inline]
    pub fn flush(&mut self) {
        // SAFETY: No preconditions. The flush waits for IPIs, which is a deadlock with interrupts
        // disabled. Lockdep reports that here.
        unsafe { bindings::lockdep_assert_irqs_enabled() };
        // SAFETY: No preconditions but enabled interrupts. It flushes for the current task, which
        // is the task that has unmapped: the batch cannot be sent to another one.
        unsafe { bindings::try_to_unmap_flush() };
    }

    /// Flushes the TLBs, and returns a witness of that.
    #[inline]
    pub fn finish(self) -> Flushed {
        Flushed(())
    }

    /// Clears all page-table entries that map `folio`, which is smaller than a PMD:
    /// `try_to_unmap()`.
    ///
    /// Mlocked folios are unmapped too. Dirty bits move from the page tables to the folio. The call
    /// can fail, in which case the folio stays mapped and its reference count includes that. It
    /// fails if a userfaultfd protects the folio by RWP, because no marker could stand for that.
    ///
    /// Context: may sleep.
    ///
    /// # Safety
    ///
    /// - `folio` must stay locked until the batch is flushed.
    /// - `folio` must belong to the mapping that `i_mmap` locks, and must not be of PMD size.
    #[inline]
    pub(super) unsafe fn unmap(&mut self, folio: &LockedFolio, _i_mmap: &IMmapReadGuard<'_>) {
        let flags = bindings::ttu_flags_TTU_IGNORE_MLOCK
            | bindings::ttu_flags_TTU_BATCH_FLUSH
            | bindings::ttu_flags_TTU_RMAP_LOCKED
            | bindings::ttu_flags_TTU_KEEP_RWP;

        // SAFETY: The folio is alive and locked by its type invariant. `_i_mmap` holds the
        // `i_mmap_rwsem` of its mapping. No PMD maps it, so none has to be split. The flush is
        // owed by this batch.
        unsafe { bindings::try_to_unmap(folio.as_raw(), flags) };
    }
}

impl Default for UnmapBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for UnmapBatch {
    #[inline]
    fn drop(&mut self) {
        self.flush();
    }
}

/// Witness that no CPU can reach the folios of an [`UnmapBatch`] any more.
pub struct Flushed(());

/// The `i_mmap_rwsem` of a mapping, held for several folios in a row.
///
/// It is released and taken again if a writer waits for it or the CPU is needed elsewhere. Other
/// tasks then have as many chances to get it as with C, which takes it for each folio.
pub(super) struct IMmapLock<'m> {
    mapping: &'m AddressSpace,
    guard: Option<IMmapReadGuard<'m>>,
}

impl<'m> IMmapLock<'m> {
    /// Creates an object that does not hold the lock yet.
    #[inline]
    pub(super) fn new(mapping: &'m AddressSpace) -> Self {
        Self {
            mapping,
            guard: None,
        }
    }

    /// Takes the lock unless it is held and uncontended.
    ///
    /// Context: may sleep; no page-cache lock is held.
    #[inline]
    pub(super) fn hold(&mut self) -> &IMmapReadGuard<'m> {
        // SAFETY: No preconditions: reads a flag of the current task.
        let resched = unsafe { bindings::need_resched() };

        if resched
            || self
                .guard
                .as_ref()
                .is_some_and(IMmapReadGuard::is_contended)
        {
            self.release();
        }
        let mapping = self.mapping;
        self.guard.get_or_insert_with(|| mapping.i_mmap_read())
    }

    /// Releases the lock if it is held.
    ///
    /// Call this before anything that waits for another task.
    #[inline]
    pub(super) fn release(&mut self) {
        self.guard = None;
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_rmap)]
mod tests {
    use super::*;
    use crate::{
        error::{
            code::EAGAIN,
            Result, //
        },
        mm::kunit::ShmemFile, //
    };

    #[test]
    fn batch_can_be_finished_or_dropped() {
        let Flushed(()) = UnmapBatch::new().finish();
        drop(UnmapBatch::new());
    }

    #[test]
    fn folio_is_unmapped() -> Result {
        let file = ShmemFile::new(1)?;
        file.fill(0..1)?;
        let mapped = file.map(0..1)?;
        mapped.touch()?;
        let folio = file.folio(0)?;
        let locked = folio.try_lock().ok_or(EAGAIN)?;
        let mut tlb = UnmapBatch::new();
        let mut i_mmap = IMmapLock::new(file.mapping());

        // SAFETY: The folio is of this mapping and has one page. It is unlocked after the flush.
        unsafe { tlb.unmap(&locked, i_mmap.hold()) };
        i_mmap.release();
        drop(tlb);
        assert!(!locked.is_mapped());
        Ok(())
    }

    #[test]
    fn lock_is_held_until_it_is_released() -> Result {
        let file = ShmemFile::new(1)?;
        let writable = || file.i_mmap_is_free();

        let mut i_mmap = IMmapLock::new(file.mapping());
        let before = writable();
        i_mmap.hold();
        let held = writable();
        i_mmap.release();
        let after = writable();
        i_mmap.hold();
        drop(i_mmap);
        assert!(before && !held && after && writable());
        Ok(())
    }
}
