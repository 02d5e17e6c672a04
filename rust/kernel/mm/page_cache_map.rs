// SPDX-License-Identifier: GPL-2.0

//! Snapshots of a file's page cache, and of the VMAs that map the file.
//!
//! [`AddressSpace::snapshot`] and [`AddressSpace::snapshot_vmas`] copy what they find, because
//! nothing stays as it is after the lock is released. Each call is a consistent snapshot.
//!
//! Neither is inlined, because the functions they call are not exported to modules.

use crate::mm::{
    folio::{Folio, HPAGE_PMD_NR},
    mapping::{AddressSpace, RmapVma},
    page_cache::{Cursor, Entry, LockedCursor}, //
};
use core::ops::Range;

/// The content of the page cache for consecutive pages of a file.
#[derive(Clone, Copy, Default)]
pub struct Extent {
    /// The index of the first page.
    pub start: usize,
    /// The number of pages; for anything but a hole a power of 2 that `start` is a multiple of.
    pub nr_pages: usize,
    /// Base-2 logarithm of that, and 0 for a hole.
    pub order: u32,
    /// The kind of entry.
    pub content: Content,
}

impl Extent {
    /// Returns the index after the last page.
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
    /// An integer: a swap entry of shmem, the shadow of a reclaimed folio, or a DAX entry.
    Value(usize),
    /// A folio.
    Folio(FolioFlags),
}

/// Flags of a folio.
#[derive(Clone, Copy)]
pub struct FolioFlags {
    /// A task held the folio lock: [`Folio::is_locked`].
    pub locked: bool,
    /// The content was valid: [`Folio::is_uptodate`]. Clear for a shmem folio that was allocated by
    /// `fallocate()` and never written.
    pub uptodate: bool,
    /// The content was newer than that on disk: [`Folio::is_dirty`].
    pub dirty: bool,
    /// The content was being written to disk: [`Folio::is_under_writeback`].
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

/// The part of a file that a VMA mapped.
#[derive(Clone, Copy, Default)]
pub struct MappedArea {
    /// The address of the first byte, in whatever address space.
    pub start: usize,
    /// The address after the last byte.
    pub end: usize,
    /// The index in the file of the first page.
    pub pgoff: usize,
    /// The faults that were reported to a userfaultfd.
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

/// The faults of a VMA that are reported to a userfaultfd.
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
    /// Copies the content of the page cache for the pages in `range` to `found`.
    ///
    /// Returns extents in index order without gaps. The first and the last may reach beyond the
    /// range.
    ///
    /// The call ends at the next multiple of [`HPAGE_PMD_NR`], so that the lock is held for a short
    /// time only. Continue from the end of the last extent until nothing is returned.
    ///
    /// The end of the file does not matter: there usually is a hole after it.
    ///
    /// Context: does not sleep; takes the page-cache lock.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::{mapping::AddressSpace, page_cache_map::{Content, Extent}};
    ///
    /// # use kernel::mm::kunit::ShmemFile;
    /// # let file = ShmemFile::new(8)?;
    /// # file.fill(3..4)?;
    /// // The page at index 3 is in memory, and nothing else of the file.
    /// let mut extents = [Extent::default(); 8];
    /// let found = AddressSpace::of(&file).snapshot(0..8, &mut extents);
    ///
    /// assert_eq!(found.len(), 3);
    /// assert!(matches!(found[0].content, Content::Hole));
    /// assert!(matches!(found[1].content, Content::Folio(flags) if flags.uptodate));
    /// assert_eq!((found[1].start, found[1].nr_pages), (3, 1));
    /// assert_eq!((found[2].start, found[2].end()), (4, 8));
    /// # Ok::<(), Error>(())
    /// ```
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

    /// Copies the VMAs that map any page in `range`, in any address space, to `found`.
    ///
    /// Returns them, and whether there are more than `found` has room for.
    ///
    /// Context: may sleep; takes `i_mmap_rwsem`.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::{mapping::AddressSpace, page_cache_map::MappedArea};
    ///
    /// # use kernel::mm::kunit::ShmemFile;
    /// # let file = ShmemFile::new(8)?;
    /// # let mapped = [file.map(0..6)?, file.map(4..8)?];
    /// // There is room for one of those that map the page at index 4.
    /// let mut areas = [MappedArea::default()];
    /// let (found, more) = AddressSpace::of(&file).snapshot_vmas(4..5, &mut areas);
    ///
    /// assert_eq!(found.len(), 1);
    /// assert!(found[0].pgoff <= 4 && !found[0].userfaultfd.missing);
    /// assert!(more);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn snapshot_vmas<'a>(
        &self,
        range: Range<usize>,
        found: &'a mut [MappedArea],
    ) -> (&'a [MappedArea], bool) {
        let i_mmap = self.i_mmap_read();
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
    /// Returns the extent at `index`. A hole ends at the next entry, or at `end`.
    ///
    /// `end` must be greater than `index`.
    fn extent(&mut self, index: usize, end: usize) -> Extent {
        let hole = |end| Extent {
            start: index,
            nr_pages: end - index,
            order: 0,
            content: Content::Hole,
        };
        let (start, order, value, entry) = match self.find(index, end - 1) {
            None => return hole(end),
            Some((start, ..)) if start > index => return hole(start),
            Some(found) => found,
        };

        Extent {
            start,
            nr_pages: 1 << order,
            order,
            content: match (value, entry) {
                (Some(value), _) => Content::Value(value),
                (None, Entry::Folio(folio)) => Content::Folio(folio.into()),
                (None, _) => Content::Hole,
            },
        }
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_page_cache_map)]
mod tests {
    use super::*;
    use crate::{
        error::Result,
        mm::kunit::ShmemFile,
        xarray::kunit::IrqArray, //
    };

    /// Start, end, and a letter for what is there.
    fn told(extent: &Extent) -> (usize, usize, char) {
        let letter = match extent.content {
            Content::Hole => '.',
            Content::Value(7) => '7',
            Content::Value(_) => 'v',
            Content::Folio(flags) if flags.locked || flags.writeback => '?',
            Content::Folio(flags) if !flags.uptodate => 'a',
            Content::Folio(flags) if flags.dirty => 'd',
            Content::Folio(_) => 'c',
        };
        (extent.start, extent.end(), letter)
    }

    /// The first `N` extents of what a snapshot of `range` has, which are at most 8.
    fn snapshot<const N: usize>(
        file: &ShmemFile,
        range: Range<usize>,
    ) -> [(usize, usize, char); N] {
        let mut extents = [Extent::default(); 8];
        let mut found = file.mapping().snapshot(range, &mut extents).iter();

        [(); N].map(|()| found.next().map_or((0, 0, '-'), told))
    }

    #[test]
    fn snapshot_has_no_gaps() -> Result {
        let file = ShmemFile::new(16)?;
        file.fill(2..4)?;
        file.allocate(8)?;

        assert!(
            snapshot(&file, 0..16)
                == [
                    (0, 2, '.'),
                    (2, 3, 'd'),
                    (3, 4, 'd'),
                    (4, 8, '.'),
                    (8, 9, 'a'),
                    (9, 16, '.'),
                    (0, 0, '-'),
                ]
        );
        Ok(())
    }

    #[test]
    fn snapshot_tells_numbers() -> Result {
        let file = ShmemFile::new(16)?;
        let range = file.mapping().pmd_range(0);
        // shmem takes it for a swap entry, so it must be gone before the file is freed.
        let set = |index: usize, entry| {
            let mut walk = range.walk();
            let mut locked = Cursor::new(&mut walk).lock_with_slots()?;
            let guard = locked.guard();
            guard.set(index);
            // SAFETY: Neither a value nor an empty slot owns anything. No other task uses the file.
            unsafe { guard.store(entry) }
        };

        set(3, IrqArray::value(7))?;
        let told = snapshot(&file, 0..16);
        set(3, core::ptr::null_mut())?;
        assert!(told == [(0, 3, '.'), (3, 4, '7'), (4, 16, '.'), (0, 0, '-')]);
        assert!(snapshot(&file, 0..16) == [(0, 16, '.')]);
        Ok(())
    }

    #[test]
    fn snapshot_tells_of_locks() -> Result {
        let file = ShmemFile::new(16)?;
        file.fill(0..1)?;

        let folio = file.lock(0)?;
        assert!(snapshot(&file, 0..1) == [(0, 1, '?')]);
        drop(folio);
        assert!(snapshot(&file, 0..1) == [(0, 1, 'd')]);
        Ok(())
    }

    #[test]
    fn snapshot_ends_where_it_is_to() -> Result {
        let file = ShmemFile::new(2 * HPAGE_PMD_NR)?;
        file.fill(4..7)?;

        // At the end of the range, in a hole or after a folio.
        assert!(snapshot(&file, 2..5) == [(2, 4, '.'), (4, 5, 'd'), (0, 0, '-')]);
        assert!(snapshot(&file, 7..9) == [(7, 9, '.'), (0, 0, '-')]);
        assert!(snapshot(&file, 5..5) == [(0, 0, '-')]);
        // At what one PMD maps, and beyond what can be counted.
        let last = HPAGE_PMD_NR - 1;
        assert!(
            snapshot(&file, last..2 * HPAGE_PMD_NR) == [(last, HPAGE_PMD_NR, '.'), (0, 0, '-')]
        );
        assert!(snapshot(&file, usize::MAX - 1..usize::MAX) == [(0, 0, '-')]);
        // There is no more room.
        let mut extents = [Extent::default(); 2];
        let found = file.mapping().snapshot(0..16, &mut extents);
        assert_eq!(found.len(), 2);
        assert_eq!(told(&found[1]), (4, 5, 'd'));
        Ok(())
    }

    #[test]
    fn snapshot_of_vmas_tells_whether_there_are_more() -> Result {
        let file = ShmemFile::new(16)?;
        let first = file.map(2..6)?;
        let second = file.map(4..8)?;
        let count = |range, room: usize| {
            let mut areas = [MappedArea::default(); 4];
            let (found, more) = file.mapping().snapshot_vmas(range, &mut areas[..room]);
            (found.len(), more)
        };

        assert_eq!(count(0..16, 4), (2, false));
        assert_eq!(count(0..16, 2), (2, false));
        assert_eq!(count(0..16, 1), (1, true));
        assert_eq!(count(0..16, 0), (0, true));
        assert_eq!(count(0..4, 1), (1, false));
        assert_eq!(count(8..16, 4), (0, false));

        let mut areas = [MappedArea::default(); 2];
        let (found, _) = file.mapping().snapshot_vmas(0..16, &mut areas);
        assert_eq!(
            (found[0].start, found[0].end, found[0].pgoff),
            (first.address(), first.end(), 2)
        );
        assert_eq!(
            (found[1].start, found[1].end, found[1].pgoff),
            (second.address(), second.end(), 4)
        );
        Ok(())
    }

    #[cfg(CONFIG_USERFAULTFD)]
    #[test]
    fn snapshot_of_vmas_tells_who_waits() -> Result {
        let file = ShmemFile::new(16)?;
        let mapped = file.map(2..6)?;

        mapped.wait_for_missing(true);
        let mut areas = [MappedArea::default()];
        let modes = file.mapping().snapshot_vmas(0..16, &mut areas).0[0].userfaultfd;
        assert!(modes.missing && !modes.wp && !modes.minor && !modes.rwp);
        Ok(())
    }
}
