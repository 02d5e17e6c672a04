// SPDX-License-Identifier: GPL-2.0

//! The mapping of a file: its pages, and the VMAs that map them.
//!
//! # Locks
//!
//! This is the lock order of all modules that deal with the page cache:
//!
//! folio lock > `i_mmap_rwsem` > page-table lock > page-cache lock (`i_pages`, interrupts off) >
//! LRU lock.
//!
//! - Folio locks are waited for in index order, and only without the page-cache lock. Under the
//!   page-cache lock they are only tried.
//! - `i_mmap_rwsem` is not held while a folio lock is waited for.
//! - A thread does not take the page-cache lock of a file twice.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    error::{code::EINVAL, Result},
    ffi::c_int,
    fs::file::LocalFile,
    mm::folio::{Folio, HPAGE_PMD_NR},
    types::{NotThreadSafe, Opaque},
    xarray::state::XaState, //
};
use core::{
    ops::Range,
    ptr::{self, NonNull}, //
};

/// An open file, used for its page cache only: `struct file`.
///
/// Unlike [`LocalFile`] it promises nothing about `fdget_pos()`, because the file position is not
/// used.
///
/// # Invariants
///
/// The file's reference count is positive for as long as a Rust reference to it exists.
#[repr(transparent)]
pub struct FileRef(Opaque<bindings::file>);

impl FileRef {
    /// Creates a Rust reference from a C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must point to an open file whose reference count stays positive for `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::file) -> &'a Self {
        // SAFETY: `FileRef` is transparent over `struct file`. The caller promises the rest.
        unsafe { &*ptr.cast() }
    }

    /// Returns the C object.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::file {
        self.0.get()
    }
}

impl<'a> From<&'a LocalFile> for &'a FileRef {
    #[inline]
    fn from(file: &'a LocalFile) -> Self {
        // SAFETY: A `LocalFile` has a positive reference count while it is borrowed.
        unsafe { FileRef::from_raw(file.as_ptr()) }
    }
}

/// The pages of a file that are in memory, and the VMAs that map them: `struct address_space`.
///
/// # Invariants
///
/// The inode stays alive as long as a Rust reference to this exists. `i_pages` holds folios and
/// values (swap entries or shadows). Under its lock it may also hold `XA_RETRY_ENTRY`.
#[repr(transparent)]
pub struct AddressSpace(Opaque<bindings::address_space>);

impl AddressSpace {
    /// Returns the mapping of `file`: `file->f_mapping`.
    #[inline]
    pub fn of<'a>(file: impl Into<&'a FileRef>) -> &'a Self {
        let file = file.into();

        // SAFETY: The file is alive by its type invariant. `do_dentry_open()` has set its mapping.
        // The file holds a reference to the mapping's inode, directly or through the file that it
        // stands for.
        unsafe { &*bindings::file_mapping(file.as_raw()).cast() }
    }

    /// Returns the mapping of `file` if it is a regular file.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is anything else, such as a directory, a device or a pipe.
    #[inline]
    pub fn of_regular<'a>(file: impl Into<&'a FileRef>) -> Result<&'a Self> {
        let file = file.into();

        // SAFETY: The file is alive by its type invariant. The type of its inode does not change.
        if unsafe { bindings::file_is_regular(file.as_raw()) } {
            Ok(Self::of(file))
        } else {
            Err(EINVAL)
        }
    }

    /// Returns the C object.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::address_space {
        self.0.get()
    }

    /// Returns the inode: `mapping->host`.
    #[inline]
    pub(super) fn host(&self) -> *mut bindings::inode {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::mapping_host(self.as_raw()) }
    }

    /// Returns whether the file is shared memory: `shmem_mapping()`.
    #[inline]
    pub fn is_shmem(&self) -> bool {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::shmem_mapping(self.as_raw()) }
    }

    /// Returns whether the file system supports folios of PMD size:
    /// `mapping_pmd_folio_support()`.
    #[inline]
    pub fn supports_pmd_folios(&self) -> bool {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::mapping_pmd_folio_support(self.as_raw()) }
    }

    /// Returns whether the file system wants to know of each folio that is released:
    /// `mapping_release_always()`.
    #[inline]
    pub fn release_always(&self) -> bool {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::mapping_release_always(self.as_raw()) }
    }

    /// Returns whether `folio` is in this mapping: `folio->mapping`.
    ///
    /// The answer stays true while the folio is locked.
    #[inline]
    pub fn contains(&self, folio: &Folio) -> bool {
        // SAFETY: The folio is alive by its type invariant.
        unsafe { bindings::folio_mapping_is(folio.as_raw(), self.as_raw()) }
    }

    /// Returns the [`HPAGE_PMD_NR`] pages from `start` on.
    ///
    /// # Panics
    ///
    /// Panics if `start` is not a multiple of [`HPAGE_PMD_NR`], or if the end of the range
    /// overflows.
    #[inline]
    pub fn pmd_range(&self, start: usize) -> PmdRange<'_> {
        assert!(start % HPAGE_PMD_NR == 0 && start < usize::MAX - HPAGE_PMD_NR);
        // INVARIANT: `start` is a multiple of `HPAGE_PMD_NR` and `start + HPAGE_PMD_NR` does not
        // overflow, as asserted above.
        PmdRange {
            mapping: self,
            start,
        }
    }

    /// Creates a cursor over the pages, for single entries, at `index`.
    ///
    /// # Safety
    ///
    /// The caller must keep to the type invariant of [`AddressSpace`] in what it stores, and must
    /// own the references that the page cache needs for it.
    #[inline]
    pub(super) unsafe fn xa_state(&self, index: usize) -> XaState<'_> {
        let mapping = self.as_raw();
        // SAFETY: `i_pages` lives as long as the mapping. `address_space_init_once()` initializes
        // it, with `XA_FLAGS_LOCK_IRQ`. The caller answers for what is stored. The update callback
        // is set below.
        let mut state = unsafe { XaState::new(bindings::mapping_i_pages(mapping), index, 0) };

        // SAFETY: Both objects are alive. Without the callback, freed nodes would stay on the list
        // of nodes that hold only shadows.
        unsafe { bindings::mapping_set_update(state.as_raw(), mapping) };
        state
    }

    /// Subtracts pages that were counted in `nrpages` but will not be added.
    ///
    /// Context: does not sleep; takes the page-cache lock.
    ///
    /// # Safety
    ///
    /// The pages must be counted in `nrpages`.
    #[inline]
    pub(super) unsafe fn sub_nrpages(&self, pages: usize) {
        // SAFETY: The mapping is alive by the type invariant, so its array is initialized. The lock
        // is taken and released as `XaLockIrqGuard` does it. The pages are counted, by the safety
        // contract.
        unsafe {
            let lock = &raw mut (*bindings::mapping_i_pages(self.as_raw())).xa_lock;

            bindings::spin_lock_irq_disable(lock);
            bindings::mapping_sub_nrpages(self.as_raw(), pages);
            bindings::spin_unlock_irq_enable(lock);
        }
    }

    /// Takes `i_mmap_rwsem` for reading: `i_mmap_lock_read()`.
    ///
    /// Context: may sleep; no page-cache lock is held.
    #[inline]
    pub(super) fn i_mmap_read(&self) -> IMmapReadGuard<'_> {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::i_mmap_lock_read(self.as_raw()) };
        // INVARIANT: The lock was taken above.
        IMmapReadGuard {
            mapping: self,
            _not_send: NotThreadSafe,
        }
    }
}

/// The [`HPAGE_PMD_NR`] pages of a file that one PMD can map.
///
/// # Invariants
///
/// `start` is a multiple of [`HPAGE_PMD_NR`], and `start + HPAGE_PMD_NR` does not overflow.
#[derive(Clone, Copy)]
pub struct PmdRange<'m> {
    mapping: &'m AddressSpace,
    start: usize,
}

impl<'m> PmdRange<'m> {
    /// Returns the mapping.
    #[inline]
    pub fn mapping(self) -> &'m AddressSpace {
        self.mapping
    }

    /// Returns the index of the first page.
    #[inline]
    pub fn start(self) -> usize {
        self.start
    }

    /// Returns the index after the last page.
    #[inline]
    pub fn end(self) -> usize {
        // By the type invariant this does not overflow.
        self.start.wrapping_add(HPAGE_PMD_NR)
    }

    /// Returns the indices of all pages.
    #[inline]
    pub fn indices(self) -> Range<usize> {
        self.start..self.end()
    }
}

impl PartialEq for PmdRange<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.mapping, other.mapping) && self.start == other.start
    }
}

/// A read lock on a file's `i_mmap_rwsem`, which keeps its VMAs from changing.
///
/// # Invariants
///
/// The guard owns a read lock of `mapping`'s `i_mmap_rwsem`.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct IMmapReadGuard<'m> {
    mapping: &'m AddressSpace,
    _not_send: NotThreadSafe,
}

impl IMmapReadGuard<'_> {
    /// Iterates over the VMAs that map any page in `range`, in order of their start:
    /// `mapping_rmap_tree_foreach()`.
    ///
    /// `range` counts pages. As a Rust range, it does not contain its end. The C functions take an
    /// inclusive last index.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::mm::{kunit::ShmemFile, mapping::AddressSpace, page_cache::Cursor};
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
            ptr::null_mut()
        } else {
            // SAFETY: The mapping is alive and `i_mmap_rwsem` is held by the type invariant.
            unsafe {
                bindings::mapping_rmap_tree_iter_first(
                    self.mapping.as_raw(),
                    range.start,
                    range.end - 1,
                )
            }
        };
        // INVARIANT: The first match, or none. An empty range has none.
        RmapVmas {
            next: NonNull::new(vma),
            range,
            _guard: self,
        }
    }
}

/// The result of a walk over VMAs.
///
/// The flags of a VMA can change while `i_mmap_rwsem` is held for reading, because a registration
/// takes another lock. The set of VMAs cannot.
pub(super) struct MissingWalk {
    found: bool,
    seq: c_int,
}

impl IMmapReadGuard<'_> {
    /// Looks for a VMA of `range` that has a userfaultfd for missing pages.
    ///
    /// Context: may sleep if the guard's owner may.
    #[inline]
    pub(super) fn walk_missing(&self, range: Range<usize>) -> MissingWalk {
        // SAFETY: No preconditions.
        let seq = unsafe { bindings::read_userfaultfd_register_seq() };

        MissingWalk {
            found: self.vmas(range).any(|vma| vma.userfaultfd_missing()),
            seq,
        }
    }
}

impl MissingWalk {
    /// Returns whether the walk has found a VMA.
    #[inline]
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// Returns whether no VMA was registered since the walk began.
    ///
    /// A registration whose user may observe something that was written before an
    /// `smp_mb(Full)` that precedes this call is noticed.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        // SAFETY: No preconditions.
        unsafe { bindings::read_userfaultfd_register_seq() == self.seq }
    }
}

impl Drop for IMmapReadGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The guard owns the read lock by the type invariant.
        unsafe { bindings::i_mmap_unlock_read(self.mapping.as_raw()) };
    }
}

/// Iterator of [`IMmapReadGuard::vmas`].
///
/// # Invariants
///
/// `next` is `None`, or a VMA in the mapping's tree that maps a page in `range`. In that case
/// `range` is not empty.
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
        // SAFETY: `vma` is in the tree, and `range` not empty, by the type invariant.
        // `i_mmap_rwsem` is held by the guard.
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

/// A VMA that was found through the file it maps.
///
/// Neither the lock of its `mm_struct` nor its own is held, and the `mm_struct` may have no users
/// left. [`VmaRef`](super::virt::VmaRef) promises more than that.
///
/// # Invariants
///
/// The VMA is in the interval tree of a mapping whose `i_mmap_rwsem` is held.
#[repr(transparent)]
pub struct RmapVma(Opaque<bindings::vm_area_struct>);

impl RmapVma {
    /// Returns whether missing pages are reported to a userfaultfd: `userfaultfd_missing()`.
    ///
    /// This is a snapshot: without the VMA's lock, a registration may come or go at any time.
    #[inline]
    pub fn userfaultfd_missing(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant. Its flags may change concurrently, which
        // C tolerates as well.
        unsafe { bindings::userfaultfd_missing(self.0.get()) }
    }

    /// Returns whether writes to protected pages are reported to a userfaultfd:
    /// `userfaultfd_wp()`. A snapshot.
    #[inline]
    pub fn userfaultfd_wp(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant. Its flags may change concurrently, which
        // C tolerates as well.
        unsafe { bindings::userfaultfd_wp(self.0.get()) }
    }

    /// Returns whether faults on cached pages are reported to a userfaultfd:
    /// `userfaultfd_minor()`. A snapshot.
    #[inline]
    pub fn userfaultfd_minor(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant. Its flags may change concurrently, which
        // C tolerates as well.
        unsafe { bindings::userfaultfd_minor(self.0.get()) }
    }

    /// Returns whether all accesses to protected pages are reported to a userfaultfd:
    /// `userfaultfd_rwp()`. A snapshot.
    #[inline]
    pub fn userfaultfd_rwp(&self) -> bool {
        // SAFETY: The VMA is alive by the type invariant. Its flags may change concurrently, which
        // C tolerates as well.
        unsafe { bindings::userfaultfd_rwp(self.0.get()) }
    }

    /// Returns the address of the first byte in the VMA's own address space.
    #[inline]
    pub fn start(&self) -> usize {
        // SAFETY: The VMA is alive by the type invariant. Its bounds change only with
        // `i_mmap_rwsem` held for writing.
        unsafe { bindings::vma_vm_start(self.0.get()) }
    }

    /// Returns the address after the last byte.
    #[inline]
    pub fn end(&self) -> usize {
        // SAFETY: The VMA is alive by the type invariant. Its bounds change only with
        // `i_mmap_rwsem` held for writing.
        unsafe { bindings::vma_vm_end(self.0.get()) }
    }

    /// Returns the index of the first page in the file: `vma_start_pgoff()`.
    #[inline]
    pub fn start_pgoff(&self) -> usize {
        // SAFETY: The VMA is alive by the type invariant. Its bounds change only with
        // `i_mmap_rwsem` held for writing.
        unsafe { bindings::vma_start_pgoff(self.0.get()) }
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_mapping)]
mod tests {
    // Results are asserted after `i_mmap_rwsem` was released, because a failing test ends its
    // thread.

    use super::*;
    use crate::{
        error::code::EAGAIN,
        mm::{
            folio::LockedFolio,
            kunit::{directory, ShmemFile}, //
        },
        page::PAGE_SIZE, //
    };

    #[test]
    fn range_does_not_contain_its_end() -> Result {
        let file = ShmemFile::new(16)?;
        let _mapped = file.map(4..8)?;
        let count = |range| file.mapping().i_mmap_read().vmas(range).count();

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
        let count = |range| file.mapping().i_mmap_read().vmas(range).count();

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
            let i_mmap = file.mapping().i_mmap_read();
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
        let i_mmap = file.mapping().i_mmap_read();
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
            let i_mmap = file.mapping().i_mmap_read();
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
        let writable = || file.i_mmap_is_free();

        let before = writable();
        let guard = file.mapping().i_mmap_read();
        let within = writable();
        drop(guard);
        assert!(before && !within && writable());
        Ok(())
    }

    #[test]
    fn mapping_is_the_file_s() -> Result {
        let file = ShmemFile::new(1)?;
        let other = ShmemFile::new(1)?;
        let mapping = AddressSpace::of_regular(&file)?;

        assert!(mapping.is_shmem());
        assert!(core::ptr::eq(mapping, AddressSpace::of(&file)));
        assert!(!core::ptr::eq(mapping, AddressSpace::of(&other)));
        Ok(())
    }

    #[test]
    fn directory_is_no_regular_file() -> Result {
        let directory = directory()?;

        assert!(!AddressSpace::of(&**directory).is_shmem());
        assert_eq!(AddressSpace::of_regular(&**directory).err(), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn range_is_what_one_pmd_maps() -> Result {
        let file = ShmemFile::new(1)?;
        let other = ShmemFile::new(1)?;
        let range = file.mapping().pmd_range(HPAGE_PMD_NR);

        assert_eq!(range.start(), HPAGE_PMD_NR);
        assert_eq!(range.end(), 2 * HPAGE_PMD_NR);
        assert_eq!(range.indices(), HPAGE_PMD_NR..2 * HPAGE_PMD_NR);
        assert!(core::ptr::eq(range.mapping(), file.mapping()));
        assert!(range == file.mapping().pmd_range(HPAGE_PMD_NR));
        assert!(range != file.mapping().pmd_range(0));
        assert!(range != other.mapping().pmd_range(HPAGE_PMD_NR));
        Ok(())
    }

    #[test]
    fn folio_is_in_its_own_mapping_until_it_is_truncated() -> Result {
        let file = ShmemFile::new(1)?;
        let other = ShmemFile::new(1)?;
        file.fill(0..1)?;
        let folio = file.folio(0)?;
        let in_each = |locked: &LockedFolio| {
            [&file, &other].map(|file| {
                let mapping = file.mapping();
                mapping.contains(locked)
            })
        };

        let locked = folio.try_lock().ok_or(EAGAIN)?;
        assert_eq!(in_each(&locked), [true, false]);
        drop(locked);
        file.punch(0);
        let locked = folio.try_lock().ok_or(EAGAIN)?;
        assert_eq!(in_each(&locked), [false; 2]);
        Ok(())
    }
}
