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
/// therefore not to be held.
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
            // SAFETY: The mapping is alive, and shmem. A count of pages fits a `long`.
            if !unsafe { bindings::shmem_charge(mapping.host(), pages as isize) } {
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
    pub fn commit(self) {
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
/// Context: may sleep, for other folio locks too. `mapping` is shmem.
#[inline]
pub(super) fn get_folio(mapping: &AddressSpace, index: usize) -> Result<LockedFolio> {
    let mut folio = core::ptr::null_mut();

    // SAFETY: The mapping is alive, and shmem as the caller says.
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
