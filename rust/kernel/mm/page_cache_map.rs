// SPDX-License-Identifier: GPL-2.0

//! What a file's page cache holds, and who maps the file: looked at, and not changed.
//!
//! [`AddressSpace::snapshot`] and [`AddressSpace::snapshot_vmas`] copy what they find, as nothing
//! of it stays as it is when the lock is released. What is copied together was so at one moment.
//!
//! Neither is inlined: what they call is not exported to modules.

use crate::mm::{
    folio::{Folio, HPAGE_PMD_NR},
    page_cache::{AddressSpace, Cursor, Entry, LockedCursor},
    rmap::{IMmapReadGuard, RmapVma}, //
};
use core::ops::Range;

/// What the page cache had for some consecutive pages of a file.
#[derive(Clone, Copy, Default)]
pub struct Extent {
    /// The index of the first page.
    pub start: usize,
    /// The number of pages; for anything but a hole a power of 2 that `start` is a multiple of.
    pub nr_pages: usize,
    /// Base-2 logarithm of that, and 0 for a hole.
    pub order: u32,
    /// What it had.
    pub content: Content,
}

impl Extent {
    /// The index behind the last page.
    #[inline]
    pub fn end(&self) -> usize {
        self.start + self.nr_pages
    }
}

/// Content of an [`Extent`].
#[derive(Clone, Copy, Default)]
pub enum Content {
    /// Nothing.
    #[default]
    Hole,
    /// No folio but an integer: where shmem has swapped one out to, the shadow of one that was
    /// reclaimed, or where DAX has the memory.
    Value(usize),
    /// A folio.
    Folio(FolioFlags),
}

/// Flags of a folio.
#[derive(Clone, Copy)]
pub struct FolioFlags {
    /// Somebody held the folio lock: [`Folio::is_locked`].
    pub locked: bool,
    /// The content was valid: [`Folio::is_uptodate`]. A folio of shmem is without it that was
    /// allocated and never written.
    pub uptodate: bool,
    /// The content was newer than what is on disk: [`Folio::is_dirty`].
    pub dirty: bool,
    /// The content was on its way to the disk: [`Folio::is_under_writeback`].
    pub writeback: bool,
}

impl From<&Folio> for FolioFlags {
    fn from(folio: &Folio) -> Self {
        Self {
            locked: folio.is_locked(),
            uptodate: folio.is_uptodate(),
            dirty: folio.is_dirty(),
            writeback: folio.is_under_writeback(),
        }
    }
}

/// What a VMA mapped of a file.
#[derive(Clone, Copy, Default)]
pub struct MappedArea {
    /// The address of the first byte, in whatever address space.
    pub start: usize,
    /// The address behind the last byte.
    pub end: usize,
    /// The index in the file of the first page.
    pub pgoff: usize,
    /// What was reported to a userfaultfd.
    pub userfaultfd: UserfaultfdModes,
}

impl From<&RmapVma> for MappedArea {
    fn from(vma: &RmapVma) -> Self {
        Self {
            start: vma.start(),
            end: vma.end(),
            pgoff: vma.start_pgoff(),
            userfaultfd: UserfaultfdModes {
                missing: vma.userfaultfd_missing(),
                wp: vma.userfaultfd_wp(),
                minor: vma.userfaultfd_minor(),
                rwp: vma.userfaultfd_rwp(),
            },
        }
    }
}

/// What of a VMA is reported to a userfaultfd.
#[derive(Clone, Copy, Default)]
pub struct UserfaultfdModes {
    /// Missing pages: [`RmapVma::userfaultfd_missing`].
    pub missing: bool,
    /// Writes to protected pages: [`RmapVma::userfaultfd_wp`].
    pub wp: bool,
    /// Pages that are in the page cache and not mapped: [`RmapVma::userfaultfd_minor`].
    pub minor: bool,
    /// All accesses to protected pages: [`RmapVma::userfaultfd_rwp`].
    pub rwp: bool,
}

impl AddressSpace {
    /// Copies to `found` what the page cache has for the pages in `range`, by rising index and
    /// without gaps, and returns as many as there are.
    ///
    /// To hold the lock for a short time only, it goes no further than to the next multiple of
    /// [`HPAGE_PMD_NR`]. Who wants more, or has no more room in `found`, goes on from the end of
    /// the last extent, until nothing is returned. The extents at the ends may reach beyond the
    /// range.
    ///
    /// The end of the file is of no importance here: behind it is a hole, most of the time.
    ///
    /// Context: takes the page-cache lock and disables interrupts, which must be enabled.
    pub fn snapshot<'a>(&self, range: Range<usize>, found: &'a mut [Extent]) -> &'a [Extent] {
        let first = range.start - range.start % HPAGE_PMD_NR;
        let mut filled = 0;

        // No file has pages that far, and a range there could not be counted.
        if range.is_empty() || first >= usize::MAX - HPAGE_PMD_NR {
            return &[];
        }
        let pmd_range = self.pmd_range(first);
        let end = range.end.min(pmd_range.end());
        let mut walk = pmd_range.walk();
        let mut locked = Cursor::new(&mut walk).lock();
        let mut next = range.start;

        for extent in found.iter_mut() {
            if next >= end {
                break;
            }
            *extent = locked.extent(next, end);
            next = extent.end();
            filled += 1;
        }
        &found[..filled]
    }

    /// Copies to `found` the VMAs that map any of the pages in `range`, in any address space.
    /// Returns those, and whether there are more of them than there was room for.
    ///
    /// Context: takes `i_mmap_rwsem`, may sleep.
    pub fn snapshot_vmas<'a>(
        &self,
        range: Range<usize>,
        found: &'a mut [MappedArea],
    ) -> (&'a [MappedArea], bool) {
        let i_mmap = IMmapReadGuard::new(self);
        let mut vmas = i_mmap.vmas(range);
        let mut filled = 0;

        for (area, vma) in found.iter_mut().zip(vmas.by_ref()) {
            *area = vma.into();
            filled += 1;
        }
        (&found[..filled], vmas.next().is_some())
    }
}

impl LockedCursor<'_, '_> {
    /// What there is at `index`; a hole reaches to the next entry, or to `end`.
    ///
    /// `end` is above `index`.
    fn extent(&mut self, index: usize, end: usize) -> Extent {
        let hole = |end| Extent {
            start: index,
            nr_pages: end - index,
            order: 0,
            content: Content::Hole,
        };
        let (start, order, entry) = match self.guard.find(index, end - 1) {
            None => return hole(end),
            Some((start, _, _)) if start > index => return hole(start),
            Some(found) => found,
        };

        Extent {
            start,
            nr_pages: 1 << order,
            order,
            content: match (entry.to_value(), self.entry(entry)) {
                (Some(value), _) => Content::Value(value),
                (None, Entry::Folio(folio)) => Content::Folio(folio.into()),
                (None, _) => Content::Hole,
            },
        }
    }
}
