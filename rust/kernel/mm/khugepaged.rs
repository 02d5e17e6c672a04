// SPDX-License-Identifier: GPL-2.0

//! Collapsing the small folios of a file into one huge folio: what `mm/collapse_file.rs` works
//! with.
//!
//! Two things are in the making while a file is collapsed, and both have types that tell how far
//! they are:
//!
//! - the new folio: [`NewFolio<Blank>`] is allocated, charged and locked. A [`CopyCursor`] writes
//!   its pages in order, and makes it a [`NewFolio<Filled>`] when it is through, which is marked to
//!   become a [`NewFolio<Uptodate>`]. Only such a folio gets into the page cache, and is a
//!   [`HugeFolio`] then, which page tables can be retracted for.
//! - the old folios: [`OldFolios<UnmapBatch>`] gathers them while CPUs may still write to them
//!   through their TLBs. After the flush it is an [`OldFolios<Flushed>`], which can be copied from.
//!   On their way there they are together in batches: a [`FolioBatch`] is locked, an
//!   [`IsolatedBatch`] is off the LRU and unmapped as well.
//!
//! Dropped at any point, the new folio is freed, and the old ones are unlocked and go back to the
//! LRU: that is the rollback.
//!
//! # Examples
//!
//! A file of shmem has nothing but its first page, and becomes one huge folio. What
//! `mm/collapse_file.rs` looks at besides is left out.
//!
//! ```
//! use kernel::mm::{
//!     khugepaged::{FolioBatch, FolioSlots, NewFolio, OldFolios},
//!     page_cache::{AddressSpace, Cursor},
//! };
//!
//! # use kernel::mm::kunit::{mm, Control, ShmemFile};
//! # let file = ShmemFile::new(512)?;
//! # file.fill(0..1)?;
//! # let (mm, cc) = (mm()?, Control::new()?);
//! let range = AddressSpace::of(&file).pmd_range(0);
//! let new = NewFolio::alloc_charged(&mm, &cc, range).map_err(|_| ENOMEM)?;
//!
//! // The old folios, and the holes between them.
//! let mut old = OldFolios::new(range);
//! let mut walk = range.walk();
//! let mut slots = FolioSlots::new();
//! let cursor = Cursor::new(&mut walk);
//! let folio = cursor.filemap_lock_folio(range.start())?;
//! let mut batch = FolioBatch::new(&mut slots, range.start(), folio);
//! let mut locked = cursor.lock_with_slots()?;
//! locked.extend(&mut batch, |folio| folio.is_uptodate());
//! let cursor = locked.unlock();
//! let batch = old.unmap(batch.isolate_lru());
//! let locked = old.add(cursor, batch).map_err(|_| EAGAIN)?;
//! let cursor = locked.unlock();
//! let old = old.flush();
//!
//! // The new one has what they have.
//! let charge = cursor.charge_holes(old.holes())?;
//! let mut copy = new.into_copy_cursor();
//! for folio in old.folios() {
//!     copy.clear_until(folio.start());
//!     if !copy.copy_folio(folio) {
//!         return Err(EIO);
//!     }
//! }
//! let new = copy.clear_rest().mark_uptodate();
//!
//! // Nothing can be seen of it before this.
//! let i_mmap = cursor.i_mmap_read();
//! let sealed = cursor
//!     .lock()
//!     .fill_holes()?
//!     .expect_holes(old.holes())?
//!     .check_userfaultfd(i_mmap)?;
//! let (huge, replaced) = sealed.commit(new, charge, old);
//! huge.retract_page_tables();
//! huge.unlock();
//! replaced.release();
//!
//! # assert_eq!(file.pages(), range.indices().len());
//! # assert_eq!((file.content(0)?, file.content(1)?), (ShmemFile::byte(0), 0));
//! # assert!(file.folio(0)?.is_pmd_order());
//! # Ok::<(), Error>(())
//! ```
//!
//! C files: `mm/khugepaged.c`, `mm/khugepaged.h`

use crate::{
    alloc,
    bindings,
    ffi::{c_int, c_ulong},
    fs::file::LocalFile,
    mm::{
        folio::{Folio, FolioList, LockedFolio, NodeStat},
        folio::{HPAGE_PMD_NR, HPAGE_PMD_ORDER},
        mmdebug::vm_bug_on,
        page_cache::{Cursor, Entry, LockedCursor, PmdRange},
        rmap::{Flushed, UnmapBatch},
        Mm, //
    },
    tracepoint::declare_trace,
    types::{NotThreadSafe, Opaque}, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};

/// How a collapse ended: the values of `enum scan_result` that `collapse_file()` returns.
///
/// What userspace gets to see of each is up to the caller: see `madvise_collapse_errno()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ScanResult {
    /// No memory for nodes, a page that cannot be had or is not uptodate, or no room to charge.
    Fail = bindings::scan_result_SCAN_FAIL,
    /// The range is one huge folio now.
    Succeed = bindings::scan_result_SCAN_SUCCEED,
    /// A userfaultfd waits for missing pages, and some are missing.
    ExceedNonePte = bindings::scan_result_SCAN_EXCEED_NONE_PTE,
    /// The range is one huge folio, and page tables may still map it page by page.
    PteMappedHugepage = bindings::scan_result_SCAN_PTE_MAPPED_HUGEPAGE,
    /// Somebody else has a reference to a folio.
    PageCount = bindings::scan_result_SCAN_PAGE_COUNT,
    /// Somebody else has locked a folio.
    PageLock = bindings::scan_result_SCAN_PAGE_LOCK,
    /// A folio is not on the LRU.
    DelPageLru = bindings::scan_result_SCAN_DEL_PAGE_LRU,
    /// No huge folio could be allocated.
    AllocHugePageFail = bindings::scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL,
    /// The memory cgroup has no room for a huge folio.
    CgroupChargeFail = bindings::scan_result_SCAN_CGROUP_CHARGE_FAIL,
    /// The range has been truncated, or has become one hole.
    Truncated = bindings::scan_result_SCAN_TRUNCATED,
    /// The file system does not let go of what it has attached to a folio.
    PageHasPrivate = bindings::scan_result_SCAN_PAGE_HAS_PRIVATE,
    /// A slot of the page cache was missing and could not be allocated.
    StoreFailed = bindings::scan_result_SCAN_STORE_FAILED,
    /// The memory of an old folio is failing.
    CopyMc = bindings::scan_result_SCAN_COPY_MC,
    /// A hole was filled, or a new one made, since the holes were counted.
    PageFilled = bindings::scan_result_SCAN_PAGE_FILLED,
    /// A folio of a regular file is dirty or being written back.
    PageDirtyOrWriteback = bindings::scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK,
}

/// Who wants the collapse, and its scratchpad: `struct collapse_control`.
///
/// # Invariants
///
/// The object is initialized, and one collapse uses it at a time.
#[repr(transparent)]
pub struct CollapseControl {
    inner: Opaque<bindings::collapse_control>,
    _not_send: NotThreadSafe,
}

impl CollapseControl {
    /// Makes a Rust reference from a C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must point to an initialized `collapse_control` that nobody else uses for `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::collapse_control) -> &'a Self {
        // SAFETY: Transparent over the C type; the caller promises the rest.
        unsafe { &*ptr.cast() }
    }

    /// Whether khugepaged does it, and not `madvise(MADV_COLLAPSE)`.
    #[inline]
    pub fn is_khugepaged(&self) -> bool {
        // SAFETY: The object is valid by the type invariant.
        unsafe { bindings::collapse_control_is_khugepaged(self.inner.get()) }
    }
}

/// State of a [`NewFolio`]: its pages hold anything.
pub struct Blank(());
/// State of a [`NewFolio`]: every page has been written.
pub struct Filled(());
/// State of a [`NewFolio`]: marked so, hence ready for readers.
pub struct Uptodate(());

/// A huge folio that is to take the place of a range of small ones.
///
/// Dropping it frees it.
///
/// # Invariants
///
/// - `folio` has order [`HPAGE_PMD_ORDER`], is locked, and the object owns the lock and a
///   reference. It is in no page cache.
/// - Its mapping and index are those of `range`.
/// - It is as written and as uptodate as `S` says.
pub struct NewFolio<'m, S> {
    folio: NonNull<bindings::folio>,
    range: PmdRange<'m>,
    _state: PhantomData<S>,
}

impl<'m> NewFolio<'m, Blank> {
    /// Allocates a huge folio for `range`, charges it to the memory cgroup of `mm` and
    /// locks it: `alloc_charge_folio()`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ScanResult::AllocHugePageFail`] and [`ScanResult::CgroupChargeFail`], and
    /// [`ScanResult::Fail`] if the file is not one that can have huge folios.
    #[inline]
    pub fn alloc_charged(
        mm: &Mm,
        cc: &CollapseControl,
        range: PmdRange<'m>,
    ) -> Result<Self, ScanResult> {
        let mut folio = core::ptr::null_mut();
        let mapping = range.mapping();

        // Whether the mount wants them for shmem is for khugepaged to ask.
        if !mapping.is_shmem() && !mapping.supports_pmd_folios() {
            return Err(ScanResult::Fail);
        }
        // SAFETY: `mm` and `cc` are valid by their invariants.
        let result = unsafe {
            bindings::alloc_charge_folio(&mut folio, mm.as_raw(), cc.inner.get(), HPAGE_PMD_ORDER)
        };
        let folio = match (result, NonNull::new(folio)) {
            (bindings::scan_result_SCAN_SUCCEED, Some(folio)) => folio,
            (bindings::scan_result_SCAN_CGROUP_CHARGE_FAIL, _) => {
                return Err(ScanResult::CgroupChargeFail)
            }
            _ => return Err(ScanResult::AllocHugePageFail),
        };

        // SAFETY: The folio is new and ours alone, so that no flag needs to be set atomically.
        unsafe {
            bindings::__folio_set_locked(folio.as_ptr());
            if mapping.is_shmem() {
                bindings::__folio_set_swapbacked(folio.as_ptr());
            }
            bindings::folio_set_place(folio.as_ptr(), mapping.as_raw(), range.start());
        }
        // INVARIANT: Allocated with this order and one reference; locked and placed just now.
        Ok(Self {
            folio,
            range,
            _state: PhantomData,
        })
    }

    /// Begins to write the folio's pages.
    #[inline]
    pub fn into_copy_cursor(self) -> CopyCursor<'m> {
        // INVARIANT: Nothing is written yet.
        CopyCursor {
            new: self,
            written: 0,
        }
    }
}

impl<'m> NewFolio<'m, Filled> {
    /// Declares the content valid: `folio_mark_uptodate()`. Whoever sees the flag sees the content.
    #[inline]
    pub fn mark_uptodate(self) -> NewFolio<'m, Uptodate> {
        // SAFETY: The folio is alive.
        unsafe { bindings::folio_mark_uptodate(self.folio.as_ptr()) };
        // INVARIANT: Written by the type, and marked just now.
        self.into_state()
    }
}

impl<'m> NewFolio<'m, Uptodate> {
    /// The folio has taken its place.
    ///
    /// # Safety
    ///
    /// It must have been stored in the page cache over the whole of its range, which has taken over
    /// the reference, and others for its other pages.
    #[inline]
    pub(super) unsafe fn into_inserted(self) -> HugeFolio<'m> {
        let this = ManuallyDrop::new(self);

        // INVARIANT: Promised by the caller, and the lock is still ours.
        HugeFolio {
            folio: this.folio,
            range: this.range,
        }
    }
}

impl<'m, S> NewFolio<'m, S> {
    /// The same folio, which who calls this knows to be as `T` says.
    #[inline]
    fn into_state<T>(self) -> NewFolio<'m, T> {
        let this = ManuallyDrop::new(self);

        NewFolio {
            folio: this.folio,
            range: this.range,
            _state: PhantomData,
        }
    }

    /// The folio itself.
    #[inline]
    pub fn folio(&self) -> &Folio {
        // SAFETY: The object owns a reference.
        unsafe { Folio::from_raw(self.folio.as_ptr()) }
    }

    /// Where in the page cache it belongs.
    #[inline]
    pub(super) fn range(&self) -> PmdRange<'m> {
        self.range
    }
}

impl<S> Drop for NewFolio<'_, S> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The object owns the lock and a reference. The folio is in no page cache, and is
        // to look like any other one when it is freed.
        unsafe {
            bindings::folio_clear_mapping(self.folio.as_ptr());
            bindings::folio_unlock(self.folio.as_ptr());
            bindings::folio_put(self.folio.as_ptr());
        }
    }
}

/// Writes the pages of a new folio in order: those of old folios, and zeroes for holes.
///
/// # Invariants
///
/// The first `written` pages of `new` have been written, and `written` is [`HPAGE_PMD_NR`] at most.
pub struct CopyCursor<'m> {
    new: NewFolio<'m, Blank>,
    written: usize,
}

impl<'m> CopyCursor<'m> {
    /// The index in the file of the page to be written next.
    #[inline]
    pub fn index(&self) -> usize {
        self.new.range.start() + self.written
    }

    /// The page to be written next. The caller writes all of it and counts it.
    #[inline]
    fn next_page(&self) -> *mut bindings::page {
        assert!(self.written < HPAGE_PMD_NR);
        // SAFETY: The folio has a page of this number, by the check above.
        unsafe { bindings::folio_page(self.new.folio.as_ptr(), self.written) }
    }

    /// Fills the pages before `index` with zeroes: `clear_highpage()`.
    ///
    /// # Panics
    ///
    /// If `index` is beyond the end of the folio.
    #[inline]
    pub fn clear_until(&mut self, index: usize) {
        while self.index() < index {
            // SAFETY: The page is part of the new folio, which is ours alone.
            unsafe { bindings::clear_highpage(self.next_page()) };
            // INVARIANT: One more page is written.
            self.written += 1;
        }
    }

    /// Copies the pages of `from`: `copy_mc_highpage()`.
    ///
    /// Returns whether they could be read. If not, the cursor is at the page whose memory has been
    /// reported as failing.
    ///
    /// # Panics
    ///
    /// If `from` does not begin at [`index`](Self::index) of the file, or goes beyond the end of
    /// the folio.
    #[inline]
    #[must_use]
    pub fn copy_folio(&mut self, from: OldFolio<'_>) -> bool {
        assert!(from.is_placed_in(self.new.range.mapping()) && from.start() == self.index());
        for n in 0..from.nr_pages() {
            // SAFETY: Both pages are parts of their folios. The new folio is ours alone. The old
            // one had no users but us when it was added to its list, and stays locked. The kernel
            // has it mapped, as the mapping is one that can have huge folios.
            let unread = unsafe {
                bindings::copy_mc_highpage(self.next_page(), bindings::folio_page(from.as_raw(), n))
            };
            if unread > 0 {
                return false;
            }
            // INVARIANT: One more page is written.
            self.written += 1;
        }
        true
    }

    /// Fills all pages that are left with zeroes, which completes the folio.
    #[inline]
    pub fn clear_rest(mut self) -> NewFolio<'m, Filled> {
        self.clear_until(self.new.range.end());
        assert!(self.written == HPAGE_PMD_NR);
        // INVARIANT: Every page is written.
        self.new.into_state()
    }
}

/// The new folio in its place in the page cache, still locked, so that nobody can map it yet.
///
/// Dropping it unlocks the folio. The page cache owns all references: once it is unlocked, the
/// folio may go away.
///
/// # Invariants
///
/// `folio` is in the page cache at `range`, and the object owns the folio lock.
pub struct HugeFolio<'m> {
    folio: NonNull<bindings::folio>,
    range: PmdRange<'m>,
}

impl HugeFolio<'_> {
    /// Removes the page tables that mapped the small folios, where that can be done, so that the
    /// next fault maps the huge one: `retract_page_tables()`.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem` and page-table locks.
    #[inline]
    pub fn retract_page_tables(&self) {
        // SAFETY: The mapping is alive. The folio is locked by the type invariant, which keeps
        // faults from filling the tables again.
        unsafe { bindings::retract_page_tables(self.range.mapping().as_raw(), self.range.start()) };
    }

    /// Unlocks the folio.
    #[inline]
    pub fn unlock(self) {}
}

impl Drop for HugeFolio<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The object owns the folio lock, and a locked folio stays in the page cache, which
        // has references to it.
        unsafe { bindings::folio_unlock(self.folio.as_ptr()) };
    }
}

/// Locked folios that are next to be taken out of use, in order, and the holes between and behind
/// them.
///
/// They are in a batch so that the page-cache lock is taken once for all of them. Still it is as if
/// each had gone all its way before the next one: what a step objects to ends the batch before it,
/// which fails with that objection in the end, if no later step objects to a folio before that.
///
/// # Invariants
///
/// - The first `len` of `slots` are folios, and the others are not looked at.
/// - Each of the others begins behind the one before.
/// - `end` is the page behind all of them and the holes, if none was objected to.
pub struct FolioBatch<'s> {
    slots: &'s mut [Option<LockedFolio>; FOLIO_BATCH_SIZE],
    len: usize,
    /// The page that the first folio was looked for at.
    index: usize,
    end: usize,
    /// The first page that something was wrong with, and what.
    failed: Option<(usize, ScanResult)>,
}

/// As many as C puts in a batch.
const FOLIO_BATCH_SIZE: usize = bindings::FOLIO_BATCH_SIZE as usize;

/// Where a [`FolioBatch`] has its folios: on the stack of who makes one batch after the other.
///
/// # Invariants
///
/// Empty while there is no batch, unless one was forgotten.
pub struct FolioSlots([Option<LockedFolio>; FOLIO_BATCH_SIZE]);

impl FolioSlots {
    /// Makes room for a batch.
    #[inline]
    pub fn new() -> Self {
        // INVARIANT: Empty.
        Self([const { None }; FOLIO_BATCH_SIZE])
    }
}

impl Default for FolioSlots {
    fn default() -> Self {
        Self::new()
    }
}

impl<'s> FolioBatch<'s> {
    /// Begins with the folio of page `index`.
    #[inline]
    pub fn new(slots: &'s mut FolioSlots, index: usize, folio: LockedFolio) -> Self {
        let end = index + folio.nr_pages();

        core::mem::forget(slots.0[0].replace(folio));
        // INVARIANT: One folio, so far as it is looked at here if it begins before `index`.
        Self {
            slots: &mut slots.0,
            len: 1,
            index,
            end,
            failed: None,
        }
    }

    /// Where the batch ends if there is room for one more folio.
    #[inline]
    pub(super) fn next(&self) -> Option<usize> {
        (self.len < FOLIO_BATCH_SIZE).then_some(self.end)
    }

    /// Adds a folio that begins at the end of the batch.
    ///
    /// # Panics
    ///
    /// If it does not, or there is no room.
    #[inline]
    pub(super) fn push(&mut self, folio: LockedFolio) {
        assert!(folio.start() == self.end);
        self.end += folio.nr_pages();
        // Nothing is to be dropped: the slot is empty, or of a batch that was forgotten.
        core::mem::forget(self.slots[self.len].replace(folio));
        // INVARIANT: One more folio, and its pages.
        self.len += 1;
    }

    /// There is a hole at the end of the batch.
    #[inline]
    pub(super) fn add_hole(&mut self) {
        self.end += 1;
    }

    /// Ends the batch before the first folio that `check` objects to.
    #[inline]
    pub fn check(&mut self, check: impl Fn(&LockedFolio) -> Result<(), ScanResult>) {
        let objection = self.slots[..self.len]
            .iter()
            .flatten()
            .enumerate()
            .find_map(|(n, folio)| check(folio).err().map(|result| (n, folio.start(), result)));

        if let Some((n, start, result)) = objection {
            self.failed = Some((start.max(self.index), result));
            // This unlocks them.
            self.slots[n..self.len].fill_with(|| None);
            // INVARIANT: What is left.
            self.len = n;
        }
    }

    /// Takes the folios off the LRU: `folio_isolate_lru()`.
    ///
    /// The first one that is not there ends the batch, with [`ScanResult::DelPageLru`].
    ///
    /// Context: interrupts enabled.
    #[inline]
    pub fn isolate_lru(mut self) -> IsolatedBatch {
        let mut list = FolioList::new();

        let mut folios = self.slots[..self.len].iter_mut().filter_map(Option::take);

        match list.isolate(&mut folios) {
            // INVARIANT: No slot has a folio any more.
            Ok(()) => self.len = 0,
            Err(folio) => {
                self.failed = Some((folio.start().max(self.index), ScanResult::DelPageLru));
            }
        }
        // INVARIANT: The folios of the batch, up to that one.
        IsolatedBatch {
            list,
            index: self.index,
            end: self.end,
            failed: self.failed,
        }
    }
}

impl Drop for FolioBatch<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slots[..self.len].fill_with(|| None);
    }
}

/// Folios of a [`FolioBatch`] that are isolated.
///
/// # Invariants
///
/// Each folio of `list` but the first begins behind the one before.
pub struct IsolatedBatch {
    list: FolioList,
    index: usize,
    end: usize,
    failed: Option<(usize, ScanResult)>,
}

impl IsolatedBatch {
    /// Frees what the file system has attached to the folios: `filemap_release_folio()`.
    ///
    /// The first one that it does not let go of ends the batch, with
    /// [`ScanResult::PageHasPrivate`].
    ///
    /// Context: may sleep if `gfp` allows it.
    #[inline]
    pub fn release_private(&mut self, gfp: alloc::Flags) {
        let kept = self.list.release_private(gfp);

        if let Some(folio) = kept.iter().next() {
            self.failed = Some((folio.start().max(self.index), ScanResult::PageHasPrivate));
        }
    }
}

/// What there is to know of an [`IsolatedBatch`] that was unmapped. The folios are with the
/// [`OldFolios`] that have done it, as they are not to be let go of before the flush.
#[must_use = "the folios are next to be added"]
pub struct UnmappedBatch {
    index: usize,
    end: usize,
    failed: Option<(usize, ScanResult)>,
}

impl UnmappedBatch {
    /// The page behind all of them.
    #[inline]
    pub fn end(&self) -> usize {
        self.end
    }
}

/// The old folios of a range, in order, and the number of holes between them.
///
/// Dropping it makes the flushes that are due, unlocks the folios and puts them back on the LRU.
/// Context: the page-cache lock is not held.
///
/// # Invariants
///
/// - `list` holds folios of `range`, in order, with `pages` pages together, and `end` is the page
///   behind the last one.
/// - When a folio was added to it, it was uptodate, of a regular file neither dirty nor under
///   writeback, and the only references to it were the object's two and one for each of its pages
///   that the page cache owned.
/// - What was unmapped by way of `tlb` is in one of the lists.
pub struct OldFolios<'m, T> {
    // Dropped in this order: no folio is let go of before the flush.
    tlb: T,
    list: FolioList,
    /// What was unmapped last and is to be added.
    unmapped: FolioList,
    /// What does not belong to them after all.
    rejected: FolioList,
    range: PmdRange<'m>,
    end: usize,
    pages: usize,
    holes: usize,
}

/// Checks that nobody has a reference to an unmapped folio but we and the page cache, and that
/// unmapping has found no dirty bit, which matters for regular files.
///
/// Returns how many pages it has.
///
/// One reference is from locking it, one from isolating it, and the page cache has one for each
/// page. Page tables that still map it have others.
///
/// If it is clean it stays so: to write takes the folio lock, for a system call and for the fault
/// that a translation without the dirty bit ends in.
#[inline]
fn check_unused(folio: &Folio, is_shmem: bool) -> Result<usize, ScanResult> {
    let nr_pages = folio.nr_pages();

    if folio.ref_count() != 2 + nr_pages {
        return Err(ScanResult::PageCount);
    }
    if !is_shmem && folio.is_dirty() {
        return Err(ScanResult::PageDirtyOrWriteback);
    }
    Ok(nr_pages)
}

/// Checks that what a folio has in it can be copied, and is nobody's business but ours.
#[inline]
fn check_content(folio: &Folio, is_shmem: bool) -> Result<(), ScanResult> {
    if !folio.is_uptodate() {
        return Err(ScanResult::Fail);
    }
    if !is_shmem && folio.is_under_writeback() {
        return Err(ScanResult::PageDirtyOrWriteback);
    }
    Ok(())
}

impl<'m> OldFolios<'m, UnmapBatch> {
    /// Begins with nothing, for `range`.
    #[inline]
    pub fn new(range: PmdRange<'m>) -> Self {
        // INVARIANT: No folios, no pages.
        Self {
            tlb: UnmapBatch::new(),
            list: FolioList::new(),
            unmapped: FolioList::new(),
            rejected: FolioList::new(),
            range,
            end: range.start(),
            pages: 0,
            holes: 0,
        }
    }

    /// Counts a hole.
    #[inline]
    pub fn add_hole(&mut self) {
        self.holes += 1;
    }

    /// Removes the folios of `batch` from all page tables that map them: `try_to_unmap()`.
    ///
    /// The first one that cannot be [added](OldFolios::add) ends the batch. What is behind it stays
    /// mapped.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem`.
    ///
    /// # Panics
    ///
    /// If one that is mapped is not in the file's mapping, or is huge.
    #[inline]
    pub fn unmap(&mut self, batch: IsolatedBatch) -> UnmappedBatch {
        let IsolatedBatch {
            list: mut unmapped,
            index,
            end,
            mut failed,
        } = batch;
        let mapping = self.range.mapping();
        let is_shmem = mapping.is_shmem();

        // SAFETY: They are added to one of our lists below, and these are dropped after `tlb`.
        let behind = unsafe {
            unmapped.unmap(mapping, &mut self.tlb, |folio| {
                let outcome = check_unused(folio, is_shmem);

                if let Err(result) = outcome {
                    failed = Some((folio.start().max(index), result));
                }
                outcome.is_ok()
            })
        };

        drop(behind);
        // If there is still something, nobody wanted to add it.
        self.reject_unmapped();
        // INVARIANT: This is where what was unmapped is from here on.
        self.unmapped = unmapped;
        UnmappedBatch { index, end, failed }
    }

    /// What was unmapped is not added, but flushed for like the others before anybody gets it.
    #[inline]
    fn reject_unmapped(&mut self) {
        self.rejected.append(core::mem::take(&mut self.unmapped));
    }

    /// Takes the page-cache lock and adds the folios of `batch`, which were unmapped last, if
    /// nothing is in the way. What may be is looked at under the lock.
    ///
    /// New users have to come by the page cache and will wait for the folio lock that they need
    /// against truncation.
    ///
    /// # Errors
    ///
    /// The first page that something is wrong with, and what: why the batch has failed earlier, or
    /// [`ScanResult::PageCount`] if there are other references than ours and the page cache's;
    /// [`ScanResult::PageDirtyOrWriteback`] if the folio is, of a regular file;
    /// [`ScanResult::Fail`] if it is not uptodate. The lock is released then.
    ///
    /// # Panics
    ///
    /// If `cursor` is over another range, a folio is not in this one or not behind those added
    /// earlier, or `batch` has not room for the folios that were unmapped last.
    #[inline]
    pub fn add<'w>(
        &mut self,
        cursor: Cursor<'w, 'm>,
        batch: UnmappedBatch,
    ) -> Result<LockedCursor<'w, 'm>, (usize, ScanResult)> {
        let range = self.range;
        let is_shmem = range.mapping().is_shmem();
        let mut failed = batch.failed;
        let mut pages = 0;
        let mut end = self.end;

        assert!(cursor.range() == range);
        let mut locked = cursor.lock();

        for folio in self.unmapped.iter() {
            // Being locked keeps it there.
            vm_bug_on!(!matches!(
                locked.load(folio.start()),
                Entry::Folio(found) if core::ptr::eq(found, folio)
            ));
            let outcome = check_unused(folio, is_shmem)
                .and_then(|nr_pages| check_content(folio, is_shmem).map(|()| nr_pages));

            let nr_pages = match outcome {
                Ok(nr_pages) => nr_pages,
                Err(result) => {
                    failed = Some((folio.start().max(batch.index), result));
                    break;
                }
            };
            let start = folio.start();

            // What was locked for this range is in it, and batches are made one behind the other.
            // Nothing here would notice otherwise.
            assert!(folio.is_placed_in(range.mapping()) && (end..range.end()).contains(&start));
            end = start + nr_pages;
            pages += nr_pages;
        }
        if let Some(failed) = failed {
            drop(locked);
            self.reject_unmapped();
            return Err(failed);
        }

        assert!(pages <= batch.end - batch.index);
        // INVARIANT: In the mapping and the range, in order, and as they have to be, by the checks
        // above.
        self.list.append(core::mem::take(&mut self.unmapped));
        self.end = end;
        self.pages += pages;
        self.holes += batch.end - batch.index - pages;
        Ok(locked)
    }

    /// Makes the flushes: after this no CPU has an old translation, and the folios do not change
    /// any more.
    #[inline]
    pub fn flush(self) -> OldFolios<'m, Flushed> {
        // INVARIANT: The same lists.
        OldFolios {
            tlb: self.tlb.flush(),
            list: self.list,
            unmapped: self.unmapped,
            rejected: self.rejected,
            range: self.range,
            end: self.end,
            pages: self.pages,
            holes: self.holes,
        }
    }
}

impl<'m> OldFolios<'m, Flushed> {
    /// The number of holes that were counted.
    #[inline]
    pub fn holes(&self) -> usize {
        self.holes
    }

    /// Witness that the folios are all of the range, if so.
    ///
    /// That there are as many pages is not enough: a folio may begin before the index that it was
    /// found at, and fill a hole that was counted there.
    #[inline]
    pub fn full_range(&self) -> Option<FullRange<'_, 'm>> {
        (self.holes == 0 && self.pages == HPAGE_PMD_NR).then_some(FullRange(self))
    }

    /// Whether the folios and `holes` holes make up the whole of `range`.
    #[inline]
    pub(super) fn make_up(&self, range: PmdRange<'_>, holes: usize) -> bool {
        self.range == range && self.pages + holes == HPAGE_PMD_NR
    }

    /// The folios in order.
    #[inline]
    pub fn folios(&self) -> impl Iterator<Item = OldFolio<'_>> {
        self.list.iter().map(OldFolio)
    }

    /// Another folio has taken their place.
    ///
    /// # Safety
    ///
    /// The folios must have been replaced in the page cache, and its references must be free to
    /// be taken over.
    #[inline]
    pub(super) unsafe fn into_replaced(self) -> ReplacedFolios {
        // INVARIANT: Promised by the caller.
        ReplacedFolios {
            list: self.list,
            is_shmem: self.range.mapping().is_shmem(),
        }
    }
}

/// Folios that were in a page cache, and are there no longer.
///
/// Dropping it frees them.
///
/// # Invariants
///
/// The object owns all references that the page cache had to the folios, and they are still
/// counted as pages of a file, which is shmem if `is_shmem` is set.
pub struct ReplacedFolios {
    list: FolioList,
    is_shmem: bool,
}

impl ReplacedFolios {
    /// Frees the folios.
    #[inline]
    pub fn release(self) {}
}

impl Drop for ReplacedFolios {
    #[inline]
    fn drop(&mut self) {
        let stats = &[NodeStat::FilePages, NodeStat::Shmem];

        // SAFETY: By the type invariant.
        unsafe {
            core::mem::take(&mut self.list).free_replaced(&stats[..1 + usize::from(self.is_shmem)])
        };
    }
}

/// Witness that a range of the page cache had no hole when its folios were gathered. They are
/// locked since, so that it has none now.
pub struct FullRange<'o, 'm>(&'o OldFolios<'m, Flushed>);

impl FullRange<'_, '_> {
    /// Whether this is about `range`.
    #[inline]
    pub(super) fn is_of(&self, range: PmdRange<'_>) -> bool {
        self.0.make_up(range, 0)
    }
}

/// A folio of [`OldFolios<Flushed>`]: locked, and nobody else had a reference when it was added.
#[derive(Clone, Copy)]
pub struct OldFolio<'o>(&'o Folio);

impl core::ops::Deref for OldFolio<'_> {
    type Target = Folio;

    #[inline]
    fn deref(&self) -> &Folio {
        self.0
    }
}

declare_trace! {
    /// # Safety
    ///
    /// `mm` must be null or valid, and `file` valid.
    // What the C event takes; and the macro's unsafe block takes variables only.
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

/// Tells how the collapse ended: the trace event `huge_memory:mm_khugepaged_collapse_file`.
///
/// `new_pfn` is the first page of the new folio, or all ones if there was none; `index` is where in
/// the file it ended and `addr` where in `mm`.
#[inline]
pub fn trace_collapse_file(
    mm: &Mm,
    new_pfn: usize,
    index: usize,
    addr: usize,
    is_shmem: bool,
    file: &LocalFile,
    result: ScanResult,
) {
    // SAFETY: Both objects are valid.
    unsafe {
        mm_khugepaged_collapse_file(
            mm.as_raw(),
            new_pfn,
            index,
            addr,
            is_shmem,
            file.as_ptr(),
            HPAGE_PMD_NR as c_int,
            result as c_int,
        )
    };
}

/// Exports a safe function as `rust_collapse_file()`, for `mm/khugepaged.c` to call.
///
/// All that is unsafe about being called from C is here, so that the file with the algorithm can
/// forbid unsafe code.
#[macro_export]
macro_rules! export_collapse_file {
    ($collapse_file:path) => {
        // The prototype that C sees is this one.
        const _: () = {
            if true {
                $crate::bindings::rust_collapse_file
            } else {
                rust_collapse_file
            };
        };

        /// The algorithm, for C.
        ///
        /// # Safety
        ///
        /// `mm` must be grabbed, `file` referenced and `cc` initialized and the caller's alone,
        /// all for the time of the call, and `start` a multiple of `HPAGE_PMD_NR`. May sleep.
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
            // SAFETY: The caller has a reference to `file`. Whoever is in `fdget_pos()` for it
            // without the lock that goes with that: nothing here uses the file position, which is
            // all that the lock protects.
            let file = unsafe { $crate::fs::file::LocalFile::from_raw_file(file) };
            // SAFETY: `cc` is initialized and the caller's alone.
            let cc = unsafe { $crate::mm::khugepaged::CollapseControl::from_raw(cc) };
            let result: $crate::mm::khugepaged::ScanResult =
                $collapse_file(mm, addr, file, start, cc);

            result as $crate::bindings::scan_result
        }
    };
}
pub use export_collapse_file;

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_khugepaged)]
mod tests {
    use super::*;
    use crate::{
        alloc::flags::GFP_KERNEL,
        error::{
            code::{EAGAIN, EIO, ENOMEM},
            Result as KernelResult, //
        },
        mm::{
            kunit::{drain, mm, Control, HeldFolio, ShmemFile},
            page_cache_map::{Content, Extent, FolioFlags},
        },
    };

    const LAST: usize = HPAGE_PMD_NR - 1;

    fn new_folio(range: PmdRange<'_>) -> KernelResult<NewFolio<'_, Blank>> {
        let (mm, cc) = (mm()?, Control::new()?);

        NewFolio::alloc_charged(&mm, &cc, range).map_err(|_| ENOMEM)
    }

    /// Gathers all folios of a range, as `mm/collapse_file.rs` does if there is nothing to object
    /// to.
    fn gather<'w, 'm>(
        walk: &'w mut crate::mm::page_cache::Walk<'m>,
        range: PmdRange<'m>,
        old: &mut OldFolios<'m, UnmapBatch>,
    ) -> Result<Cursor<'w, 'm>, (usize, ScanResult)> {
        let mut slots = FolioSlots::new();
        let mut index = range.start();
        let mut locked = Cursor::new(walk)
            .lock_with_slots()
            .map_err(|_| (0, ScanResult::Fail))?;

        while index < range.end() {
            let Entry::Folio(folio) = locked.load(index) else {
                old.add_hole();
                index += 1;
                continue;
            };
            let folio = folio.try_lock().ok_or((index, ScanResult::PageLock))?;
            let mut batch = FolioBatch::new(&mut slots, index, folio);
            locked.extend(&mut batch, |_| true);
            let cursor = locked.unlock();
            let mut batch = batch.isolate_lru();

            batch.release_private(GFP_KERNEL);
            let batch = old.unmap(batch);
            index = batch.end();
            locked = old.add(cursor, batch)?;
        }
        Ok(locked.unlock())
    }

    /// How gathering fails, with what was gathered given back.
    fn gather_fails(range: PmdRange<'_>) -> Option<(usize, ScanResult)> {
        let mut old = OldFolios::new(range);
        let failed = gather(&mut range.walk(), range, &mut old).err();

        drop(old);
        drain();
        failed
    }

    /// Copies the old folios, and zeroes for the holes.
    fn copied<'m>(
        new: NewFolio<'m, Blank>,
        old: &OldFolios<'m, Flushed>,
    ) -> KernelResult<NewFolio<'m, Uptodate>> {
        let mut copy = new.into_copy_cursor();

        for folio in old.folios() {
            copy.clear_until(folio.start());
            if !copy.copy_folio(folio) {
                return Err(EIO);
            }
        }
        Ok(copy.clear_rest().mark_uptodate())
    }

    /// The flags of a huge folio that is all that a file has.
    fn huge_flags(file: &ShmemFile) -> Option<FolioFlags> {
        let mut extents = [Extent::default(); 2];

        match file.mapping().snapshot(0..HPAGE_PMD_NR, &mut extents) {
            [Extent {
                start: 0,
                order: HPAGE_PMD_ORDER,
                content: Content::Folio(flags),
                ..
            }] => Some(*flags),
            _ => None,
        }
    }

    /// A file of three pages: two at its beginning and one at its end.
    fn file_with_holes() -> KernelResult<ShmemFile> {
        let file = ShmemFile::new(HPAGE_PMD_NR)?;

        file.fill(0..2)?;
        file.fill(LAST..HPAGE_PMD_NR)?;
        Ok(file)
    }

    const HOLES: usize = HPAGE_PMD_NR - 3;

    #[test]
    fn new_folio_is_freed_when_dropped() -> KernelResult {
        let file = ShmemFile::new(2 * HPAGE_PMD_NR)?;
        let new = new_folio(file.mapping().pmd_range(HPAGE_PMD_NR))?;

        let folio = HeldFolio::new(new.folio());
        assert!(folio.is_locked() && folio.is_pmd_order() && !folio.is_uptodate());
        assert_eq!(folio.nr_pages(), HPAGE_PMD_NR);
        assert_eq!(folio.start(), HPAGE_PMD_NR);
        assert!(folio.is_placed_in(file.mapping()));
        assert_eq!(folio.ref_count(), 2);
        drop(new);
        // It is as any other folio, and only this test has it.
        assert!(!folio.is_locked() && !folio.is_placed_in(file.mapping()));
        assert_eq!(folio.ref_count(), 1);
        Ok(())
    }

    #[test]
    fn it_is_not_khugepaged_that_asks() -> KernelResult {
        assert!(!Control::new()?.is_khugepaged());
        Ok(())
    }

    #[test]
    fn folio_is_uptodate_when_all_of_it_is_written() -> KernelResult {
        let file = ShmemFile::new(2 * HPAGE_PMD_NR)?;
        let start = HPAGE_PMD_NR;
        let mut copy = new_folio(file.mapping().pmd_range(start))?.into_copy_cursor();

        assert_eq!(copy.index(), start);
        copy.clear_until(start + 3);
        assert_eq!(copy.index(), start + 3);
        // Never back.
        copy.clear_until(start + 1);
        assert_eq!(copy.index(), start + 3);
        let filled = copy.clear_rest();
        assert!(!filled.folio().is_uptodate());
        let folio = HeldFolio::new(filled.folio());
        let new = filled.mark_uptodate();
        assert!(folio.is_uptodate());
        drop(new);
        assert_eq!(folio.ref_count(), 1);
        Ok(())
    }

    #[test]
    fn batch_ends_before_the_folio_that_is_objected_to() -> KernelResult {
        let file = ShmemFile::new(HPAGE_PMD_NR)?;
        file.fill(0..4)?;
        let range = file.mapping().pmd_range(0);
        let held = [
            file.folio(0)?,
            file.folio(1)?,
            file.folio(2)?,
            file.folio(3)?,
        ];
        let mut walk = range.walk();
        let mut slots = FolioSlots::new();
        let first = file.lock(0)?;
        let mut locked = Cursor::new(&mut walk).lock_with_slots()?;
        let mut batch = FolioBatch::new(&mut slots, 0, first);
        locked.extend(&mut batch, |_| true);
        let cursor = locked.unlock();

        let all = held.iter().all(|folio| folio.is_locked());
        batch.check(|folio| match folio.start() {
            2 => Err(ScanResult::PageDirtyOrWriteback),
            _ => Ok(()),
        });
        let [a, b, c, d] = [0, 1, 2, 3].map(|n: usize| held[n].is_locked());
        let mut old = OldFolios::new(range);
        let batch = old.unmap(batch.isolate_lru());
        let failed = old.add(cursor, batch).err();
        drop(old);
        drain();

        assert!(all && a && b && !c && !d);
        // Those before it are looked at, too, and the first objection counts: we have references.
        assert_eq!(failed, Some((0, ScanResult::PageCount)));
        assert!(held
            .iter()
            .all(|folio| !folio.is_locked() && folio.ref_count() == 2));
        Ok(())
    }

    #[test]
    fn dropped_batch_unlocks_its_folios() -> KernelResult {
        let file = file_with_holes()?;
        let folio = file.folio(1)?;
        let mut slots = FolioSlots::new();

        let batch = FolioBatch::new(&mut slots, 1, file.lock(1)?);
        assert!(folio.is_locked());
        assert_eq!(folio.ref_count(), 3);
        drop(batch);
        assert!(!folio.is_locked());
        assert_eq!(folio.ref_count(), 2);
        Ok(())
    }

    #[test]
    fn folio_with_other_users_is_refused() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);

        let user = file.folio(1)?;
        assert_eq!(gather_fails(range), Some((1, ScanResult::PageCount)));
        assert!(!user.is_locked());
        assert_eq!(user.ref_count(), 2);
        drop(user);
        assert_eq!(gather_fails(range), None);
        Ok(())
    }

    #[test]
    fn folio_that_is_off_the_lru_is_refused() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let folio = file.folio(LAST)?;

        // SAFETY: The folio is alive.
        let taken = unsafe { bindings::folio_isolate_lru(folio.as_raw()) };
        let failed = gather_fails(range);
        // SAFETY: It was isolated above, and the reference is that of then.
        unsafe { bindings::folio_putback_lru(folio.as_raw()) };
        drop(folio);
        drain();
        assert!(taken);
        assert_eq!(failed, Some((LAST, ScanResult::DelPageLru)));
        assert_eq!(gather_fails(range), None);
        Ok(())
    }

    #[test]
    fn objection_under_the_lock_counts() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut slots = FolioSlots::new();
        let mut old = OldFolios::new(range);

        let batch = old.unmap(FolioBatch::new(&mut slots, 1, file.lock(1)?).isolate_lru());
        assert_eq!(batch.end(), 2);
        let user = old.unmapped.iter().next().map(HeldFolio::new);
        let failed = old.add(Cursor::new(&mut walk), batch).err();
        drop((old, user));
        drain();
        assert_eq!(failed, Some((1, ScanResult::PageCount)));
        assert_eq!(gather_fails(range), None);
        Ok(())
    }

    #[test]
    fn dropped_old_folios_are_given_back() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut old = OldFolios::new(range);

        gather(&mut walk, range, &mut old).map_err(|_| EAGAIN)?;
        let mut iter = old.list.iter().map(HeldFolio::new);
        let held = [iter.next(), iter.next(), iter.next()];
        // The page cache's, the lock's, the isolation's, and the test's.
        let taken = held
            .iter()
            .flatten()
            .filter(|folio| folio.is_locked() && folio.ref_count() == 4)
            .count();
        drop(old);
        drain();
        let given_back = held
            .iter()
            .flatten()
            .filter(|folio| !folio.is_locked() && folio.ref_count() == 2)
            .count();
        drop(held);

        assert_eq!((taken, given_back), (3, 3));
        // They are on the LRU, as they can be had again.
        assert_eq!(gather_fails(range), None);
        assert_eq!(file.pages(), 3);
        Ok(())
    }

    #[test]
    fn old_folios_are_mapped_no_more() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mapped = file.map(0..2)?;
        mapped.touch()?;
        let folio = file.folio(0)?;
        assert!(folio.is_mapped());
        drop(folio);

        let mut walk = range.walk();
        let mut old = OldFolios::new(range);
        gather(&mut walk, range, &mut old).map_err(|_| EAGAIN)?;
        let old = old.flush();
        let unmapped = old.folios().filter(|folio| !folio.is_mapped()).count();
        drop(old);
        assert_eq!(unmapped, 3);
        // Who touches it has to wait for the lock, and gets it.
        mapped.touch()
    }

    #[test]
    fn range_with_holes_is_not_full() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut old = OldFolios::new(range);

        gather(&mut walk, range, &mut old).map_err(|_| EAGAIN)?;
        let old = old.flush();
        assert_eq!(old.holes(), HOLES);
        assert_eq!(old.folios().count(), 3);
        assert!(old.full_range().is_none());
        assert!(old.make_up(range, HOLES) && !old.make_up(range, HOLES - 1));
        Ok(())
    }

    #[test]
    fn commit_fills_the_holes_with_zeroes() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mapped = file.map(0..2)?;
        mapped.touch()?;

        let new = new_folio(range)?;
        let mut walk = range.walk();
        let mut old = OldFolios::new(range);
        let cursor = gather(&mut walk, range, &mut old).map_err(|_| EAGAIN)?;
        let old = old.flush();
        let was = old.folios().next().map(|folio| HeldFolio::new(&folio));
        let charge = cursor.charge_holes(HOLES)?;
        let new = copied(new, &old)?;
        let i_mmap = cursor.i_mmap_read();
        let sealed = cursor
            .lock()
            .fill_holes()?
            .expect_holes(HOLES)?
            .check_userfaultfd(i_mmap)?;
        let (huge, replaced) = sealed.commit(new, charge, old);
        let locked = huge_flags(&file).map(|flags| flags.locked);
        huge.retract_page_tables();
        huge.unlock();
        replaced.release();

        assert_eq!(locked, Some(true));
        let flags = huge_flags(&file).ok_or(EIO)?;
        assert!(!flags.locked && flags.uptodate && flags.dirty && !flags.writeback);
        assert_eq!(file.pages(), HPAGE_PMD_NR);
        for index in [0, 1, LAST] {
            assert_eq!(file.content(index)?, ShmemFile::byte(index));
        }
        for index in [2, 64, LAST - 1] {
            assert_eq!(file.content(index)?, 0);
        }
        // The page cache has a reference for each page, and this test one.
        drain();
        assert_eq!(file.folio(0)?.ref_count(), HPAGE_PMD_NR + 1);
        // An old folio is only the test's.
        let was = was.ok_or(EIO)?;
        assert!(!was.is_locked() && !was.is_placed_in(file.mapping()));
        assert_eq!(was.ref_count(), 1);
        Ok(())
    }

    #[test]
    fn full_range_is_replaced_without_a_look_at_the_vmas() -> KernelResult {
        let file = ShmemFile::new(HPAGE_PMD_NR)?;
        file.fill(0..HPAGE_PMD_NR)?;
        let range = file.mapping().pmd_range(0);

        let new = new_folio(range)?;
        let mut walk = range.walk();
        let mut old = OldFolios::new(range);
        let cursor = gather(&mut walk, range, &mut old).map_err(|_| EAGAIN)?;
        let old = old.flush();
        let charge = cursor.charge_holes(0)?;
        let new = copied(new, &old)?;
        let full = old.full_range().ok_or(EIO)?;
        let sealed = cursor.lock().seal_full(full);
        let (huge, replaced) = sealed.commit(new, charge, old);
        // What is left to do is done by dropping these.
        drop((huge, replaced));

        assert!(huge_flags(&file).is_some_and(|flags| !flags.locked && flags.uptodate));
        assert_eq!(file.pages(), HPAGE_PMD_NR);
        for index in 0..HPAGE_PMD_NR {
            assert_eq!(file.content(index)?, ShmemFile::byte(index));
        }
        // There is nothing to gather any more: it is as large as it gets.
        assert!(file.folio(LAST)?.is_pmd_order());
        Ok(())
    }

    #[test]
    fn collapse_that_fails_leaves_the_file_as_it_was() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);

        let new = new_folio(range)?;
        let folio = HeldFolio::new(new.folio());
        let mut walk = range.walk();
        let mut old = OldFolios::new(range);
        let cursor = gather(&mut walk, range, &mut old).map_err(|_| EAGAIN)?;
        let old = old.flush();
        let charge = cursor.charge_holes(HOLES)?;
        let new = copied(new, &old)?;
        let failed = cursor.lock().fill_holes()?.expect_holes(HOLES - 1).err();
        drop((new, charge, old));
        drain();

        assert_eq!(failed, Some(EAGAIN));
        assert_eq!(folio.ref_count(), 1);
        assert_eq!(file.pages(), 3);
        for index in [0, 1, LAST] {
            assert_eq!(file.content(index)?, ShmemFile::byte(index));
        }
        drain();
        assert_eq!(gather_fails(range), None);
        Ok(())
    }
}
