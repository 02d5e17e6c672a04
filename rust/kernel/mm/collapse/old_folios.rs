// SPDX-License-Identifier: GPL-2.0

//! A collapse in progress: the folios that it replaces, and the states that it goes through.

use super::{batch::Batch, HugeFolio, NewFolio};
use crate::{
    alloc::{flags::GFP_KERNEL, KBox},
    error::Result as KernelResult,
    mm::{
        folio::{Folio, FolioList, HPAGE_PMD_NR},
        mapping::{AddressSpace, PmdRange},
        page_cache::Cursor,
        rmap::UnmapBatch,
        shmem::Charge, //
    },
};
use core::{marker::PhantomData, mem::MaybeUninit};

/// State of [`OldFolios`]: folios are being gathered.
///
/// CPUs may still write to the folios through their TLBs.
pub struct Gathering(());

/// State of [`OldFolios`]: no CPU has a translation any more, so the content is stable.
pub struct Flushed(());

/// State of [`OldFolios`]: the content is stable, and the file is charged for the holes.
pub struct Charged(());

/// State of [`OldFolios`]: the new folio is uptodate, with the content of the old ones.
pub struct Copied(());

/// The folios and counts of a collapse.
///
/// Dropping it flushes the TLBs, uncharges the holes, puts the old folios back, and frees the new
/// folio.
///
/// # Invariants
///
/// - `list` holds folios of `new`'s range, in index order and without overlap. `pages` is the
///   number of their pages, and `end` the index after the last one. If [`OldFolios::take()`] has
///   failed, the list may have more pages, and `end` is the end of the range.
/// - When a folio was added, it was uptodate, locked, isolated and unmapped, and had no other
///   users. If the file is regular, the folio was neither dirty nor under writeback.
/// - A folio that was unmapped through `tlb` is in `list`. While [`OldFolios::take()`] runs, it may
///   be in `batch` instead.
pub(super) struct Collapse<'m> {
    // Dropped in this order.
    pub(super) tlb: UnmapBatch,
    charge: Charge<'m>,
    pub(super) batch: Batch,
    pub(super) list: FolioList,
    pub(super) new: NewFolio<'m>,
    pub(super) next: usize,
    /// The index after the last folio of `list`.
    pub(super) end: usize,
    pub(super) pages: usize,
    /// The holes before this index were still holes when the page-cache lock was last taken.
    pub(super) checked: usize,
    /// The number of pages before `checked`.
    pub(super) checked_pages: usize,
    /// The number of retry entries in the range, in the final critical section.
    pub(super) retry_entries: usize,
}

/// A collapse in progress: the new folio, and the old folios in index order.
///
/// It is on the heap, because it is large, and moves from one state to another. Dropping it flushes
/// the TLBs, uncharges the holes, puts the old folios back, and frees the new folio.
///
/// Context: dropping it may sleep; no page-cache lock is held.
///
/// # Invariants
///
/// `collapse` is in the state `S`. Each state has what the ones before have:
///
/// - [`Flushed`]: the TLBs were flushed since the last folio was unmapped. `batch` is empty.
/// - [`Charged`]: `charge` is for the holes.
/// - [`Copied`]: the new folio is uptodate, with the content of the folios of `list` and zeroes for
///   the holes.
pub struct OldFolios<'m, S> {
    pub(super) collapse: KBox<Collapse<'m>>,
    _state: PhantomData<S>,
}

impl<'m> OldFolios<'m, Gathering> {
    /// Begins a collapse.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`](crate::error::code::ENOMEM) if there is no memory.
    // Out of line, because the object is on the stack before it is moved.
    #[inline(never)]
    pub fn new(new: NewFolio<'m>) -> KernelResult<Self> {
        let start = new.range().start();
        let charge = Charge::none(new.range().mapping());

        let memory = KBox::new_uninit(GFP_KERNEL)?;

        // INVARIANT: There are no folios yet, and the first state asks for nothing.
        Ok(Self::in_state(KBox::write(
            memory,
            Collapse {
                tlb: UnmapBatch::new(),
                charge,
                batch: Batch::new(),
                list: FolioList::new(),
                new,
                next: start,
                end: start,
                pages: 0,
                checked: start,
                checked_pages: 0,
                retry_entries: 0,
            },
        )))
    }

    /// Flushes the TLBs, after which the content of the old folios is stable.
    ///
    /// Context: may sleep.
    #[inline]
    pub fn flush(mut self, _cursor: &Cursor<'_, 'm>) -> OldFolios<'m, Flushed> {
        self.collapse.tlb.flush();
        // The caller may have found folios and not taken them.
        self.collapse.batch.clear();
        // INVARIANT: The TLBs were flushed and the batch emptied above. Folios are unmapped and
        // found while gathering only.
        OldFolios::in_state(self.collapse)
    }
}

impl<'m, S> OldFolios<'m, S> {
    /// Changes the state.
    #[inline]
    fn in_state(collapse: KBox<Collapse<'m>>) -> Self {
        Self {
            collapse,
            _state: PhantomData,
        }
    }

    /// Returns the number of holes in the range, as far as it was gathered.
    #[inline]
    pub fn holes(&self) -> usize {
        self.collapse
            .next
            .saturating_sub(self.range().start())
            .saturating_sub(self.collapse.pages)
    }

    /// Returns the new folio.
    #[inline]
    pub fn new_folio(&self) -> &Folio {
        self.collapse.new.folio()
    }

    /// Returns the range.
    #[inline]
    pub(super) fn range(&self) -> PmdRange<'m> {
        self.collapse.new.range()
    }

    /// Returns whether the folios are all of the range, so that there is no hole.
    ///
    /// It is not enough to count pages: a folio that begins before its index may fill a hole that
    /// was counted there.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.make_up_range_with(0)
    }

    /// Returns whether the folios and `holes` holes make up the whole range.
    #[inline(never)]
    pub(super) fn make_up_range_with(&self, holes: usize) -> bool {
        self.holes() == holes && self.collapse.pages + holes == HPAGE_PMD_NR
    }
}

impl<'m> OldFolios<'m, Flushed> {
    /// Charges the file for the holes: `shmem_charge()`.
    ///
    /// Context: may sleep; takes the page-cache lock.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`](crate::error::code::ENOSPC) if the file system or a quota has no room.
    #[inline]
    pub fn charge_holes(
        mut self,
        _cursor: &Cursor<'_, 'm>,
    ) -> KernelResult<OldFolios<'m, Charged>> {
        let holes = self.holes();

        self.collapse.charge.add(holes)?;
        // INVARIANT: The holes were charged above.
        Ok(OldFolios::in_state(self.collapse))
    }
}

impl<'m> OldFolios<'m, Charged> {
    /// Copies the old folios to the new one, clears the holes, and marks the new folio uptodate.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The index of the first page whose memory is failing.
    #[inline]
    pub fn copy(mut self, _cursor: &Cursor<'_, 'm>) -> Result<OldFolios<'m, Copied>, usize> {
        let Collapse { new, list, .. } = &mut *self.collapse;

        // SAFETY: The folios are in the range, in index order, without overlap, locked and without
        // other users by the type invariants. The TLBs were flushed, by the state. So the content
        // does not change.
        unsafe { new.fill(list) }?;
        // INVARIANT: The call has copied the folios and marked the new one uptodate.
        Ok(OldFolios::in_state(self.collapse))
    }
}

impl<'m> OldFolios<'m, Copied> {
    /// Completes the collapse after the new folio has replaced the old ones.
    ///
    /// # Safety
    ///
    /// The page cache must hold the new folio in place of all that the range held. It must have
    /// taken over the new folio's reference. The caller must own its references to the old folios.
    #[inline]
    pub(super) unsafe fn into_replaced(self) -> (HugeFolio<'m>, ReplacedFolios<'m>) {
        let collapse = KBox::into_raw(self.collapse);
        // SAFETY: The object is valid. Below, its memory is freed and nothing of it is dropped. So
        // each field is moved out once. `tlb` owes no flush and `batch` is empty by the state.
        let (charge, list, new) = unsafe {
            (
                core::ptr::read(&raw const (*collapse).charge),
                core::ptr::read(&raw const (*collapse).list),
                core::ptr::read(&raw const (*collapse).new),
            )
        };

        // SAFETY: The memory is that of the box above. `MaybeUninit` has the same layout, and
        // dropping it drops no field.
        drop(unsafe { KBox::<MaybeUninit<Collapse<'m>>>::from_raw(collapse.cast()) });
        // SAFETY: The new folio has filled the holes, by the safety contract.
        unsafe { charge.commit() };
        // INVARIANT: The caller hands over the references, by the safety contract.
        let replaced = ReplacedFolios {
            list,
            _mapping: PhantomData,
        };
        // SAFETY: The folio was stored with its references, by the safety contract.
        (unsafe { new.into_inserted() }, replaced)
    }
}

/// Folios that were replaced in a page cache, still locked.
///
/// Dropping it frees them.
///
/// Context: dropping it may sleep.
///
/// # Invariants
///
/// The object owns all references that the page cache held. The folios are still counted as pages
/// of a file. `folio->mapping` is a mapping that lives for `'m`.
pub struct ReplacedFolios<'m> {
    list: FolioList,
    _mapping: PhantomData<&'m AddressSpace>,
}

impl ReplacedFolios<'_> {
    /// Frees the folios.
    #[inline]
    pub fn release(self) {}
}

impl Drop for ReplacedFolios<'_> {
    #[inline]
    fn drop(&mut self) {
        let list = core::mem::take(&mut self.list);

        // SAFETY: The folios were replaced, the object owns the references of the page cache, and
        // the folios are still counted, all by the type invariants.
        unsafe { list.free_replaced() };
    }
}
