// SPDX-License-Identifier: GPL-2.0

//! Shared memory: tmpfs, memfd, System V.
//!
//! C header: [`include/linux/shmem_fs.h`](srctree/include/linux/shmem_fs.h)

use crate::{
    bindings,
    error::{
        code::{EINVAL, ENOENT, ENOSPC},
        to_result, Result,
    },
    mm::{folio::LockedFolio, mapping::AddressSpace},
};
use core::{mem::ManuallyDrop, ops::Range, ptr::NonNull};

/// A charge for pages that will be added to a shmem file.
///
/// The charge counts against the limits of the file system, and in the file's `st_blocks` and
/// `nrpages`. Dropping it uncharges the pages.
///
/// Do not [`core::mem::forget`] a charge: `nrpages` stays too high, and evicting the inode triggers
/// a `BUG_ON()`.
///
/// Context: dropping may sleep and takes the page-cache lock.
///
/// # Invariants
///
/// `pages` pages were charged to `mapping`, and have neither been added nor uncharged. `mapping` is
/// shmem unless `pages` is 0.
pub struct Charge<'m> {
    mapping: &'m AddressSpace,
    pages: usize,
}

impl<'m> Charge<'m> {
    /// Charges nothing yet.
    #[inline]
    pub(super) fn none(mapping: &'m AddressSpace) -> Self {
        // INVARIANT: There are no pages.
        Self { mapping, pages: 0 }
    }

    /// Charges the file for `pages` more pages: `shmem_charge()`.
    ///
    /// Context: may sleep; takes the page-cache lock.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if the file system or a quota has fewer pages left, [`EINVAL`] if the file is not
    /// shmem.
    #[inline]
    pub(super) fn add(&mut self, pages: usize) -> Result {
        if pages == 0 {
            return Ok(());
        }
        if !self.mapping.is_shmem() {
            return Err(EINVAL);
        }
        let nr = isize::try_from(pages).map_err(|_| ENOSPC)?;

        // SAFETY: The mapping is alive by its type invariant, and shmem by the check above.
        if !unsafe { bindings::shmem_charge(self.mapping.host(), nr) } {
            return Err(ENOSPC);
        }
        // INVARIANT: The pages were charged above.
        self.pages += pages;
        Ok(())
    }

    /// Keeps the charge.
    ///
    /// # Safety
    ///
    /// The pages must have been added to the file.
    #[inline]
    pub(super) unsafe fn commit(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Drop for Charge<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        if self.pages == 0 {
            return;
        }
        // SAFETY: `shmem_charge()` has counted the pages, and they were not added, by the type
        // invariant.
        unsafe { self.mapping.sub_nrpages(self.pages) };
        // SAFETY: The mapping is alive and shmem by the type invariants. Its `nrpages` no longer
        // counts the pages, as the function requires.
        unsafe { bindings::shmem_uncharge(self.mapping.host(), self.pages as isize) };
    }
}

/// Finds and locks the folio at `index`: `shmem_get_folio(SGP_NOALLOC)`.
///
/// The folio is swapped in, or filled with zeroes, if necessary. It may begin before `index`.
///
/// Context: may sleep, also for folio locks.
///
/// # Errors
///
/// [`EINVAL`] if `mapping` is not shmem or ends before `index`, [`ENOENT`] for a hole, and the
/// errors of swapping in.
#[inline]
pub(super) fn get_folio(mapping: &AddressSpace, index: usize) -> Result<LockedFolio> {
    let mut folio = core::ptr::null_mut();

    if !mapping.is_shmem() {
        return Err(EINVAL);
    }
    // SAFETY: The mapping is alive by its type invariant, and shmem by the check above.
    to_result(unsafe {
        bindings::shmem_get_folio(
            mapping.host(),
            index,
            0,
            &mut folio,
            bindings::sgp_type_SGP_NOALLOC,
        )
    })?;
    let folio = NonNull::new(folio).ok_or(ENOENT)?;
    // SAFETY: On success the folio is locked and referenced for the caller.
    Ok(unsafe { LockedFolio::from_raw(folio) })
}

/// Begins to read pages of a range that are swapped out: `shmem_swap_readahead()`.
///
/// Does nothing if `mapping` is not shmem.
///
/// Context: may sleep.
#[inline]
pub(super) fn swap_readahead(mapping: &AddressSpace, indices: Range<usize>) {
    if mapping.is_shmem() && !indices.is_empty() {
        // SAFETY: The mapping is alive by its type invariant, and shmem by the check above.
        unsafe { bindings::shmem_swap_readahead(mapping.as_raw(), indices.start, indices.end - 1) };
    }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_shmem)]
mod tests {
    use super::*;
    use crate::mm::kunit::{directory, ShmemFile};

    fn charged(mapping: &AddressSpace, pages: usize) -> Result<Charge<'_>> {
        let mut charge = Charge::none(mapping);

        charge.add(pages)?;
        Ok(charge)
    }

    #[test]
    fn charge_is_given_back_when_dropped() -> Result {
        let file = ShmemFile::new(8)?;
        file.fill(0..1)?;

        let charge = charged(file.mapping(), 5)?;
        assert_eq!(file.pages(), 6);
        drop(charge);
        assert_eq!(file.pages(), 1);
        Ok(())
    }

    #[test]
    fn committed_charge_is_kept() -> Result {
        let file = ShmemFile::new(8)?;

        // SAFETY: The pages are uncharged below, as if they had been added.
        unsafe { charged(file.mapping(), 5)?.commit() };
        let kept = file.pages();
        // The pages have not been added, and are not going to be.
        //
        // INVARIANT: They were charged above.
        drop(Charge {
            mapping: file.mapping(),
            pages: 5,
        });
        assert_eq!(kept, 5);
        assert_eq!(file.pages(), 0);
        Ok(())
    }

    #[test]
    fn nothing_is_charged_beyond_what_there_is() -> Result {
        let file = ShmemFile::new(8)?;

        // More pages than any machine has.
        assert_eq!(charged(file.mapping(), 1 << 50).err(), Some(ENOSPC));
        assert_eq!(file.pages(), 0);
        Ok(())
    }

    #[test]
    fn only_shmem_is_charged() -> Result {
        let directory = directory()?;
        let mapping = AddressSpace::of(&**directory);

        assert_eq!(charged(mapping, 1).err(), Some(EINVAL));
        // No pages are no charge.
        assert!(charged(mapping, 0).is_ok());
        Ok(())
    }

    #[test]
    fn page_is_found_locked() -> Result {
        let file = ShmemFile::new(8)?;
        file.fill(3..4)?;
        let held = file.folio(3)?;

        let folio = get_folio(file.mapping(), 3)?;
        assert!(folio.index() == 3 && held.is_locked());
        assert_eq!(held.ref_count(), 3);
        drop(folio);
        assert!(!held.is_locked());
        assert_eq!(held.ref_count(), 2);
        Ok(())
    }

    #[test]
    fn allocated_page_is_found_as_zeroes() -> Result {
        let file = ShmemFile::new(8)?;
        file.allocate(3)?;

        assert!(get_folio(file.mapping(), 3)?.is_uptodate());
        assert_eq!(file.content(3)?, 0);
        Ok(())
    }

    #[test]
    fn hole_stays_one() -> Result {
        let file = ShmemFile::new(8)?;

        assert_eq!(get_folio(file.mapping(), 3).err(), Some(ENOENT));
        assert_eq!(get_folio(file.mapping(), 8).err(), Some(EINVAL));
        assert_eq!(file.pages(), 0);
        Ok(())
    }
}
