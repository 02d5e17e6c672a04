// SPDX-License-Identifier: GPL-2.0

//! Reverse mapping: from a file's pages to the VMAs and page tables that map them.
//!
//! Lock order: folio lock > `i_mmap_rwsem` > page-table lock > page-cache lock. What unmaps folios
//! ([`OldFolios::unmap`](super::khugepaged::OldFolios::unmap)) takes `i_mmap_rwsem` itself, so it
//! is not to be called while an [`IMmapReadGuard`] is held.
//!
//! C headers: [`include/linux/rmap.h`](srctree/include/linux/rmap.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    mm::page_cache::AddressSpace,
    types::{NotThreadSafe, Opaque}, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

/// TLB flushes that this task owes for the folios it has unmapped.
///
/// While one exists, CPUs may still read and write unmapped folios through their TLBs. The flush is
/// made when it is dropped.
pub struct UnmapBatch(NotThreadSafe);

impl UnmapBatch {
    /// Starts a batch.
    #[inline]
    pub fn new() -> Self {
        Self(NotThreadSafe)
    }

    /// Makes the flushes: `try_to_unmap_flush()`.
    #[inline]
    pub fn flush(self) -> Flushed {
        Flushed(())
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
        // SAFETY: No preconditions. To wait for other CPUs with interrupts disabled, as they are
        // within the page-cache lock, is a deadlock.
        unsafe { bindings::lockdep_assert_irqs_enabled() };
        // SAFETY: No preconditions: flushes what the current task has batched, if anything. That is
        // the task that unmapped, as the batch cannot be sent to another one.
        unsafe { bindings::try_to_unmap_flush() };
    }
}

/// Witness that no CPU can reach the folios of an [`UnmapBatch`] any more.
pub struct Flushed(());

/// A file's mappings cannot change while this is held: `i_mmap_rwsem`, taken for reading.
///
/// # Invariants
///
/// The guard owns a read lock of `mapping`'s `i_mmap_rwsem`.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct IMmapReadGuard<'m> {
    mapping: &'m AddressSpace,
    _not_send: NotThreadSafe,
}

impl<'m> IMmapReadGuard<'m> {
    /// Takes the lock: `i_mmap_lock_read()`. Public through
    /// [`Cursor::i_mmap_read`](super::page_cache::Cursor::i_mmap_read).
    ///
    /// Context: may sleep; no page-cache lock is held.
    #[inline]
    pub(super) fn new(mapping: &'m AddressSpace) -> Self {
        // SAFETY: The mapping is alive.
        unsafe { bindings::i_mmap_lock_read(mapping.as_raw()) };
        // INVARIANT: Taken above.
        Self {
            mapping,
            _not_send: NotThreadSafe,
        }
    }

    /// The mapping whose VMAs these are.
    #[inline]
    pub(super) fn mapping(&self) -> &'m AddressSpace {
        self.mapping
    }

    /// The VMAs that map any page of the file in `range`, by rising start:
    /// `mapping_rmap_tree_foreach()`.
    ///
    /// `range` counts pages and, as a Rust range, does not contain its end, though the last index
    /// that the C functions take belongs to what they search.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::mm::{kunit::ShmemFile, page_cache::{AddressSpace, Cursor}};
    /// # let file = ShmemFile::new(8)?;
    /// # let mapped = file.map(4..8)?;
    /// let mut walk = AddressSpace::of(&file).pmd_range(0).walk();
    /// let cursor = Cursor::new(&mut walk);
    ///
    /// // One VMA maps the pages from 4 on.
    /// let i_mmap = cursor.i_mmap_read();
    /// let before = i_mmap.vmas(0..4).count();
    /// let with_the_first = i_mmap.vmas(0..5).next().map(|vma| vma.start_pgoff());
    /// drop(i_mmap);
    ///
    /// assert_eq!(before, 0);
    /// assert_eq!(with_the_first, Some(4));
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn vmas(&self, range: Range<usize>) -> RmapVmas<'_> {
        let vma = if range.is_empty() {
            core::ptr::null_mut()
        } else {
            // SAFETY: The mapping is alive and `i_mmap_rwsem` is held.
            unsafe {
                bindings::mapping_rmap_tree_iter_first(
                    self.mapping.as_raw(),
                    range.start,
                    range.end - 1,
                )
            }
        };
        // INVARIANT: The first match, or none.
        RmapVmas {
            next: NonNull::new(vma),
            range,
            _guard: self,
        }
    }
}

impl Drop for IMmapReadGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The guard owns the read lock.
        unsafe { bindings::i_mmap_unlock_read(self.mapping.as_raw()) };
    }
}

/// Iterator of [`IMmapReadGuard::vmas`].
///
/// # Invariants
///
/// `next` is `None`, or a VMA in the mapping's tree that maps a page in `range`, which is not
/// empty then.
pub struct RmapVmas<'g> {
    next: Option<NonNull<bindings::vm_area_struct>>,
    range: Range<usize>,
    _guard: &'g IMmapReadGuard<'g>,
}

impl<'g> Iterator for RmapVmas<'g> {
    type Item = &'g RmapVma;

    #[inline]
    fn next(&mut self) -> Option<&'g RmapVma> {
        let vma = self.next?;
        // SAFETY: `i_mmap_rwsem` is held, so that `vma`, by the invariant in the tree, still is.
        let next = unsafe {
            bindings::mapping_rmap_tree_iter_next(
                vma.as_ptr(),
                self.range.start,
                self.range.end - 1,
            )
        };
        // INVARIANT: The next match, or none.
        self.next = NonNull::new(next);
        // SAFETY: A VMA stays in the tree, and so alive, while `i_mmap_rwsem` is held.
        Some(unsafe { &*vma.as_ptr().cast() })
    }
}

/// A VMA found through the file it maps.
///
/// Neither the lock of its `mm_struct` nor its own is held, and the `mm_struct` may have no users
/// left: [`VmaRef`](super::virt::VmaRef) promises too much for it.
///
/// # Invariants
///
/// The VMA is in the interval tree of a mapping whose `i_mmap_rwsem` is held.
#[repr(transparent)]
pub struct RmapVma(Opaque<bindings::vm_area_struct>);

impl RmapVma {
    /// Whether missing pages of this VMA are reported to a userfaultfd: `userfaultfd_missing()`.
    ///
    /// Without the VMA's lock this is a snapshot: a registration may come or go at any time.
    #[inline]
    pub fn userfaultfd_missing(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant; its flags are read in one go.
        unsafe { bindings::userfaultfd_missing(self.0.get()) }
    }

    /// Whether writes to protected pages are reported to a userfaultfd: `userfaultfd_wp()`. A
    /// snapshot, as [`userfaultfd_missing`](Self::userfaultfd_missing).
    #[inline]
    pub fn userfaultfd_wp(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant; its flags are read in one go.
        unsafe { bindings::userfaultfd_wp(self.0.get()) }
    }

    /// Whether pages that are in the page cache and not mapped are reported to a userfaultfd:
    /// `userfaultfd_minor()`. A snapshot, as [`userfaultfd_missing`](Self::userfaultfd_missing).
    #[inline]
    pub fn userfaultfd_minor(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant; its flags are read in one go.
        unsafe { bindings::userfaultfd_minor(self.0.get()) }
    }

    /// Whether all accesses to protected pages are reported to a userfaultfd: `userfaultfd_rwp()`.
    /// A snapshot, as [`userfaultfd_missing`](Self::userfaultfd_missing).
    #[inline]
    pub fn userfaultfd_rwp(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant; its flags are read in one go.
        unsafe { bindings::userfaultfd_rwp(self.0.get()) }
    }

    /// The address of the first byte, in the address space that the VMA belongs to.
    #[inline]
    pub fn start(&self) -> usize {
        // SAFETY: The VMA is alive by the type invariant. Where it lies and what it maps only
        // changes with `i_mmap_rwsem` held for writing.
        unsafe { bindings::vma_vm_start(self.0.get()) }
    }

    /// The address behind the last byte.
    #[inline]
    pub fn end(&self) -> usize {
        // SAFETY: As in `start`.
        unsafe { bindings::vma_vm_end(self.0.get()) }
    }

    /// The index in the file of the first page: `vma_start_pgoff()`.
    #[inline]
    pub fn start_pgoff(&self) -> usize {
        // SAFETY: As in `start`.
        unsafe { bindings::vma_start_pgoff(self.0.get()) }
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_rmap)]
mod tests {
    // What is looked at within `i_mmap_rwsem` is judged without it: a test that fails ends its
    // thread.

    use super::*;
    use crate::{
        error::Result,
        mm::kunit::ShmemFile,
        page::PAGE_SIZE, //
    };

    #[test]
    fn range_does_not_contain_its_end() -> Result {
        let file = ShmemFile::new(16)?;
        let _mapped = file.map(4..8)?;
        let count = |range| IMmapReadGuard::new(file.mapping()).vmas(range).count();

        // The VMA begins exactly at the end, or ends exactly at the start.
        assert_eq!(count(0..4), 0);
        assert_eq!(count(8..16), 0);
        // A page more, at either end.
        assert_eq!(count(0..5), 1);
        assert_eq!(count(7..16), 1);
        // A single page.
        assert_eq!(count(3..4), 0);
        assert_eq!(count(4..5), 1);
        assert_eq!(count(7..8), 1);
        assert_eq!(count(8..9), 0);
        Ok(())
    }

    #[test]
    fn empty_range_has_no_vmas() -> Result {
        let file = ShmemFile::new(16)?;
        let _mapped = file.map(4..8)?;
        let count = |range| IMmapReadGuard::new(file.mapping()).vmas(range).count();

        assert_eq!(count(0..0), 0);
        assert_eq!(count(4..4), 0);
        assert_eq!(count(5..5), 0);
        Ok(())
    }

    #[test]
    fn each_vma_is_found_once_by_rising_start() -> Result {
        let file = ShmemFile::new(16)?;
        let _second = file.map(4..8)?;
        let _first = file.map(2..6)?;
        let _third = file.map(12..13)?;
        let starts = |range| {
            let i_mmap = IMmapReadGuard::new(file.mapping());
            let mut vmas = i_mmap.vmas(range);
            [(); 4].map(|()| vmas.next().map(RmapVma::start_pgoff))
        };

        assert!(starts(0..16) == [Some(2), Some(4), Some(12), None]);
        assert!(starts(5..6) == [Some(2), Some(4), None, None]);
        assert!(starts(6..12) == [Some(4), None, None, None]);
        assert!(starts(8..12) == [None; 4]);
        Ok(())
    }

    #[test]
    fn vma_tells_where_it_is() -> Result {
        let file = ShmemFile::new(16)?;
        let mapped = file.map(4..8)?;
        let i_mmap = IMmapReadGuard::new(file.mapping());
        let place = i_mmap
            .vmas(0..16)
            .next()
            .map(|vma| (vma.start(), vma.end(), vma.start_pgoff()));
        drop(i_mmap);

        assert_eq!(place, Some((mapped.address(), mapped.end(), 4)));
        assert_eq!(mapped.end() - mapped.address(), 4 * PAGE_SIZE);
        Ok(())
    }

    #[cfg(CONFIG_USERFAULTFD)]
    #[test]
    fn only_missing_pages_are_waited_for() -> Result {
        let file = ShmemFile::new(1)?;
        let mapped = file.map(0..1)?;
        let modes = || {
            let i_mmap = IMmapReadGuard::new(file.mapping());
            let mut vmas = i_mmap.vmas(0..1);
            vmas.next().map(|vma| {
                [
                    vma.userfaultfd_missing(),
                    vma.userfaultfd_wp(),
                    vma.userfaultfd_minor(),
                    vma.userfaultfd_rwp(),
                ]
            })
        };

        assert_eq!(modes(), Some([false; 4]));
        mapped.wait_for_missing(true);
        assert_eq!(modes(), Some([true, false, false, false]));
        mapped.wait_for_missing(false);
        assert_eq!(modes(), Some([false; 4]));
        Ok(())
    }

    #[test]
    fn guard_keeps_writers_out_until_it_is_dropped() -> Result {
        let file = ShmemFile::new(1)?;
        // SAFETY: The mapping is alive.
        let rwsem = unsafe { &raw mut (*file.mapping().as_raw()).i_mmap_rwsem };
        let writable = || {
            // SAFETY: The semaphore is part of the mapping, which is alive.
            let taken = unsafe { bindings::down_write_trylock(rwsem) } != 0;
            if taken {
                // SAFETY: Taken just now.
                unsafe { bindings::up_write(rwsem) };
            }
            taken
        };

        let before = writable();
        let guard = IMmapReadGuard::new(file.mapping());
        let within = writable();
        drop(guard);
        assert!(before && !within && writable());
        Ok(())
    }

    #[test]
    fn batch_can_be_flushed_or_dropped() {
        let Flushed(()) = UnmapBatch::new().flush();
        drop(UnmapBatch::new());
    }
}
