// SPDX-License-Identifier: GPL-2.0

//! Folios, and what a task holds of them.
//!
//! - [`Folio`]: another object holds a reference. Flags can be read, and may change at any time.
//! - [`ARef<Folio>`](ARef): the task holds a reference.
//! - [`LockedFolio`]: the task holds a reference and the folio lock. The folio stays in its
//!   mapping.
//! - [`FolioList`]: the task has also taken the folios off the LRU. Reclaim does not find them.
//!
//! Each of them releases what it holds when it is dropped. This module knows no mapping: see
//! [`AddressSpace`](super::mapping::AddressSpace) for the relation between the two.
//!
//! The memory of a folio is never lent out as a slice. Userspace, devices and the kernel's direct
//! map may write to it at any time.
//!
//! C headers: [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h), `mm/internal.h`

use crate::{
    alloc,
    bindings,
    ffi::c_int,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque, //
};
use core::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull, //
};

mod list;

pub use list::{FolioList, FolioListIter};

/// The order of a folio that a PMD maps: `HPAGE_PMD_ORDER`.
pub const HPAGE_PMD_ORDER: u32 = bindings::HPAGE_PMD_ORDER;

/// The number of pages that a PMD maps: `HPAGE_PMD_NR`.
pub const HPAGE_PMD_NR: usize = 1 << HPAGE_PMD_ORDER;

/// A counter that each node and each memory cgroup has: `enum node_stat_item`.
#[derive(Clone, Copy)]
pub enum NodeStat {
    /// Pages of files, `NR_FILE_PAGES`.
    FilePages = bindings::node_stat_item_NR_FILE_PAGES as isize,
    /// Pages in huge folios of regular files, `NR_FILE_THPS`.
    FileThps = bindings::node_stat_item_NR_FILE_THPS as isize,
    /// Pages of shmem, `NR_SHMEM`.
    Shmem = bindings::node_stat_item_NR_SHMEM as isize,
    /// Pages in huge folios of shmem, `NR_SHMEM_THPS`.
    ShmemThps = bindings::node_stat_item_NR_SHMEM_THPS as isize,
}

/// Moves the folios in this CPU's LRU batches to the LRU: `lru_add_drain()`.
///
/// Context: interrupts are enabled, because draining the batch of mlocked folios enables them.
#[inline]
pub fn lru_add_drain() {
    // SAFETY: No preconditions. Lockdep reports a caller that has interrupts disabled.
    unsafe { bindings::lockdep_assert_irqs_enabled() };
    // SAFETY: No preconditions but enabled interrupts.
    unsafe { bindings::lru_add_drain() };
}

/// A `struct folio` with at least one reference.
///
/// # Invariants
///
/// The folio's reference count is positive for as long as a Rust reference to it exists.
#[repr(transparent)]
pub struct Folio(Opaque<bindings::folio>);

// SAFETY: The reference count is that of the C object: `folio_get()` and `folio_put()`. A folio is
// freed when the count drops to zero, and not before.
unsafe impl AlwaysRefCounted for Folio {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: The reference count is positive by the type invariant.
        unsafe { bindings::folio_get(self.as_raw()) };
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns the reference that is dropped.
        unsafe { bindings::folio_put(obj.as_ptr().cast()) };
    }
}

impl Folio {
    /// Creates a Rust reference from a C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must point to a folio whose reference count stays positive for `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::folio) -> &'a Self {
        // SAFETY: `Folio` is transparent over `struct folio`. The caller promises the rest.
        unsafe { &*ptr.cast() }
    }

    /// Returns the C object.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::folio {
        self.0.get()
    }

    /// Returns a snapshot of the number of references: `folio_ref_count()`.
    #[inline]
    pub fn ref_count(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_ref_count(self.as_raw()) as usize }
    }

    /// Returns the number of pages: `folio_nr_pages()`. It is stable while the folio is locked.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_nr_pages(self.as_raw()) }
    }

    /// Returns the base-2 logarithm of the number of pages: `folio_order()`.
    #[inline]
    pub fn order(&self) -> u32 {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_order(self.as_raw()) }
    }

    /// Returns whether a PMD can map the folio: `is_pmd_order(folio_order())`.
    #[inline]
    pub fn is_pmd_order(&self) -> bool {
        self.order() == HPAGE_PMD_ORDER
    }

    /// Returns the page frame number of the first page: `folio_pfn()`.
    #[inline]
    pub fn pfn(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_pfn(self.as_raw()) }
    }

    /// Returns the index of the first page in the file: `folio->index`.
    ///
    /// It is stable while the folio is locked. Otherwise it is a snapshot.
    #[inline]
    pub fn index(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_index(self.as_raw()) }
    }

    /// Returns whether a task holds the folio lock: `folio_test_locked()`.
    #[inline]
    pub fn is_locked(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_locked(self.as_raw()) }
    }

    /// Returns whether a task may be waiting for the folio lock: `folio_test_waiters()`.
    #[inline]
    pub fn has_waiters(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_waiters(self.as_raw()) }
    }

    /// Returns whether the content is valid: `folio_test_uptodate()`.
    ///
    /// If so, the content can be read after this call.
    #[inline]
    pub fn is_uptodate(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_uptodate(self.as_raw()) }
    }

    /// Returns whether the content is newer than that on disk: `folio_test_dirty()`.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_dirty(self.as_raw()) }
    }

    /// Returns whether the content is being written to disk: `folio_test_writeback()`.
    #[inline]
    pub fn is_under_writeback(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_writeback(self.as_raw()) }
    }

    /// Returns whether the folio is on the LRU: `folio_test_lru()`.
    #[inline]
    pub fn is_on_lru(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_lru(self.as_raw()) }
    }

    /// Returns whether a page table maps any page of the folio: `folio_mapped()`.
    #[inline]
    pub fn is_mapped(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_mapped(self.as_raw()) }
    }

    /// Returns whether the file system has attached data: `folio_has_private()`.
    #[inline]
    pub fn has_private(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_has_private(self.as_raw()) != 0 }
    }

    /// Takes the folio lock and a reference if the lock is free: `folio_trylock()` and
    /// `folio_get()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::mm::kunit::ShmemFile;
    /// # let file = ShmemFile::new(1)?;
    /// # file.fill(0..1)?;
    /// # let folio = file.folio(0)?;
    /// let before = folio.ref_count();
    /// let locked = folio.try_lock().ok_or(EAGAIN)?;
    ///
    /// assert!(folio.is_locked());
    /// assert!(folio.try_lock().is_none());
    /// assert_eq!(folio.ref_count(), before + 1);
    ///
    /// drop(locked);
    /// assert!(!folio.is_locked());
    /// assert_eq!(folio.ref_count(), before);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Option<LockedFolio> {
        // SAFETY: The folio is alive by the type invariant.
        if !unsafe { bindings::folio_trylock(self.as_raw()) } {
            return None;
        }
        // INVARIANT: The lock was taken above. The reference is taken here.
        Some(LockedFolio(ARef::into_raw(self.into()).cast()))
    }

    /// Adds `pages` to a counter of the folio's node and memory cgroup: `lruvec_stat_mod_folio()`.
    #[inline]
    pub(super) fn mod_stat(&self, stat: NodeStat, pages: c_int) {
        // SAFETY: The folio is alive by the type invariant.
        unsafe {
            bindings::lruvec_stat_mod_folio(self.as_raw(), stat as bindings::node_stat_item, pages)
        };
    }
}

/// A folio that the task has locked and holds a reference to.
///
/// Dropping it unlocks the folio and drops the reference.
///
/// # Invariants
///
/// The object owns the folio lock and a reference to the folio.
#[repr(transparent)]
pub struct LockedFolio(NonNull<bindings::folio>);

impl LockedFolio {
    /// Takes over a lock and a reference from C code.
    ///
    /// # Safety
    ///
    /// The folio must be locked and referenced. The caller must own both.
    #[inline]
    pub unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // INVARIANT: The caller hands over the lock and the reference.
        Self(folio)
    }

    /// Gives up the object, but neither the folio lock nor the reference.
    #[inline]
    pub(super) fn into_raw(self) -> NonNull<bindings::folio> {
        ManuallyDrop::new(self).0
    }

    /// Borrows a folio whose lock is owned elsewhere.
    ///
    /// # Safety
    ///
    /// The owner of `folio` must own the folio lock and a reference for `'a`.
    #[inline]
    pub(super) unsafe fn from_ref(folio: &NonNull<bindings::folio>) -> &Self {
        // SAFETY: `LockedFolio` is transparent over the pointer. The caller promises its invariant.
        unsafe { &*core::ptr::from_ref(folio).cast() }
    }

    /// Frees the data that the file system has attached: `filemap_release_folio()`.
    ///
    /// Returns whether the folio has none now.
    ///
    /// Context: may sleep if `gfp` allows it.
    #[inline]
    pub fn release_private(&self, gfp: alloc::Flags) -> bool {
        // SAFETY: The folio is alive, and locked by the type invariant.
        unsafe { bindings::filemap_release_folio(self.as_raw(), gfp.as_raw()) }
    }
}

impl Deref for LockedFolio {
    type Target = Folio;

    #[inline]
    fn deref(&self) -> &Folio {
        // SAFETY: The object owns a reference by the type invariant.
        unsafe { Folio::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for LockedFolio {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: The object owns the folio lock and a reference by the type invariant. Neither is
        // used after it is given up.
        unsafe {
            bindings::folio_unlock(self.as_raw());
            bindings::folio_put(self.as_raw());
        }
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_folio)]
mod tests {
    use super::*;
    use crate::{
        error::{
            code::{EAGAIN, EBUSY},
            Result, //
        },
        mm::kunit::{drain, ShmemFile},
    };

    /// Isolates the folios of these pages.
    fn isolated(file: &ShmemFile, pages: core::ops::Range<usize>) -> Result<FolioList> {
        let mut list = FolioList::new();

        for index in pages {
            let folio = file.lock(index)?.into_raw();

            // SAFETY: The lock and the reference are handed over.
            if unsafe { list.isolate(&[Some(folio)]) } == 0 {
                // SAFETY: They were not.
                drop(unsafe { LockedFolio::from_raw(folio) });
                return Err(EBUSY);
            }
        }
        Ok(list)
    }

    /// The indices of a list's folios.
    fn starts<const N: usize>(list: &FolioList) -> Option<[usize; N]> {
        let mut iter = list.iter();
        let starts = [(); N].map(|()| iter.next().map(Folio::index));

        (iter.next().is_none() && starts.iter().all(Option::is_some))
            .then(|| starts.map(Option::unwrap_or_default))
    }

    #[test]
    fn lock_comes_with_a_reference_and_goes_with_it() -> Result {
        let file = ShmemFile::new(1)?;
        file.fill(0..1)?;
        let folio = file.folio(0)?;

        // The page cache's, and ours.
        assert_eq!(folio.ref_count(), 2);
        assert!(!folio.is_locked());
        let locked = folio.try_lock().ok_or(EAGAIN)?;
        assert!(folio.is_locked() && locked.is_locked());
        assert_eq!(folio.ref_count(), 3);
        // A failure takes neither.
        assert!(folio.try_lock().is_none());
        assert_eq!(folio.ref_count(), 3);
        drop(locked);
        assert!(!folio.is_locked());
        assert_eq!(folio.ref_count(), 2);
        Ok(())
    }

    #[test]
    fn parts_of_a_locked_folio_are_put_together_again() -> Result {
        let file = ShmemFile::new(1)?;
        file.fill(0..1)?;
        let folio = file.folio(0)?;

        let parts = folio.try_lock().ok_or(EAGAIN)?.into_raw();
        assert!(folio.is_locked());
        assert_eq!(folio.ref_count(), 3);
        // SAFETY: The lock was taken above.
        drop(unsafe { LockedFolio::from_raw(parts) });
        assert!(!folio.is_locked());
        assert_eq!(folio.ref_count(), 2);
        Ok(())
    }

    #[test]
    fn written_page_tells_what_it_is() -> Result {
        let file = ShmemFile::new(8)?;
        file.fill(5..6)?;
        let folio = file.folio(5)?;

        assert_eq!(folio.index(), 5);
        assert_eq!(folio.nr_pages(), 1);
        assert_eq!(folio.order(), 0);
        assert!(!folio.is_pmd_order());
        assert!(folio.pfn() > 0);
        assert!(folio.is_uptodate() && folio.is_dirty() && folio.is_on_lru());
        assert!(!folio.is_under_writeback() && !folio.is_mapped());
        assert!(!folio.has_private() && !folio.has_waiters());
        Ok(())
    }

    #[test]
    fn allocated_page_is_not_uptodate_before_it_is_written() -> Result {
        let file = ShmemFile::new(1)?;
        file.allocate(0)?;
        let folio = file.folio(0)?;

        assert!(!folio.is_uptodate());
        file.fill(0..1)?;
        assert!(folio.is_uptodate());
        Ok(())
    }

    #[test]
    fn page_is_mapped_from_its_first_touch_on() -> Result {
        let file = ShmemFile::new(1)?;
        file.fill(0..1)?;
        let folio = file.folio(0)?;

        let mapped = file.map(0..1)?;
        assert!(!folio.is_mapped());
        mapped.touch()?;
        assert!(folio.is_mapped());
        drop(mapped);
        assert!(!folio.is_mapped());
        Ok(())
    }

    #[test]
    fn isolation_is_undone_with_its_reference() -> Result {
        let file = ShmemFile::new(1)?;
        file.fill(0..1)?;
        let folio = file.folio(0)?;

        // Twice: it can be taken off the LRU again only if it was put back.
        for _ in 0..2 {
            let list = isolated(&file, 0..1)?;
            assert!(folio.is_locked());
            assert_eq!(folio.ref_count(), 4);
            drop(list);
            drain();
            assert!(!folio.is_locked());
            assert_eq!(folio.ref_count(), 2);
        }
        Ok(())
    }

    #[test]
    fn folio_that_is_off_the_lru_is_given_back() -> Result {
        let file = ShmemFile::new(3)?;
        file.fill(0..3)?;
        let folio = file.folio(1)?;
        // SAFETY: The folio is alive.
        let taken = unsafe { bindings::folio_isolate_lru(folio.as_raw()) };
        assert!(taken);

        let mut list = FolioList::new();
        let folios = [file.lock(0)?, file.lock(1)?, file.lock(2)?].map(LockedFolio::into_raw);
        // SAFETY: The locks and references of those that are moved are handed over.
        let moved = unsafe { list.isolate(&folios.map(Some)) };
        let taken = starts(&list);
        drop(list);
        for &left in &folios[moved..] {
            // SAFETY: The lock and the reference were not handed over.
            drop(unsafe { LockedFolio::from_raw(left) });
        }
        // SAFETY: It was isolated above, and the reference is that of then.
        unsafe { bindings::folio_putback_lru(folio.as_raw()) };

        assert_eq!(moved, 1);
        assert_eq!(taken, Some([0]));
        // All of them can be isolated again.
        drain();
        assert_eq!(starts(&isolated(&file, 0..3)?), Some([0, 1, 2]));
        Ok(())
    }

    #[test]
    fn list_has_its_folios_in_order() -> Result {
        let file = ShmemFile::new(3)?;
        file.fill(0..3)?;

        assert!(FolioList::new().iter().next().is_none());
        let mut list = isolated(&file, 0..2)?;
        let last = file.lock(2)?.into_raw();
        // SAFETY: The lock and the reference are handed over.
        let moved = unsafe { list.isolate(&[Some(last)]) };
        assert_eq!(moved, 1);
        assert_eq!(starts(&list), Some([0, 1, 2]));
        Ok(())
    }

    #[test]
    fn list_gives_all_of_its_folios_back() -> Result {
        let file = ShmemFile::new(3)?;
        file.fill(0..3)?;

        let list = isolated(&file, 0..3)?;
        let mut held = list.iter().map(ARef::from);
        let held = [held.next(), held.next(), held.next()];
        drop(list);
        drain();
        assert!(held
            .iter()
            .flatten()
            .all(|folio| !folio.is_locked() && folio.ref_count() == 2));
        assert_eq!(held.iter().flatten().count(), 3);
        Ok(())
    }
}
