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
    mm::{folio::LockedFolio, page_cache::AddressSpace},
};
use core::{mem::ManuallyDrop, ptr::NonNull};

/// Pages that a file has been charged for ahead of their being added to it.
///
/// The charge counts against the limits of the file system, and in the file's `st_blocks` and
/// `nrpages`. Dropping it gives it back. Context: may sleep and takes the page-cache lock, which is
/// therefore not to be held. To forget it is no way to keep it: `nrpages` stays wrong, which
/// evicting the inode does not forgive.
///
/// # Invariants
///
/// `pages` pages were charged to `mapping`, which is shmem if that is not zero, and have neither
/// been added nor uncharged.
pub struct Charge<'m> {
    mapping: &'m AddressSpace,
    pages: usize,
}

impl<'m> Charge<'m> {
    /// Charges for `pages` pages: `shmem_charge()`. Public through
    /// [`Cursor::charge_holes`](super::page_cache::Cursor::charge_holes).
    ///
    /// Context: may sleep; takes the page-cache lock.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if the file system or a quota has not that many left, [`EINVAL`] if the file is
    /// not shmem.
    #[inline]
    pub(super) fn new(mapping: &'m AddressSpace, pages: usize) -> Result<Self> {
        if pages > 0 {
            if !mapping.is_shmem() {
                return Err(EINVAL);
            }
            let pages = isize::try_from(pages).map_err(|_| ENOSPC)?;

            // SAFETY: The mapping is alive, and shmem.
            if !unsafe { bindings::shmem_charge(mapping.host(), pages) } {
                return Err(ENOSPC);
            }
        }
        // INVARIANT: Charged above, if there was anything to charge.
        Ok(Self { mapping, pages })
    }

    /// Whether it is for `pages` pages of `mapping`.
    #[inline]
    pub(super) fn is_for(&self, mapping: &AddressSpace, pages: usize) -> bool {
        core::ptr::eq(self.mapping, mapping) && self.pages == pages
    }

    /// The pages have been added to the file.
    #[inline]
    pub(super) fn commit(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Drop for Charge<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.pages == 0 {
            return;
        }
        self.mapping.sub_nrpages(self.pages);
        // SAFETY: The mapping is alive, and shmem by the type invariant. Its `nrpages` no longer
        // counts the pages, as the function wants.
        unsafe { bindings::shmem_uncharge(self.mapping.host(), self.pages as isize) };
    }
}

/// Finds the folio at `index`, swaps it in or fills it with zeroes if need be, and locks it:
/// `shmem_get_folio(SGP_NOALLOC)`. Public through
/// [`Cursor::shmem_get_folio`](super::page_cache::Cursor::shmem_get_folio).
///
/// Context: may sleep, for other folio locks too.
///
/// # Errors
///
/// [`EINVAL`] if `mapping` is not shmem or ends before `index`, [`ENOENT`] for a hole, and what
/// swapping in can fail with.
#[inline]
pub(super) fn get_folio(mapping: &AddressSpace, index: usize) -> Result<LockedFolio> {
    let mut folio = core::ptr::null_mut();

    if !mapping.is_shmem() {
        return Err(EINVAL);
    }
    // SAFETY: The mapping is alive, and shmem by the check above.
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
    // SAFETY: The folio comes locked and with a reference, for us.
    Ok(unsafe { LockedFolio::from_raw(folio) })
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_mm_shmem)]
mod tests {
    use super::*;
    use crate::mm::kunit::{directory, ShmemFile};

    #[test]
    fn charge_is_given_back_when_dropped() -> Result {
        let file = ShmemFile::new(8)?;
        file.fill(0..1)?;

        let charge = Charge::new(file.mapping(), 5)?;
        assert_eq!(file.pages(), 6);
        drop(charge);
        assert_eq!(file.pages(), 1);
        Ok(())
    }

    #[test]
    fn committed_charge_is_kept() -> Result {
        let file = ShmemFile::new(8)?;

        Charge::new(file.mapping(), 5)?.commit();
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
    fn charge_knows_what_it_is_for() -> Result {
        let file = ShmemFile::new(8)?;
        let other = ShmemFile::new(8)?;
        let charge = Charge::new(file.mapping(), 5)?;

        assert!(charge.is_for(file.mapping(), 5));
        assert!(!charge.is_for(file.mapping(), 4));
        assert!(!charge.is_for(other.mapping(), 5));
        Ok(())
    }

    #[test]
    fn nothing_is_charged_beyond_what_there_is() -> Result {
        let file = ShmemFile::new(8)?;

        // More pages than any machine has.
        assert_eq!(Charge::new(file.mapping(), 1 << 50).err(), Some(ENOSPC));
        assert_eq!(file.pages(), 0);
        Ok(())
    }

    #[test]
    fn only_shmem_is_charged() -> Result {
        let directory = directory()?;
        let mapping = AddressSpace::of(&directory);

        assert_eq!(Charge::new(mapping, 1).err(), Some(EINVAL));
        // No pages are no charge.
        assert!(Charge::new(mapping, 0).is_ok());
        Ok(())
    }

    #[test]
    fn page_is_found_locked() -> Result {
        let file = ShmemFile::new(8)?;
        file.fill(3..4)?;
        let held = file.folio(3)?;

        let folio = get_folio(file.mapping(), 3)?;
        assert!(folio.start() == 3 && held.is_locked());
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
