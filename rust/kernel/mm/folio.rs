// SPDX-License-Identifier: GPL-2.0

//! Folios: what a holder of a reference, of the folio lock, or of an isolated folio may do.
//!
//! A folio in the page cache goes through these hands when it is taken out of use:
//!
//! - [`Folio`]: somebody has a reference. Flags can be read, and may change at any time.
//! - [`LockedFolio`]: we hold a reference and the folio lock. It stays in its mapping.
//! - [`IsolatedFolio`]: it is off the LRU as well, so reclaim does not see it, and that is worth
//!   another reference. A [`FolioList`] strings these together.
//!
//! Each gives back what it holds when it is dropped. Folios are isolated with interrupts enabled,
//! which taking and releasing the LRU lock for that leaves them in.
//!
//! The memory of a folio is never lent out as a slice: userspace, devices and the kernel's own
//! direct map may write to it without our knowing.
//!
//! C headers: [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h), `mm/internal.h`

use crate::{
    alloc,
    bindings,
    ffi::{c_int, c_uint},
    mm::{
        page_cache::AddressSpace,
        rmap::{IMmapReadGuard, UnmapBatch}, //
    },
    types::{NotThreadSafe, Opaque}, //
};
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ops::Deref,
    ptr::NonNull, //
};

/// The order of a folio that a PMD maps: `HPAGE_PMD_ORDER`.
pub const HPAGE_PMD_ORDER: u32 = bindings::HPAGE_PMD_ORDER;

/// The number of pages that a PMD maps: `HPAGE_PMD_NR`.
pub const HPAGE_PMD_NR: usize = 1 << HPAGE_PMD_ORDER;

/// Which per-node, per-memcg counter: `enum node_stat_item`.
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

/// Moves the folios that this CPU still has to put on the LRU there, so that they can be isolated:
/// `lru_add_drain()`.
#[inline]
pub fn lru_add_drain() {
    // SAFETY: No preconditions.
    unsafe { bindings::lru_add_drain() };
}

/// A `struct folio` that somebody has a reference to.
///
/// # Invariants
///
/// The folio's reference count is positive for as long as a Rust reference to it exists.
#[repr(transparent)]
pub struct Folio(Opaque<bindings::folio>);

impl Folio {
    /// Makes a Rust reference from a C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must point to a folio whose reference count stays positive for `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::folio) -> &'a Self {
        // SAFETY: `Folio` is transparent over `struct folio`; the caller promises the rest.
        unsafe { &*ptr.cast() }
    }

    /// The C object.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::folio {
        self.0.get()
    }

    /// The number of references, a snapshot: `folio_ref_count()`.
    #[inline]
    pub fn ref_count(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_ref_count(self.as_raw()) as usize }
    }

    /// The number of pages: `folio_nr_pages()`. May only change while the folio is not locked.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_nr_pages(self.as_raw()) }
    }

    /// Base-2 logarithm of the number of pages: `folio_order()`.
    #[inline]
    pub fn order(&self) -> u32 {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_order(self.as_raw()) }
    }

    /// Whether it is as large as what a PMD maps: `is_pmd_order(folio_order())`.
    #[inline]
    pub fn is_pmd_order(&self) -> bool {
        self.order() == HPAGE_PMD_ORDER
    }

    /// The page frame number of its first page: `folio_pfn()`.
    #[inline]
    pub fn pfn(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_pfn(self.as_raw()) }
    }

    /// Its first page's index in the file, in pages. Stable while the folio is locked.
    #[inline]
    pub fn start(&self) -> usize {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_start(self.as_raw()) }
    }

    /// Whether somebody holds the folio lock.
    #[inline]
    pub fn is_locked(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_locked(self.as_raw()) }
    }

    /// Whether the content is valid. If so, it can be read after this call.
    #[inline]
    pub fn is_uptodate(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_uptodate(self.as_raw()) }
    }

    /// Whether the content is newer than what is on disk.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_dirty(self.as_raw()) }
    }

    /// Whether the content is on its way to the disk.
    #[inline]
    pub fn is_under_writeback(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_test_writeback(self.as_raw()) }
    }

    /// Whether a page table maps any of it: `folio_mapped()`.
    #[inline]
    pub fn is_mapped(&self) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_mapped(self.as_raw()) }
    }

    /// Whether it says that its place is in `mapping`. Unlike [`LockedFolio::is_in`] this does not
    /// tell where it is if not there.
    #[inline]
    pub(super) fn is_placed_in(&self, mapping: &AddressSpace) -> bool {
        // SAFETY: The folio is alive by the type invariant.
        unsafe { bindings::folio_is_placed_in(self.as_raw(), mapping.as_raw()) }
    }

    /// Takes the folio lock if nobody holds it, and a reference with it: `folio_trylock()` and
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
        // SAFETY: As above.
        unsafe { bindings::folio_get(self.as_raw()) };
        // SAFETY: The lock and the reference were just taken, for the new object.
        Some(unsafe { LockedFolio::from_raw(NonNull::from(&self.0).cast()) })
    }

    /// Adds `pages` to a counter of the folio's node and memcg: `lruvec_stat_mod_folio()`.
    #[inline]
    pub(super) fn mod_stat(&self, stat: NodeStat, pages: isize) {
        // SAFETY: The folio is alive by the type invariant. The number of pages of a batch of
        // folios fits an `int`.
        unsafe {
            bindings::lruvec_stat_mod_folio(
                self.as_raw(),
                stat as bindings::node_stat_item,
                pages as c_int,
            )
        };
    }
}

/// A folio that we have locked and have a reference to.
///
/// Dropping it unlocks the folio and gives up the reference.
///
/// # Invariants
///
/// The object owns the folio lock and one reference.
pub struct LockedFolio(NonNull<bindings::folio>);

impl LockedFolio {
    /// Takes over a lock and a reference that C code took for us.
    ///
    /// # Safety
    ///
    /// The folio must be locked and referenced, and the caller must own both.
    #[inline]
    pub unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // INVARIANT: Handed over by the caller.
        Self(folio)
    }

    /// Whether the folio belongs to `mapping`: `folio_mapping()`.
    #[inline]
    pub fn is_in(&self, mapping: &AddressSpace) -> bool {
        // SAFETY: The folio is alive and locked by the type invariant.
        unsafe { bindings::folio_mapping(self.as_raw()) == mapping.as_raw() }
    }
}

impl Deref for LockedFolio {
    type Target = Folio;

    #[inline]
    fn deref(&self) -> &Folio {
        // SAFETY: The object owns a reference.
        unsafe { Folio::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for LockedFolio {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The object owns the folio lock.
        unsafe { bindings::folio_unlock(self.0.as_ptr()) };
        // SAFETY: The object owns a reference.
        unsafe { bindings::folio_put(self.0.as_ptr()) };
    }
}

/// A locked folio that we have taken off the LRU.
///
/// Dropping it puts the folio back on its LRU, unlocks it and gives up both references.
///
/// # Invariants
///
/// Besides what [`LockedFolio`] owns, the object owns the folio's isolation, with its reference.
/// The folio's `lru` field is not in use.
pub struct IsolatedFolio(LockedFolio);

impl IsolatedFolio {
    #[inline]
    fn lru(&self) -> *mut bindings::list_head {
        // SAFETY: The folio is alive.
        unsafe { bindings::folio_lru(self.as_raw()) }
    }
}

impl Deref for IsolatedFolio {
    type Target = LockedFolio;

    #[inline]
    fn deref(&self) -> &LockedFolio {
        &self.0
    }
}

impl Drop for IsolatedFolio {
    #[inline]
    fn drop(&mut self) {
        // Then the `LockedFolio` unlocks it and gives up the other reference.
        //
        // SAFETY: The object owns the isolation and its reference.
        unsafe { bindings::folio_putback_lru(self.as_raw()) };
    }
}

/// The LRU lock of the folios that are isolated next, if any is held yet.
///
/// What is taken off is subtracted from the size of its list not one by one but together, before
/// the lock is released, as reclaim does it.
///
/// Dropping it releases the lock. Context: interrupts are off from the first folio on.
///
/// # Invariants
///
/// - `lruvec` is null, or an `lruvec` whose lock the object owns.
/// - `pages` pages are counted in the size of `list` for `zone`, of `lruvec`, that have been taken
///   off it. There are none if `lruvec` is null.
struct LruLock {
    lruvec: *mut bindings::lruvec,
    list: bindings::lru_list,
    zone: bindings::zone_type,
    pages: usize,
    _not_send: NotThreadSafe,
}

impl LruLock {
    /// Context: interrupts enabled.
    #[inline]
    fn new() -> Self {
        // INVARIANT: No lock, no pages.
        Self {
            lruvec: core::ptr::null_mut(),
            list: 0,
            zone: 0,
            pages: 0,
            _not_send: NotThreadSafe,
        }
    }

    /// What `folio_isolate_lru()` does, but that the lock stays held, to be used for the next
    /// folio if it is on the same LRU.
    ///
    /// Gives the folio back if somebody else has isolated it, or if it was not on the LRU yet.
    #[inline]
    fn isolate(&mut self, folio: LockedFolio) -> Result<IsolatedFolio, LockedFolio> {
        // SAFETY: The folio is alive by the type invariant.
        if !unsafe { bindings::folio_test_clear_lru(folio.as_raw()) } {
            return Err(folio);
        }
        // SAFETY: As above.
        unsafe { bindings::folio_get(folio.as_raw()) };
        self.lock(&folio);
        // SAFETY: Its LRU is locked, and the flag was cleared above.
        unsafe { self.take_off(&folio) };
        // INVARIANT: Isolated just now, with a reference of its own. Nobody uses `lru` then.
        Ok(IsolatedFolio(folio))
    }

    /// Takes the lock of the LRU that `folio` is on, if it is not the one that is held:
    /// `folio_lruvec_relock_irq()`.
    #[inline]
    fn lock(&mut self, folio: &Folio) {
        // SAFETY: The folio is alive, and so is an `lruvec` that is locked.
        let matches = |lruvec| unsafe { bindings::folio_matches_lruvec(folio.as_raw(), lruvec) };

        if !self.lruvec.is_null() && !matches(self.lruvec) {
            self.unlock();
        }
        if self.lruvec.is_null() {
            // INVARIANT: Locked by the call; no pages have been taken off.
            //
            // SAFETY: The folio is alive.
            self.lruvec = unsafe { bindings::folio_lruvec_lock_irq(folio.as_raw()) };
        }
    }

    /// Takes `folio` off its list: `lruvec_del_folio()`, but for the size of the list.
    ///
    /// # Safety
    ///
    /// It must be on the LRU whose lock is held, and its flag cleared by the caller.
    #[inline]
    unsafe fn take_off(&mut self, folio: &Folio) {
        let raw = folio.as_raw();
        // SAFETY: The folio is alive. What tells its list changes with the LRU lock held only.
        let (list, zone) = unsafe { (bindings::folio_lru_list(raw), bindings::folio_zonenum(raw)) };

        // SAFETY: The lock of the folio's LRU is held, and to have cleared the flag is to be the
        // one who takes it off. Generations are lists of their own, with sizes of their own.
        if unsafe { bindings::lru_gen_del_folio(self.lruvec, raw, false) } {
            return;
        }
        if list != bindings::lru_list_LRU_UNEVICTABLE {
            // SAFETY: As above. What is not evictable is counted and on no list. The entry need not
            // be made unusable: it is next put on a list of ours.
            unsafe { bindings::__list_del_entry(bindings::folio_lru(raw)) };
        }
        if (list, zone) != (self.list, self.zone) {
            self.settle();
            (self.list, self.zone) = (list, zone);
        }
        // INVARIANT: Off the list as of now.
        self.pages += folio.nr_pages();
    }

    /// Subtracts what has been taken off from the size of its list.
    #[inline]
    fn settle(&mut self) {
        if self.pages == 0 {
            return;
        }
        // SAFETY: If there are pages the lock is held, and they are counted but gone, by the type
        // invariants.
        unsafe {
            bindings::update_lru_size(self.lruvec, self.list, self.zone, -(self.pages as isize))
        };
        // INVARIANT: Not counted any more.
        self.pages = 0;
    }

    /// Releases the lock, if one is held.
    #[inline]
    fn unlock(&mut self) {
        self.settle();
        if !self.lruvec.is_null() {
            // SAFETY: The object owns the lock.
            unsafe { bindings::lruvec_unlock_irq(self.lruvec) };
            // INVARIANT: No lock, and no pages by the call above.
            self.lruvec = core::ptr::null_mut();
        }
    }
}

impl Drop for LruLock {
    #[inline]
    fn drop(&mut self) {
        self.unlock();
    }
}

/// Isolated folios, strung together by their `lru` fields, in the order they were added.
///
/// There is no head to be kept in place: the folios form a ring among themselves.
///
/// # Invariants
///
/// `first` is `None`, or an isolated folio that is in a ring, through `lru`, with further ones that
/// the list owns as so many [`IsolatedFolio`]s.
pub struct FolioList {
    first: Option<NonNull<bindings::folio>>,
    _not_send: NotThreadSafe,
}

impl FolioList {
    /// Makes an empty list.
    #[inline]
    pub fn new() -> Self {
        // INVARIANT: Empty.
        Self {
            first: None,
            _not_send: NotThreadSafe,
        }
    }

    /// Appends a folio.
    #[inline]
    pub fn push(&mut self, folio: IsolatedFolio) {
        let folio = ManuallyDrop::new(folio);

        match self.first {
            None => {
                // SAFETY: An isolated folio's `lru` is unused.
                unsafe { bindings::INIT_LIST_HEAD(folio.lru()) };
                // INVARIANT: A ring of one.
                self.first = Some(folio.0 .0);
            }
            Some(first) => {
                // SAFETY: `first` is alive and in the ring, and before the first of a ring is its
                // end. An isolated folio's `lru` is unused.
                unsafe {
                    bindings::list_add_tail(folio.lru(), bindings::folio_lru(first.as_ptr()))
                };
            }
        }
    }

    /// Removes the first folio.
    #[inline]
    pub fn pop(&mut self) -> Option<IsolatedFolio> {
        let first = self.first?;
        // SAFETY: By the invariant `first` is in a ring of folios.
        let (lru, next) = unsafe {
            let lru = bindings::folio_lru(first.as_ptr());
            (lru, (*lru).next)
        };

        // INVARIANT: The rest of the ring, if there is one.
        self.first = if next == lru {
            None
        } else {
            // SAFETY: Everything in the ring is a folio's `lru`.
            NonNull::new(unsafe { bindings::lru_folio(next) })
        };
        // SAFETY: `first` is in a ring.
        unsafe { bindings::list_del(lru) };
        // INVARIANT: What the list owned of the folio is the new object's, and `lru` is unused.
        Some(IsolatedFolio(LockedFolio(first)))
    }

    /// Appends all of `other`.
    #[inline]
    pub fn append(&mut self, other: Self) {
        let other = ManuallyDrop::new(other).first;
        let (Some(first), Some(second)) = (self.first, other) else {
            // INVARIANT: What is not empty of the two is a ring, and owned by `self` from here on.
            self.first = self.first.or(other);
            return;
        };

        // SAFETY: Both are in rings, different ones, that nobody else changes: those of the lists.
        // Before the first of a ring is its end. Each ring's end is linked to the other's begin.
        unsafe {
            let first = bindings::folio_lru(first.as_ptr());
            let second = bindings::folio_lru(second.as_ptr());
            let (first_end, second_end) = ((*first).prev, (*second).prev);

            (*first_end).next = second;
            (*second).prev = first_end;
            (*second_end).next = first;
            (*first).prev = second_end;
        }
    }

    /// Takes locked folios off the LRU and appends them: `folio_isolate_lru()` of each, in one hold
    /// of the LRU lock as long as the LRU is the same.
    ///
    /// Context: interrupts enabled.
    ///
    /// # Errors
    ///
    /// Gives back the first folio that is not on the LRU. Those behind it stay in `folios`.
    #[inline]
    pub(super) fn isolate(
        &mut self,
        folios: &mut impl Iterator<Item = LockedFolio>,
    ) -> Result<(), LockedFolio> {
        // SAFETY: No preconditions. Releasing the LRU lock enables interrupts, whatever they were,
        // and within the page-cache lock they have to stay disabled.
        unsafe { bindings::lockdep_assert_irqs_enabled() };
        let mut lock = LruLock::new();

        for folio in folios {
            self.push(lock.isolate(folio)?);
        }
        Ok(())
    }

    /// Frees what the file system has attached to the folios: `filemap_release_folio()` of each.
    /// Returns those from the first one on that it does not let go of.
    ///
    /// Context: may sleep if `gfp` allows it.
    #[inline]
    pub(super) fn release_private(&mut self, gfp: alloc::Flags) -> Self {
        // SAFETY: The folio is alive and locked.
        let kept = self.iter().position(|folio| unsafe {
            !bindings::filemap_release_folio(folio.as_raw(), gfp.as_raw())
        });

        kept.map_or_else(Self::new, |n| self.split_off(n))
    }

    /// Removes the folios from all page tables, mlocked or not, one after the other:
    /// `try_to_unmap()`. Returns those behind the first one after which `go_on` says no,
    /// which stay mapped.
    ///
    /// Dirty bits found there move to the folios. It may fail, and then a folio's reference count
    /// tells. CPUs may go on using the old translations until `batch` is flushed.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem`, once for all of them.
    ///
    /// # Safety
    ///
    /// The caller must keep the folios in a list of its own until it has flushed `batch`.
    ///
    /// # Panics
    ///
    /// If a folio that is mapped is not in `mapping`, or is as large as what a PMD maps.
    pub(super) unsafe fn unmap(
        &mut self,
        mapping: &AddressSpace,
        _batch: &mut UnmapBatch,
        mut go_on: impl FnMut(&Folio) -> bool,
    ) -> Self {
        let flags = bindings::ttu_flags_TTU_IGNORE_MLOCK
            | bindings::ttu_flags_TTU_BATCH_FLUSH
            | bindings::ttu_flags_TTU_RMAP_LOCKED;
        let mut i_mmap = None;
        let last = self.iter().position(|folio| {
            if folio.is_mapped() {
                assert!(folio.is_placed_in(mapping) && !folio.is_pmd_order());
                i_mmap.get_or_insert_with(|| IMmapReadGuard::new(mapping));
                // SAFETY: The folio is alive and locked, and the `i_mmap_rwsem` of its mapping is
                // held. No PMD maps it, as it is too small, so that there is none to be split. The
                // caller sees to the flush.
                unsafe { bindings::try_to_unmap(folio.as_raw(), flags) };
            }
            !go_on(folio)
        });

        last.map_or_else(Self::new, |n| self.split_off(n + 1))
    }

    /// Removes and returns all but the first `len` folios.
    fn split_off(&mut self, len: usize) -> Self {
        let mut rest = core::mem::take(self);

        for folio in core::iter::from_fn(|| rest.pop()).take(len) {
            self.push(folio);
        }
        rest
    }

    /// Gives the folios up for good, after another one has taken their place in the page cache.
    /// They are no longer counted in `stats`.
    ///
    /// # Safety
    ///
    /// The folios must have been replaced in the page cache, its references must have become the
    /// caller's, and they must still be counted in `stats`.
    pub(super) unsafe fn free_replaced(self, stats: &[NodeStat]) {
        let mut refs = [0; bindings::FOLIO_BATCH_SIZE as usize];
        let list = ManuallyDrop::new(self);
        // It has gone on from a folio before that one is freed, and does not go back to it.
        let mut folios = list.iter();

        while folios.next.is_some() {
            let mut batch = MaybeUninit::uninit();
            // SAFETY: `batch` is valid for a write.
            unsafe { bindings::folio_batch_init(batch.as_mut_ptr()) };
            let mut run = StatRun::new(stats);

            for (refs, folio) in refs.iter_mut().zip(folios.by_ref()) {
                let raw = folio.as_raw();
                let nr_pages = folio.nr_pages();

                run.sub(folio, nr_pages);
                // SAFETY: The folio is alive, off the LRU, and in no page cache any more. Who has
                // found it there before, without a lock, looks at its place again; the folio lock,
                // which we own, is what it takes to change that. The flags are changed atomically.
                unsafe {
                    bindings::folio_clear_mapping(raw);
                    bindings::folio_clear_active(raw);
                    bindings::folio_clear_unevictable(raw);
                }
                // SAFETY: The list owned the folio lock.
                unsafe { bindings::folio_unlock(raw) };
                // A reference from when it was locked, the isolation's, and those of the page
                // cache.
                *refs = 2 + nr_pages as c_uint;
                // SAFETY: Initialized above, and `refs` has as many elements as there is room.
                unsafe { bindings::folio_batch_add(batch.as_mut_ptr(), raw) };
            }
            drop(run);
            // SAFETY: `batch` holds folios, of whose references those in `refs` are ours: the
            // list's, which is not used again but for those behind them, and what the caller
            // handed over.
            unsafe { bindings::folios_put_refs(batch.as_mut_ptr(), refs.as_mut_ptr()) };
        }
    }

    /// Looks at the folios in order.
    #[inline]
    pub fn iter(&self) -> FolioListIter<'_> {
        // INVARIANT: Begins with the first one.
        FolioListIter {
            first: self.first,
            next: self.first,
            _list: PhantomData,
        }
    }
}

impl Default for FolioList {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for FolioList {
    #[inline]
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// Takes folios out of counters, those that follow one another in the same node and memcg at once.
struct StatRun<'a> {
    stats: &'a [NodeStat],
    last: Option<&'a Folio>,
    pages: isize,
}

impl<'a> StatRun<'a> {
    #[inline]
    fn new(stats: &'a [NodeStat]) -> Self {
        Self {
            stats,
            last: None,
            pages: 0,
        }
    }

    #[inline]
    fn sub(&mut self, folio: &'a Folio, pages: usize) {
        // SAFETY: Both folios are alive.
        let same =
            |last: &Folio| unsafe { bindings::folio_same_lruvec(last.as_raw(), folio.as_raw()) };

        if !self.last.is_some_and(same) {
            self.settle();
        }
        self.last = Some(folio);
        self.pages += pages as isize;
    }

    #[inline]
    fn settle(&mut self) {
        let Some(folio) = self.last.take() else {
            return;
        };
        for &stat in self.stats {
            folio.mod_stat(stat, -self.pages);
        }
        self.pages = 0;
    }
}

impl Drop for StatRun<'_> {
    #[inline]
    fn drop(&mut self) {
        self.settle();
    }
}

/// The folios of a [`FolioList`] in order.
///
/// # Invariants
///
/// `first` is the first of the list's ring, and `next` is `None` or a member of it.
pub struct FolioListIter<'a> {
    first: Option<NonNull<bindings::folio>>,
    next: Option<NonNull<bindings::folio>>,
    _list: PhantomData<&'a FolioList>,
}

impl<'a> Iterator for FolioListIter<'a> {
    type Item = &'a Folio;

    #[inline]
    fn next(&mut self) -> Option<&'a Folio> {
        let folio = self.next?;
        // SAFETY: `folio` is in a ring of folios, which nobody changes while the list is borrowed.
        let next = NonNull::new(unsafe {
            bindings::lru_folio((*bindings::folio_lru(folio.as_ptr())).next)
        });
        // INVARIANT: Behind a member of the ring is another one.
        self.next = if next == self.first { None } else { next };
        // SAFETY: The list owns a reference for as long as it is borrowed.
        Some(unsafe { Folio::from_raw(folio.as_ptr()) })
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
        mm::kunit::{drain, HeldFolio, ShmemFile},
    };

    /// Isolates the folios of these pages.
    fn isolated(file: &ShmemFile, pages: core::ops::Range<usize>) -> Result<FolioList> {
        let mut list = FolioList::new();

        for index in pages {
            let mut folio = [file.lock(index)?].into_iter();
            list.isolate(&mut folio).map_err(|_| EBUSY)?;
        }
        Ok(list)
    }

    /// The indices of a list's folios.
    fn starts<const N: usize>(list: &FolioList) -> Option<[usize; N]> {
        let mut iter = list.iter();
        let starts = [(); N].map(|()| iter.next().map(Folio::start));

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
    fn written_page_tells_what_it_is() -> Result {
        let file = ShmemFile::new(8)?;
        file.fill(5..6)?;
        let folio = file.folio(5)?;

        assert_eq!(folio.start(), 5);
        assert_eq!(folio.nr_pages(), 1);
        assert_eq!(folio.order(), 0);
        assert!(!folio.is_pmd_order());
        assert!(folio.pfn() > 0);
        assert!(folio.is_uptodate() && folio.is_dirty());
        assert!(!folio.is_under_writeback() && !folio.is_mapped());
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
    fn folio_is_in_its_own_mapping_until_it_is_truncated() -> Result {
        let file = ShmemFile::new(1)?;
        let other = ShmemFile::new(1)?;
        file.fill(0..1)?;
        let folio = file.folio(0)?;

        let locked = folio.try_lock().ok_or(EAGAIN)?;
        assert!(locked.is_in(file.mapping()) && locked.is_placed_in(file.mapping()));
        assert!(!locked.is_in(other.mapping()) && !locked.is_placed_in(other.mapping()));
        drop(locked);
        file.punch(0);
        let locked = folio.try_lock().ok_or(EAGAIN)?;
        assert!(!locked.is_in(file.mapping()) && !locked.is_placed_in(file.mapping()));
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
        let mut folios = [file.lock(0)?, file.lock(1)?, file.lock(2)?].into_iter();
        let refused = list.isolate(&mut folios).err().map(|folio| folio.start());
        let (taken, left) = (starts(&list), folios.next().map(|folio| folio.start()));
        drop((list, folios));
        // SAFETY: It was isolated above, and the reference is that of then.
        unsafe { bindings::folio_putback_lru(folio.as_raw()) };

        assert_eq!(refused, Some(1));
        assert_eq!(taken, Some([0]));
        assert_eq!(left, Some(2));
        // All of them can be had again.
        drain();
        assert_eq!(starts(&isolated(&file, 0..3)?), Some([0, 1, 2]));
        Ok(())
    }

    #[test]
    fn list_has_its_folios_in_order() -> Result {
        let file = ShmemFile::new(3)?;
        file.fill(0..3)?;

        let mut list = FolioList::new();
        assert!(list.iter().next().is_none() && list.pop().is_none());
        list = isolated(&file, 0..3)?;
        assert_eq!(starts(&list), Some([0, 1, 2]));
        let first = list.pop().ok_or(EAGAIN)?;
        assert_eq!(first.start(), 0);
        assert_eq!(starts(&list), Some([1, 2]));
        list.push(first);
        assert_eq!(starts(&list), Some([1, 2, 0]));
        let popped = [(); 4].map(|()| list.pop().map(|folio| folio.start()));
        assert!(popped == [Some(1), Some(2), Some(0), None]);
        Ok(())
    }

    #[test]
    fn lists_are_joined_and_split() -> Result {
        let file = ShmemFile::new(4)?;
        file.fill(0..4)?;

        let mut list = FolioList::new();
        list.append(FolioList::new());
        assert!(list.pop().is_none());
        list.append(isolated(&file, 0..2)?);
        list.append(FolioList::new());
        assert_eq!(starts(&list), Some([0, 1]));
        list.append(isolated(&file, 2..4)?);
        assert_eq!(starts(&list), Some([0, 1, 2, 3]));

        assert_eq!(starts(&list.split_off(4)), Some([]));
        let rest = list.split_off(1);
        assert_eq!(starts(&list), Some([0]));
        assert_eq!(starts(&rest), Some([1, 2, 3]));
        Ok(())
    }

    #[test]
    fn list_gives_all_of_its_folios_back() -> Result {
        let file = ShmemFile::new(3)?;
        file.fill(0..3)?;

        let list = isolated(&file, 0..3)?;
        let mut held = list.iter().map(HeldFolio::new);
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
