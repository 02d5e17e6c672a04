// SPDX-License-Identifier: GPL-2.0

//! A collapse in progress: the folios that it replaces, and the states that it goes through.

use super::{batch::Batch, HugeFolio, NewFolio};
use crate::{
    error::Result as KernelResult,
    mm::{
        folio::{Folio, FolioList, HPAGE_PMD_NR},
        mapping::{AddressSpace, PmdRange},
        page_cache::Cursor,
        rmap::{Flushed, UnmapBatch},
        shmem::Charge, //
    },
};
use core::marker::PhantomData;

/// State of [`OldFolios`]: folios are being gathered.
///
/// CPUs may still write to the folios through their TLBs. Dropping it flushes.
pub struct Gathering<'b> {
    pub(super) tlb: UnmapBatch,
    pub(super) batch: &'b mut Batch,
    /// The holes before this index were still holes when the page-cache lock was last taken.
    pub(super) checked: usize,
    /// The number of pages before `checked`.
    pub(super) checked_pages: usize,
}

/// State of [`OldFolios`]: the content is stable, and the file is charged for the holes.
///
/// Dropping it uncharges the holes.
pub struct Charged<'m> {
    charge: Charge<'m>,
}

/// State of [`OldFolios`]: the new folio is uptodate, with the content of the old ones.
///
/// Dropping it uncharges the holes.
pub struct Copied<'m> {
    charge: Charge<'m>,
}

/// A collapse in progress: the new folio, and the old folios in index order.
///
/// Dropping it flushes the TLBs, uncharges the holes, puts the old folios back, and frees the new
/// folio.
///
/// Context: dropping it may sleep; no page-cache lock is held.
///
/// # Invariants
///
/// - `list` holds folios of `new`'s range, in index order and without overlap, with `pages` pages
///   together. `end` is the index after the last one.
/// - When a folio was added, it was uptodate, locked, isolated and unmapped, and had no other
///   users. If the file is regular, the folio was neither dirty nor under writeback.
/// - A folio that was unmapped through the `tlb` of [`Gathering`] is in `list`. While
///   [`take()`](Self::take) runs, it may be in `batch` instead.
pub struct OldFolios<'m, S> {
    // Dropped in this order.
    pub(super) state: S,
    pub(super) list: FolioList,
    pub(super) new: NewFolio<'m>,
    pub(super) next: usize,
    /// The index after the last folio of `list`.
    pub(super) end: usize,
    pub(super) pages: usize,
}

impl<'b, 'm> OldFolios<'m, Gathering<'b>> {
    /// Begins a collapse. It uses `batch` until the folios are gathered.
    #[inline]
    pub fn new(new: NewFolio<'m>, batch: &'b mut Batch) -> Self {
        let start = new.range().start();

        // Another collapse may have left an end in it.
        batch.restart(start);
        // INVARIANT: There are no folios yet.
        Self {
            state: Gathering {
                tlb: UnmapBatch::new(),
                batch,
                checked: start,
                checked_pages: 0,
            },
            list: FolioList::new(),
            new,
            next: start,
            end: start,
            pages: 0,
        }
    }

    /// Flushes the TLBs, after which the content of the old folios is stable.
    ///
    /// Context: may sleep.
    #[inline]
    pub fn flush(self, _cursor: &Cursor<'_, 'm>) -> OldFolios<'m, Flushed> {
        OldFolios {
            state: self.state.tlb.finish(),
            list: self.list,
            new: self.new,
            next: self.next,
            end: self.end,
            pages: self.pages,
        }
    }
}

impl<'m, S> OldFolios<'m, S> {
    /// Returns the number of holes in the range, as far as it was gathered.
    #[inline]
    pub fn holes(&self) -> usize {
        self.next
            .saturating_sub(self.new.range().start())
            .saturating_sub(self.pages)
    }

    /// Returns the new folio.
    #[inline]
    pub fn new_folio(&self) -> &Folio {
        self.new.folio()
    }

    /// Returns the range.
    #[inline]
    pub(super) fn range(&self) -> PmdRange<'m> {
        self.new.range()
    }

    /// Returns whether the folios are all of the range, so that there is no hole.
    ///
    /// It is not enough to count pages: a folio that begins before its index may fill a hole that
    /// was counted there.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.pages == HPAGE_PMD_NR && self.holes() == 0
    }

    /// Returns whether the folios and `holes` holes make up the whole range.
    #[inline]
    pub(super) fn make_up_range_with(&self, holes: usize) -> bool {
        self.holes() == holes && self.pages + holes == HPAGE_PMD_NR
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
        self,
        _cursor: &Cursor<'_, 'm>,
    ) -> KernelResult<OldFolios<'m, Charged<'m>>> {
        let charge = Charge::new(self.new.range().mapping(), self.holes())?;

        Ok(OldFolios {
            state: Charged { charge },
            list: self.list,
            new: self.new,
            next: self.next,
            end: self.end,
            pages: self.pages,
        })
    }
}

impl<'m> OldFolios<'m, Charged<'m>> {
    /// Copies the old folios to the new one, clears the holes, and marks the new folio uptodate.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The index of the first page whose memory is failing.
    #[inline]
    pub fn copy(mut self, _cursor: &Cursor<'_, 'm>) -> Result<OldFolios<'m, Copied<'m>>, usize> {
        // SAFETY: The folios are in the range, in index order, without overlap, locked and without
        // other users by the type invariants. The TLBs were flushed, by the state. So the content
        // does not change.
        unsafe { self.new.fill(&self.list) }?;
        Ok(OldFolios {
            state: Copied {
                charge: self.state.charge,
            },
            list: self.list,
            new: self.new,
            next: self.next,
            end: self.end,
            pages: self.pages,
        })
    }
}

impl<'m> OldFolios<'m, Copied<'m>> {
    /// Completes the collapse after the new folio has replaced the old ones.
    ///
    /// # Safety
    ///
    /// The page cache must hold the new folio in place of all that the range held. It must have
    /// taken over the new folio's reference. The caller must own its references to the old folios.
    #[inline]
    pub(super) unsafe fn into_replaced(self) -> (HugeFolio<'m>, ReplacedFolios<'m>) {
        // SAFETY: The new folio has filled the holes, by the safety contract.
        unsafe { self.state.charge.commit() };
        // INVARIANT: The caller hands over the references, by the safety contract.
        let replaced = ReplacedFolios {
            list: self.list,
            _mapping: PhantomData,
        };
        // SAFETY: The folio was stored with its references, by the safety contract.
        (unsafe { self.new.into_inserted() }, replaced)
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
