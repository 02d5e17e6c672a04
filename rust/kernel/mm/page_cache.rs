// SPDX-License-Identifier: GPL-2.0

//! The page cache of a file, and how a range of it is replaced by one folio.
//!
//! # States
//!
//! A [`Cursor`] goes over one aligned range of a file's page cache. It is consumed by each step, so
//! that there is always just one state to be in:
//!
//! ```text
//!            lock                fill_holes                expect_holes
//!   Cursor --------> LockedCursor ----------> FilledCursor ------------> CountedCursor
//!          <--------      |                        |                           |
//!            unlock       | seal_full              |                           | check_userfaultfd
//!                         v                        v                           v
//!                    SealedCursor             (rolled back)               SealedCursor
//!                         |
//!                         | commit
//!                         v
//!                     HugeFolio
//! ```
//!
//! - [`Cursor`]: the page-cache lock is not held. What a collapse does with the mapping and may
//!   sleep is a method of it, and so cannot be called on a cursor within the lock.
//! - [`LockedCursor`]: the lock is held and interrupts are off. Entries can be looked at, and what
//!   is found stays in the page cache until the lock is released.
//! - [`FilledCursor`], [`CountedCursor`]: every empty slot of the range holds `XA_RETRY_ENTRY`.
//!   Lockless readers spin on it, so it may never be seen after the lock is released: there is no
//!   way to unlock from here, and dropping the state empties the slots first.
//! - [`SealedCursor`]: nobody can have noticed a hole that is about to be filled. Only from here
//!   can the range be replaced.
//!
//! Every state rolls back to where it came from when it is dropped.
//!
//! # Examples
//!
//! ```
//! use kernel::mm::page_cache::{AddressSpace, Cursor, Entry};
//!
//! # use kernel::mm::kunit::ShmemFile;
//! # let file = ShmemFile::new(512)?;
//! # file.fill(1..2)?;
//! // All of the range are holes, except for the page at index 1.
//! let range = AddressSpace::of(&file).pmd_range(0);
//! let mut walk = range.walk();
//! let cursor = Cursor::new(&mut walk);
//!
//! let i_mmap = cursor.i_mmap_read();
//! let sealed = cursor
//!     .lock_with_slots()?
//!     .fill_holes()?
//!     .expect_holes(range.indices().len() - 1)?
//!     .check_userfaultfd(i_mmap)?;
//!
//! // Another folio could take the place of all of it now. Without one, the holes are restored.
//! drop(sealed);
//!
//! let mut locked = Cursor::new(&mut walk).lock();
//! let hole = matches!(locked.load(0), Entry::Empty);
//! let page = matches!(locked.load(1), Entry::Folio(folio) if folio.is_uptodate());
//!
//! drop(locked);
//! assert!(hole && page);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Locks
//!
//! folio lock > `i_mmap_rwsem` > page-table lock > page-cache lock (`i_pages`, interrupts off) >
//! LRU lock.
//!
//! A folio lock taken under the page-cache lock is only ever tried. To wait for one is allowed
//! while folios of lower index are locked, and not the other way round. The page-cache lock is
//! released by enabling interrupts, whatever they were before, so there is never one within
//! another.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::{
    alloc::flags::GFP_KERNEL,
    bindings,
    error::{code::*, from_err_ptr, Result},
    fs::file::LocalFile,
    mm::{
        folio::{Folio, LockedFolio, NodeStat, HPAGE_PMD_NR, HPAGE_PMD_ORDER},
        khugepaged::{
            FolioBatch,
            FullRange,
            HugeFolio,
            NewFolio,
            OldFolios,
            ReplacedFolios,
            Uptodate, //
        },
        rmap::{Flushed, IMmapReadGuard},
        shmem::{self, Charge}, //
    },
    types::Opaque,
    xarray::state::{XaEntry, XaLockIrqGuard, XaState},
};
use core::{ops::Range, ptr::NonNull};

/// The pages of a file that are in memory, and who maps them: `struct address_space`.
///
/// # Invariants
///
/// The file's inode stays alive as long as a Rust reference to this exists. Its `i_pages` holds
/// folios, values (swap entries or shadows), and `XA_RETRY_ENTRY` while the lock is held.
#[repr(transparent)]
pub struct AddressSpace(Opaque<bindings::address_space>);

impl AddressSpace {
    /// The mapping that the pages of `file` are in.
    #[inline]
    pub fn of(file: &LocalFile) -> &Self {
        // SAFETY: An open file has a mapping from when it is opened. The file keeps it alive, with
        // the inode that it is of.
        unsafe { &*bindings::file_mapping(file.as_ptr()).cast() }
    }

    /// The mapping that the pages of `file` are in, if that is a regular file.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is anything else: a directory, a device, a pipe.
    #[inline]
    pub fn of_regular(file: &LocalFile) -> Result<&Self> {
        // SAFETY: An open file has an inode, whose type does not change.
        if unsafe { bindings::file_is_regular(file.as_ptr()) } {
            Ok(Self::of(file))
        } else {
            Err(EINVAL)
        }
    }

    /// The C object.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::address_space {
        self.0.get()
    }

    /// The inode.
    #[inline]
    pub(super) fn host(&self) -> *mut bindings::inode {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::mapping_host(self.as_raw()) }
    }

    /// Whether it is shared memory: `shmem_mapping()`.
    #[inline]
    pub fn is_shmem(&self) -> bool {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::shmem_mapping(self.as_raw()) }
    }

    /// Whether the file system can have folios of PMD size: `mapping_pmd_folio_support()`.
    #[inline]
    pub fn supports_pmd_folios(&self) -> bool {
        // SAFETY: The mapping is alive by the type invariant.
        unsafe { bindings::mapping_pmd_folio_support(self.as_raw()) }
    }

    /// The [`HPAGE_PMD_NR`] pages from `start` on.
    ///
    /// # Panics
    ///
    /// If `start` is not a multiple of that, or the pages would go beyond what can be counted.
    #[inline]
    pub fn pmd_range(&self, start: usize) -> PmdRange<'_> {
        assert!(start % HPAGE_PMD_NR == 0 && start < usize::MAX - HPAGE_PMD_NR);
        // INVARIANT: By the check above.
        PmdRange {
            mapping: self,
            start,
        }
    }

    /// Corrects the number of pages for `pages` that were counted but will not come.
    ///
    /// Takes the page-cache lock.
    #[inline]
    pub(super) fn sub_nrpages(&self, pages: usize) {
        let mut walk = self.pmd_range(0).walk();
        let _guard = walk.state.lock_irq();

        // SAFETY: The mapping is alive and its lock is held.
        unsafe { bindings::mapping_sub_nrpages(self.as_raw(), pages) };
    }
}

/// The [`HPAGE_PMD_NR`] pages of a file that one PMD can map.
///
/// # Invariants
///
/// `start` is a multiple of [`HPAGE_PMD_NR`], and so far from the largest number that the end of
/// the range is one, too.
#[derive(Clone, Copy)]
pub struct PmdRange<'m> {
    mapping: &'m AddressSpace,
    start: usize,
}

impl<'m> PmdRange<'m> {
    /// The file's mapping.
    #[inline]
    pub fn mapping(self) -> &'m AddressSpace {
        self.mapping
    }

    /// The index of the first page.
    #[inline]
    pub fn start(self) -> usize {
        self.start
    }

    /// The index behind the last page.
    #[inline]
    pub fn end(self) -> usize {
        self.start + HPAGE_PMD_NR
    }

    /// The indices of the pages.
    #[inline]
    pub fn indices(self) -> Range<usize> {
        self.start..self.end()
    }

    /// Makes a walk over the range, for [`Cursor::new`].
    #[inline]
    pub fn walk(self) -> Walk<'m> {
        let mapping = self.mapping.as_raw();

        // SAFETY: `i_pages` is initialized, lives with the mapping, and has `XA_FLAGS_LOCK_IRQ`
        // set. What is stored through the cursor is stored by this module, which keeps to what the
        // page cache wants, and the callback is set below.
        let mut state = unsafe { XaState::new(bindings::mapping_i_pages(mapping), self.start, 0) };
        // SAFETY: Both are alive. Without this, nodes that are freed would stay on the list of
        // those that hold nothing but shadows.
        unsafe { bindings::mapping_set_update(state.as_raw(), mapping) };
        // INVARIANT: Made for this mapping just now.
        Walk { state, range: self }
    }
}

impl PartialEq for PmdRange<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.mapping, other.mapping) && self.start == other.start
    }
}

/// Where a [`Cursor`] keeps its place: on the stack of its user, as the cursor itself is handed
/// from state to state.
///
/// # Invariants
///
/// `state` is over the pages of `range`'s mapping.
pub struct Walk<'m> {
    state: XaState<'m>,
    range: PmdRange<'m>,
}

/// What the page cache holds at an index.
pub enum Entry<'a> {
    /// Nothing.
    Empty,
    /// No page: where shmem has swapped one out to, or the shadow of one that was reclaimed.
    Value,
    /// A folio. It may have begun at a lower index.
    Folio(&'a Folio),
}

/// Goes over a range of a file's page cache; the page-cache lock is not held.
///
/// # Invariants
///
/// `state` is over the pages of `range`'s mapping.
pub struct Cursor<'w, 'm> {
    state: &'w mut XaState<'m>,
    range: PmdRange<'m>,
}

impl<'w, 'm> Cursor<'w, 'm> {
    /// Begins at the start of the range.
    #[inline]
    pub fn new(walk: &'w mut Walk<'m>) -> Self {
        // INVARIANT: By that of the walk.
        Self {
            state: &mut walk.state,
            range: walk.range,
        }
    }

    /// Takes the page-cache lock.
    #[inline]
    pub fn lock(self) -> LockedCursor<'w, 'm> {
        let mut guard = self.state.lock_irq();

        // A walk that was for the whole range at once may be used again.
        guard.set_order(self.range.start, 0);
        // INVARIANT: For single entries, of the range's mapping by the cursor's invariant.
        LockedCursor {
            guard,
            range: self.range,
        }
    }

    /// Takes the page-cache lock with slots allocated for the whole range, so that stores to it
    /// succeed as long as the lock is held: `xas_create_range()`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    #[inline]
    pub fn lock_with_slots(mut self) -> Result<LockedCursor<'w, 'm>> {
        loop {
            let mut locked = self.lock();

            locked.guard.set_order(locked.range.start, HPAGE_PMD_ORDER);
            if locked.guard.create_range().is_ok() {
                return Ok(locked);
            }
            self = locked.unlock();
            self.state.nomem(GFP_KERNEL)?;
        }
    }

    /// Where it goes.
    #[inline]
    pub(super) fn range(&self) -> PmdRange<'m> {
        self.range
    }

    /// Keeps the file's mappings from changing.
    #[inline]
    pub fn i_mmap_read(&self) -> IMmapReadGuard<'m> {
        IMmapReadGuard::new(self.range.mapping)
    }

    /// Charges the file for `holes` pages that are about to be added: `shmem_charge()`.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if a limit forbids it, [`EINVAL`] if the file is not shmem.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::mm::{kunit::ShmemFile, page_cache::{AddressSpace, Cursor}};
    /// # let file = ShmemFile::new(512)?;
    /// let mut walk = AddressSpace::of(&file).pmd_range(0).walk();
    /// let cursor = Cursor::new(&mut walk);
    /// let charge = cursor.charge_holes(3)?;
    ///
    /// # assert_eq!(file.pages(), 3);
    /// // Nothing comes of it, and the charge is given back.
    /// drop(charge);
    /// # assert_eq!(file.pages(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn charge_holes(&self, holes: usize) -> Result<Charge<'m>> {
        Charge::new(self.range.mapping, holes)
    }

    /// Finds the folio at `index` of a shmem file, swaps it in or fills it with zeroes if need be,
    /// and locks it: `shmem_get_folio(SGP_NOALLOC)`. The folio may begin before `index`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the file is not shmem or ends before `index`, [`ENOENT`] for a hole, and what
    /// swapping in can fail with.
    #[inline]
    pub fn shmem_get_folio(&self, index: usize) -> Result<LockedFolio> {
        shmem::get_folio(self.range.mapping, index)
    }

    /// Reads `nr_pages` pages from `index` on, if they are missing, and as the file's readahead
    /// thinks best: `page_cache_sync_readahead()`. What cannot be read so, a directory for one, is
    /// left alone.
    ///
    /// # Panics
    ///
    /// If the mapping is not that of `file`, or `nr_pages` are none or more than the range has.
    #[inline]
    pub fn readahead(&self, file: &LocalFile, index: usize, nr_pages: usize) {
        let mapping = self.range.mapping;

        assert!(core::ptr::eq(AddressSpace::of(file), mapping));
        assert!((1..=HPAGE_PMD_NR).contains(&nr_pages));
        // SAFETY: The mapping is alive.
        if !unsafe { bindings::mapping_can_read_folios(mapping.as_raw()) } {
            return;
        }
        // SAFETY: The file and its mapping are alive, which has a function to read folios.
        // Concurrent use of a file's readahead state is allowed: it is a hint.
        unsafe {
            bindings::page_cache_sync_readahead(
                mapping.as_raw(),
                bindings::file_ra(file.as_ptr()),
                file.as_ptr(),
                index,
                nr_pages,
            )
        };
    }

    /// Finds and locks the folio at `index`: `filemap_lock_folio()`.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is none.
    #[inline]
    pub fn filemap_lock_folio(&self, index: usize) -> Result<LockedFolio> {
        // SAFETY: The mapping is alive.
        let folio = from_err_ptr(unsafe {
            bindings::filemap_lock_folio(self.range.mapping.as_raw(), index)
        })?;
        let folio = NonNull::new(folio).ok_or(ENOENT)?;
        // SAFETY: The folio comes locked and with a reference, for us.
        Ok(unsafe { LockedFolio::from_raw(folio) })
    }

    /// Whether somebody has the file open for writing: `inode_is_open_for_write()`.
    #[inline]
    pub fn is_open_for_write(&self) -> bool {
        // SAFETY: The inode is alive.
        unsafe { bindings::inode_is_open_for_write(self.range.mapping.host()) }
    }

    /// Starts to write the file's dirty pages, without waiting: `filemap_flush()`.
    #[inline]
    pub fn filemap_flush(&self) {
        // SAFETY: The mapping is alive. An error is kept in the mapping for who asks for it.
        unsafe { bindings::filemap_flush(self.range.mapping.as_raw()) };
    }
}

/// A cursor within the page-cache lock; interrupts are off.
///
/// Dropping it releases the lock.
///
/// # Invariants
///
/// `guard` is that of the pages of `range`'s mapping, and for single entries, so that what it loads
/// is an entry and not a node.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct LockedCursor<'w, 'm> {
    pub(super) guard: XaLockIrqGuard<'w, 'm>,
    range: PmdRange<'m>,
}

impl<'w, 'm> LockedCursor<'w, 'm> {
    /// Releases the page-cache lock.
    #[inline]
    pub fn unlock(self) -> Cursor<'w, 'm> {
        // INVARIANT: By that of the locked cursor.
        Cursor {
            state: self.guard.unlock(),
            range: self.range,
        }
    }

    /// What `entry` is.
    ///
    /// # Safety
    ///
    /// `entry` must be what the guard has found since the lock was taken, and not have been
    /// replaced since.
    #[inline]
    pub(super) unsafe fn entry(&self, entry: XaEntry) -> Entry<'_> {
        if entry.is_empty() {
            Entry::Empty
        } else if entry.is_value() {
            Entry::Value
        } else {
            // SAFETY: The pointers in a page cache are folios, with retry entries only while
            // somebody else holds the lock. The page cache has a reference to them, which it keeps
            // as long as the lock, and so the cursor's borrow, is held.
            Entry::Folio(unsafe { Folio::from_raw(entry.as_ptr().cast()) })
        }
    }

    /// Looks at `index`: `xas_load()`.
    #[inline]
    pub fn load(&mut self, index: usize) -> Entry<'_> {
        let entry = self.guard.load_at(index);

        // SAFETY: Found just now.
        unsafe { self.entry(entry) }
    }

    /// Adds to `batch` what comes behind it in the range: folios that can be locked at once and
    /// that are `wanted`, and holes if the file is shmem, up to the first entry that is neither.
    #[inline]
    pub fn extend(&mut self, batch: &mut FolioBatch<'_>, wanted: impl Fn(&Folio) -> bool) {
        let is_shmem = self.range.mapping.is_shmem();
        let end = self.range.end();

        while let Some(index) = batch.next().filter(|&index| index < end) {
            match self.load(index) {
                Entry::Empty if is_shmem => batch.add_hole(),
                Entry::Folio(folio) if folio.start() == index && wanted(folio) => {
                    let Some(folio) = folio.try_lock() else {
                        return;
                    };
                    batch.push(folio);
                }
                _ => return,
            }
        }
    }

    /// Whether nothing is left between the index last loaded, which was empty, and the end of the
    /// range.
    #[inline]
    pub fn rest_is_empty(&mut self) -> bool {
        self.guard.next_entry(self.range.end() - 1).is_empty()
    }

    /// Declares a range without holes ready to be replaced.
    ///
    /// # Panics
    ///
    /// If `full` is about another range.
    #[inline]
    pub fn seal_full(self, full: FullRange<'_, '_>) -> SealedCursor<'w, 'm> {
        assert!(full.is_of(self.range));
        // INVARIANT: No slot was filled, and by the witness none is empty.
        SealedCursor(FilledCursor {
            _hold: LastHold::begin(&self),
            locked: self,
            holes: 0,
        })
    }

    /// Stores `XA_RETRY_ENTRY` in every empty slot of the range: from now on no lockless reader
    /// comes back with the news of a hole.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if a slot is missing and cannot be allocated; everything is as before then, and
    /// the lock released.
    #[inline]
    pub fn fill_holes(mut self) -> Result<FilledCursor<'w, 'm>> {
        self.guard.set(self.range.start);
        // INVARIANT: Nothing is filled yet, and each store is counted.
        let mut filled = FilledCursor {
            _hold: LastHold::begin(&self),
            locked: self,
            holes: 0,
        };

        for _ in filled.locked.range.indices() {
            if !filled.locked.guard.next_slot().is_empty() {
                continue;
            }
            // SAFETY: The slot is empty. `FilledCursor` stores to it again before it lets go of
            // the lock.
            unsafe { filled.locked.guard.store_retry()? };
            filled.holes += 1;
        }
        Ok(filled)
    }
}

/// A locked cursor whose range has no empty slot: where one was, `XA_RETRY_ENTRY` is.
///
/// Dropping it empties these slots again, then releases the lock.
///
/// # Invariants
///
/// `holes` slots of the range hold `XA_RETRY_ENTRY`, and were empty before.
#[must_use = "the holes are restored as soon as this is dropped"]
pub struct FilledCursor<'w, 'm> {
    // Ends within the lock, so it comes before it.
    _hold: LastHold,
    locked: LockedCursor<'w, 'm>,
    holes: usize,
}

impl<'w, 'm> FilledCursor<'w, 'm> {
    /// Checks that the number of holes is still what it was when they were counted first.
    ///
    /// # Errors
    ///
    /// [`EAGAIN`] if not: a page was added or removed meanwhile.
    #[inline]
    pub fn expect_holes(self, holes: usize) -> Result<CountedCursor<'w, 'm>> {
        if self.holes == holes {
            Ok(CountedCursor(self))
        } else {
            Err(EAGAIN)
        }
    }
}

impl Drop for FilledCursor<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if self.holes == 0 {
            return;
        }
        let range = self.locked.range.indices();
        let guard = &mut self.locked.guard;

        guard.set(range.start);
        for _ in range {
            if guard.next_slot().is_retry() {
                // SAFETY: A retry entry owns nothing.
                unsafe { guard.store_empty() };
            }
        }
    }
}

/// How long the page-cache lock is held to replace a range, for `CONFIG_COLLAPSE_FILE_STATS`.
///
/// It is counted when this is dropped. Context: the lock is still held.
struct LastHold {
    #[cfg(CONFIG_COLLAPSE_FILE_STATS)]
    begin: u64,
}

impl LastHold {
    #[inline]
    fn begin(_: &LockedCursor<'_, '_>) -> Self {
        Self {
            // SAFETY: Reads a clock.
            #[cfg(CONFIG_COLLAPSE_FILE_STATS)]
            begin: unsafe { bindings::collapse_file_hold_begin() },
        }
    }
}

#[cfg(CONFIG_COLLAPSE_FILE_STATS)]
impl Drop for LastHold {
    #[inline]
    fn drop(&mut self) {
        let rust = bindings::collapse_file_impl_COLLAPSE_FILE_RUST;

        // SAFETY: Reads a clock and adds to a counter, which `rust` has.
        unsafe { bindings::collapse_file_hold_end(rust, self.begin) };
    }
}

/// A filled cursor that found as many holes as there were to be.
#[must_use = "the holes are restored as soon as this is dropped"]
pub struct CountedCursor<'w, 'm>(FilledCursor<'w, 'm>);

impl<'w, 'm> CountedCursor<'w, 'm> {
    /// Checks that no userfaultfd waits for missing pages of the range, in any VMA of any process.
    ///
    /// If one is registered after the holes were filled, nobody has observed a missing page since:
    /// it is as if the range had been replaced before. A userfaultfd for write-protect or minor
    /// faults is promised nothing about missing pages.
    ///
    /// The mappings cannot change while `i_mmap` is held, which is released here.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is one.
    ///
    /// # Panics
    ///
    /// If `i_mmap` is of another mapping.
    #[inline]
    pub fn check_userfaultfd(self, i_mmap: IMmapReadGuard<'m>) -> Result<SealedCursor<'w, 'm>> {
        let range = self.0.locked.range;
        assert!(core::ptr::eq(i_mmap.mapping(), range.mapping));
        let mut vmas = i_mmap.vmas(range.indices());

        if vmas.any(|vma| vma.userfaultfd_missing()) {
            Err(EBUSY)
        } else {
            Ok(SealedCursor(self.0))
        }
    }
}

/// A locked cursor whose range can be replaced: it has no holes, or nobody can have noticed them.
///
/// Dropping it empties the slots that were filled, then releases the lock.
#[must_use = "the holes are restored as soon as this is dropped"]
pub struct SealedCursor<'w, 'm>(FilledCursor<'w, 'm>);

impl<'m> SealedCursor<'_, 'm> {
    /// Puts `new` in the place of all that the range holds, in one store, and releases the lock.
    ///
    /// `charge` is for the holes of the range, and `old` are its folios.
    ///
    /// # Panics
    ///
    /// If `new`, `charge` and `old` are not all for this range.
    #[inline]
    pub fn commit(
        mut self,
        new: NewFolio<'m, Uptodate>,
        charge: Charge<'m>,
        old: OldFolios<'m, Flushed>,
    ) -> (HugeFolio<'m>, ReplacedFolios) {
        let holes = self.0.holes;
        let LockedCursor { guard, range } = &mut self.0.locked;
        let mapping = range.mapping;
        // There is one collapse at a time, but no type says that these belong to the same.
        assert!(
            new.range() == *range && charge.is_for(mapping, holes) && old.make_up(*range, holes)
        );
        let folio = new.folio();
        let pages = HPAGE_PMD_NR as isize;

        if mapping.is_shmem() {
            folio.mod_stat(NodeStat::Shmem, pages);
            folio.mod_stat(NodeStat::ShmemThps, pages);
        } else {
            folio.mod_stat(NodeStat::FileThps, pages);
        }
        folio.mod_stat(NodeStat::FilePages, pages);

        // The page cache wants a reference for each page; the one from the allocation is the first.
        //
        // SAFETY: The folio is alive.
        unsafe { bindings::folio_ref_add(folio.as_raw(), HPAGE_PMD_NR as i32 - 1) };
        if mapping.is_shmem() {
            // SAFETY: The folio is alive and locked. For shmem this sets a flag and takes no lock.
            unsafe { bindings::folio_mark_dirty(folio.as_raw()) };
        }
        // SAFETY: The folio is alive and not on an LRU. The LRU lock nests in the page-cache lock.
        unsafe { bindings::folio_add_lru(folio.as_raw()) };

        // For the one store that is left; taking the lock again undoes it.
        guard.set_order(range.start, HPAGE_PMD_ORDER);
        // SAFETY: The folio is locked, uptodate, of this mapping and at this index, by its type and
        // the check above, and comes with the references that the page cache wants. Those to the
        // old folios go to the list that holds these.
        let stored = unsafe { guard.store(folio.as_raw().cast()) };
        // Every slot holds something, so that nothing had to be allocated.
        assert!(stored.is_ok());

        // INVARIANT: The store has replaced the retry entries.
        self.0.holes = 0;
        // The rest wants no lock: what follows is about objects that are ours.
        drop(self);
        charge.commit();
        // SAFETY: The store above has replaced all that the range held: retry entries and, as
        // their pages make up the rest of it, exactly these folios.
        let replaced = unsafe { old.into_replaced() };
        // SAFETY: Stored above, with the references that it has got for that.
        (unsafe { new.into_inserted() }, replaced)
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_page_cache)]
mod tests {
    // What is looked at within the page-cache lock is judged without it: a test that fails ends its
    // thread. Commits are tested in `khugepaged`.

    use super::*;
    use crate::{
        error::Error,
        mm::{
            khugepaged::FolioSlots,
            kunit::{directory, ShmemFile}, //
        },
        xarray::kunit::IrqArray,
    };

    const LAST: usize = HPAGE_PMD_NR - 1;

    /// How many slots of the range are empty, and how many hold an entry to retry on.
    fn slots(guard: &mut XaLockIrqGuard<'_, '_>, range: PmdRange<'_>) -> (usize, usize) {
        let (mut empty, mut retry) = (0, 0);

        guard.set(range.start());
        for _ in range.indices() {
            let entry = guard.next_slot();
            empty += usize::from(entry.is_empty());
            retry += usize::from(entry.is_retry());
        }
        (empty, retry)
    }

    /// The same, of a range that nobody has locked.
    fn slots_of(range: PmdRange<'_>) -> (usize, usize) {
        let mut walk = range.walk();
        let mut locked = Cursor::new(&mut walk).lock();

        slots(&mut locked.guard, range)
    }

    /// Goes all the way to where `range` could be replaced, and back.
    fn seal(range: PmdRange<'_>, holes: usize) -> Result {
        let mut walk = range.walk();
        let cursor = Cursor::new(&mut walk);
        let i_mmap = cursor.i_mmap_read();

        let sealed = cursor
            .lock_with_slots()?
            .fill_holes()?
            .expect_holes(holes)?
            .check_userfaultfd(i_mmap)?;

        drop(sealed);
        Ok(())
    }

    /// A file of two ranges, of which the first has three pages: at its ends, and one between.
    fn file_with_holes() -> Result<ShmemFile> {
        let file = ShmemFile::new(2 * HPAGE_PMD_NR)?;

        file.fill(0..1)?;
        file.fill(70..71)?;
        file.fill(LAST..HPAGE_PMD_NR)?;
        Ok(file)
    }

    const HOLES: usize = HPAGE_PMD_NR - 3;

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

        assert!(!AddressSpace::of(&directory).is_shmem());
        assert_eq!(AddressSpace::of_regular(&directory).err(), Some(EINVAL));
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
    fn entries_are_told_apart() -> Result {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut locked = Cursor::new(&mut walk).lock_with_slots()?;

        let empty = [1, 69, 71, LAST - 1].map(|index| matches!(locked.load(index), Entry::Empty));
        let starts = [0, 70, LAST].map(|index| match locked.load(index) {
            Entry::Folio(folio) => Some(folio.start()),
            _ => None,
        });
        locked.guard.set(3);
        // SAFETY: A number, as shmem has it for what is swapped out. It is taken out again before
        // anybody else looks.
        let stored = unsafe { locked.guard.store(IrqArray::value(5)) };
        let value = matches!(locked.load(3), Entry::Value);
        locked.guard.set(3);
        // SAFETY: The number owns nothing.
        unsafe { locked.guard.store_empty() };
        let gone = matches!(locked.load(3), Entry::Empty);
        drop(locked);

        stored?;
        assert!(empty == [true; 4]);
        assert!(starts == [Some(0), Some(70), Some(LAST)]);
        assert!(value && gone);
        Ok(())
    }

    #[test]
    fn rest_begins_behind_the_hole_last_loaded() -> Result {
        let file = file_with_holes()?;
        file.punch(LAST);
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut locked = Cursor::new(&mut walk).lock();

        locked.load(1);
        let before = locked.rest_is_empty();
        locked.load(71);
        let behind = locked.rest_is_empty();
        drop(locked);
        // A page behind the range is none of its rest.
        file.fill(HPAGE_PMD_NR..HPAGE_PMD_NR + 1)?;
        let mut locked = Cursor::new(&mut walk).lock();
        locked.load(71);
        let next_range = locked.rest_is_empty();
        drop(locked);

        assert!(!before && behind && next_range);
        Ok(())
    }

    #[test]
    fn lock_is_released_and_taken_again() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut cursor = Cursor::new(&mut walk);

        for _ in 0..2 {
            cursor = cursor.lock().unlock();
            // This would wait for ever.
            assert_eq!(slots_of(range), (HOLES, 0));
        }
        Ok(())
    }

    #[test]
    fn filled_range_has_no_empty_slot() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();

        let mut filled = Cursor::new(&mut walk).lock_with_slots()?.fill_holes()?;
        let holes = filled.holes;
        let within = slots(&mut filled.locked.guard, range);
        let behind = filled.locked.guard.load_at(range.end());
        let page = matches!(filled.locked.load(70), Entry::Folio(_));
        drop(filled);

        assert_eq!(holes, HOLES);
        assert_eq!(within, (0, HOLES));
        assert!(behind.is_empty() && page);
        Ok(())
    }

    #[test]
    fn dropped_filled_cursor_restores_the_holes() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();

        drop(Cursor::new(&mut walk).lock_with_slots()?.fill_holes()?);
        assert_eq!(slots_of(range), (HOLES, 0));
        for index in [0, 70, LAST] {
            assert_eq!(file.content(index)?, ShmemFile::byte(index));
        }
        Ok(())
    }

    #[test]
    fn wrong_number_of_holes_restores_them() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);

        for wrong in [0, HOLES - 1, HOLES + 1] {
            assert_eq!(seal(range, wrong).err(), Some(EAGAIN));
            assert_eq!(slots_of(range), (HOLES, 0));
        }
        Ok(())
    }

    #[test]
    fn dropped_counted_cursor_restores_the_holes() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();

        let filled = Cursor::new(&mut walk).lock_with_slots()?.fill_holes()?;
        drop(filled.expect_holes(HOLES)?);
        assert_eq!(slots_of(range), (HOLES, 0));
        Ok(())
    }

    #[test]
    fn sealed_without_a_vma_and_dropped_restores_the_holes() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);

        seal(range, HOLES)?;
        assert_eq!(slots_of(range), (HOLES, 0));
        Ok(())
    }

    #[test]
    fn range_of_holes_is_filled_and_restored() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(HPAGE_PMD_NR);

        seal(range, HPAGE_PMD_NR)?;
        assert_eq!(slots_of(range), (HPAGE_PMD_NR, 0));
        Ok(())
    }

    #[test]
    fn vma_without_userfaultfd_does_not_matter() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let _mapped = file.map(0..HPAGE_PMD_NR)?;

        seal(range, HOLES)?;
        assert_eq!(slots_of(range), (HOLES, 0));
        Ok(())
    }

    #[cfg(CONFIG_USERFAULTFD)]
    #[test]
    fn userfaultfd_that_waits_restores_the_holes() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        // The one that waits is neither the first nor the only one.
        let _first = file.map(0..HPAGE_PMD_NR)?;
        let mapped = file.map(LAST..HPAGE_PMD_NR + 1)?;

        mapped.wait_for_missing(true);
        assert_eq!(seal(range, HOLES).err(), Some(EBUSY));
        assert_eq!(slots_of(range), (HOLES, 0));
        mapped.wait_for_missing(false);
        seal(range, HOLES)?;
        Ok(())
    }

    #[cfg(CONFIG_USERFAULTFD)]
    #[test]
    fn userfaultfd_beside_the_range_does_not_matter() -> Result {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let next = file.mapping().pmd_range(HPAGE_PMD_NR);

        // It begins exactly where the range ends.
        let mapped = file.map(HPAGE_PMD_NR..HPAGE_PMD_NR + 1)?;
        mapped.wait_for_missing(true);
        seal(range, HOLES)?;
        assert_eq!(seal(next, HPAGE_PMD_NR).err(), Some(EBUSY));
        drop(mapped);
        // It ends exactly where the range begins.
        let mapped = file.map(LAST..HPAGE_PMD_NR)?;
        mapped.wait_for_missing(true);
        seal(next, HPAGE_PMD_NR)?;
        assert_eq!(seal(range, HOLES).err(), Some(EBUSY));
        Ok(())
    }

    #[test]
    fn batch_goes_on_over_folios_and_holes() -> Result {
        let file = ShmemFile::new(HPAGE_PMD_NR)?;
        file.fill(0..3)?;
        file.fill(4..5)?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut slots = FolioSlots::new();
        let mut ends = |wanted: &dyn Fn(&Folio) -> bool| {
            let first = file.lock(0)?;
            let mut locked = Cursor::new(&mut walk).lock();
            let mut batch = FolioBatch::new(&mut slots, 0, first);
            locked.extend(&mut batch, wanted);
            drop(locked);
            Ok::<_, Error>(batch.next())
        };

        // As far as the range goes; to what is not wanted; to what somebody has locked.
        assert_eq!(ends(&|_| true), Ok(Some(range.end())));
        assert_eq!(ends(&|folio| folio.start() != 4), Ok(Some(4)));
        let locked = file.lock(1)?;
        assert_eq!(ends(&|_| true), Ok(Some(1)));
        drop(locked);
        // The batches have unlocked them.
        assert!([0, 1, 2, 4].iter().all(|&index| file.folio(index).is_ok()));
        Ok(())
    }

    #[test]
    fn folios_are_found_locked() -> Result {
        let file = file_with_holes()?;
        let held = file.folio(70)?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let cursor = Cursor::new(&mut walk);

        let folio = cursor.filemap_lock_folio(70)?;
        assert!(folio.start() == 70 && held.is_locked());
        drop(folio);
        let folio = cursor.shmem_get_folio(70)?;
        assert!(folio.start() == 70 && held.is_locked());
        drop(folio);
        assert!(!held.is_locked());
        assert_eq!(held.ref_count(), 2);
        assert_eq!(cursor.filemap_lock_folio(71).err(), Some(ENOENT));
        assert_eq!(cursor.shmem_get_folio(71).err(), Some(ENOENT));
        Ok(())
    }

    #[test]
    fn only_shmem_has_folios_of_shmem() -> Result {
        let directory = directory()?;
        let mut walk = AddressSpace::of(&directory).pmd_range(0).walk();
        let cursor = Cursor::new(&mut walk);

        assert_eq!(cursor.shmem_get_folio(0).err(), Some(EINVAL));
        assert_eq!(cursor.charge_holes(1).err(), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn what_cannot_be_read_is_not_read_ahead() -> Result {
        let file = file_with_holes()?;
        file.want_readahead();
        let mut walk = file.mapping().pmd_range(0).walk();
        let cursor = Cursor::new(&mut walk);

        // Shmem has no function to read folios with.
        cursor.readahead(&file, 1, 1);
        assert_eq!(cursor.filemap_lock_folio(1).err(), Some(ENOENT));
        Ok(())
    }

    #[test]
    fn charge_of_a_cursor_is_the_file_s() -> Result {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let cursor = Cursor::new(&mut walk);

        let charge = cursor.charge_holes(HOLES)?;
        assert!(charge.is_for(file.mapping(), HOLES));
        assert_eq!(file.pages(), HPAGE_PMD_NR);
        drop(charge);
        assert_eq!(file.pages(), 3);
        Ok(())
    }
}
