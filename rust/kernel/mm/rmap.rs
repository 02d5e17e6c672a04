// SPDX-License-Identifier: GPL-2.0

//! Unmapping folios through the reverse mapping, and the TLB flushes that this defers.
//!
//! See [`mapping`](super::mapping) for the lock order.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)

use crate::{
    bindings,
    ffi::{c_int, c_uint},
    types::NotThreadSafe, //
};
use core::ptr::NonNull;

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

    /// Clears all page-table entries that map `folios`: `try_to_unmap_file_run()`.
    ///
    /// Mlocked folios are unmapped too. Dirty bits move from the page tables to the folios. A folio
    /// stays mapped if a userfaultfd protects it by RWP, because no marker could stand for that.
    ///
    /// Returns the number of folios that were visited, at least 1 unless `folios` is empty. All but
    /// the last of them are unmapped and have no references besides `refs` and those of the page
    /// cache. They are clean if `clean` is set. The last one may be so, too.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem`.
    ///
    /// # Safety
    ///
    /// - The elements must be `Some`. The folios must be alive and locked, and stay locked until
    ///   the batch is flushed.
    /// - They must be in one mapping, in index order, and smaller than a PMD. They must have no
    ///   private data.
    #[inline]
    pub(super) unsafe fn unmap(
        &mut self,
        folios: &[Option<NonNull<bindings::folio>>],
        refs: usize,
        clean: bool,
    ) -> usize {
        let flags = bindings::ttu_flags_TTU_BATCH_FLUSH | bindings::ttu_flags_TTU_KEEP_RWP;

        if folios.is_empty() {
            return 0;
        }
        // SAFETY: `Option<NonNull<_>>` has the layout of a pointer, and the function only reads the
        // array. The caller promises the rest. The flush is owed by this batch.
        let nr = unsafe {
            bindings::try_to_unmap_file_run(
                folios.as_ptr().cast_mut().cast(),
                folios.len() as c_uint,
                flags,
                refs as c_int,
                clean,
            )
        };
        nr as usize
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

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_rmap)]
mod tests {
    use super::*;
    use crate::{
        error::{code::EAGAIN, Result},
        mm::kunit::{drain, ShmemFile}, //
    };

    #[test]
    fn batch_can_be_flushed_and_dropped() {
        let mut tlb = UnmapBatch::new();

        tlb.flush();
        drop(tlb);
    }

    #[test]
    fn folios_are_unmapped_up_to_one_in_use() -> Result {
        let file = ShmemFile::new(4)?;
        file.fill(0..4)?;
        let mapped = file.map(0..4)?;
        mapped.touch()?;
        // An LRU batch has a reference to each.
        drain();
        // One more user of this folio.
        let used = file.folio(2)?;
        let locked = [0, 1, 2, 3].map(|index| file.folio(index).ok()?.try_lock());
        let raw = locked
            .each_ref()
            .map(|folio| NonNull::new(folio.as_ref()?.as_raw()));
        if raw.iter().any(Option::is_none) {
            return Err(EAGAIN);
        }
        let mut tlb = UnmapBatch::new();

        // SAFETY: The folios are of this mapping and have one page each. They are unlocked after
        // the flush.
        let visited = unsafe { tlb.unmap(&raw, 1, false) };
        drop(tlb);
        let left = locked
            .each_ref()
            .map(|folio| folio.as_ref().is_some_and(|folio| folio.is_mapped()));
        drop((used, locked));
        assert_eq!(visited, 3);
        assert_eq!(left, [false, false, false, true]);
        Ok(())
    }
}
