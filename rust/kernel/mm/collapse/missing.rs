// SPDX-License-Identifier: GPL-2.0

//! Bringing in pages that are not in the page cache, or not ready to be copied.
//!
//! All of this may sleep, so these are methods of a [`Cursor`], whose page-cache lock is not held.
//!
//! # Folio locks
//!
//! Truncation waits for folio locks with `invalidate_lock` held, and readahead takes that lock.
//! Writeback waits for folio locks with a transaction of the file system open. A task that reads or
//! flushes with folios locked may therefore wait forever. [`NoFolios`] is the evidence that its
//! collapse has none. If a task locks a folio in another way, for example by
//! [`Cursor::filemap_lock_folio`], it must unlock it first.

use crate::{
    bindings,
    error::{
        code::ENOENT,
        from_err_ptr,
        Result, //
    },
    mm::{
        folio::{LockedFolio, HPAGE_PMD_NR},
        mapping::{AddressSpace, FileRef},
        page_cache::Cursor,
        shmem, //
    },
};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull}, //
};

/// Evidence that a collapse holds no old folio.
///
/// [`OldFolios::put_back()`](super::OldFolios::put_back) returns it. The collapse is borrowed for
/// as long as it exists, so no folio is gathered in that time.
pub struct NoFolios<'a>(PhantomData<&'a mut ()>);

impl NoFolios<'_> {
    #[inline]
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl Cursor<'_, '_> {
    /// Finds and locks the folio at `index` of a shmem file: `shmem_get_folio(SGP_NOALLOC)`.
    ///
    /// The folio is swapped in, or filled with zeroes, if necessary. It may begin before `index`.
    ///
    /// Context: may sleep, also for folio locks.
    ///
    /// # Errors
    ///
    /// [`EINVAL`](crate::error::code::EINVAL) if the file is not shmem or ends before `index`,
    /// [`ENOENT`] for a hole, and the errors of swapping in.
    #[inline]
    pub fn shmem_get_folio(&self, index: usize) -> Result<LockedFolio> {
        shmem::get_folio(self.range().mapping(), index)
    }

    /// Begins to read the pages from `index` up to the end of the range that are swapped out:
    /// `shmem_swap_readahead()`.
    ///
    /// Does not wait for them. Does nothing if the file is not shmem.
    ///
    /// Context: may sleep. Folios of the file may be locked.
    #[inline]
    pub fn shmem_swap_readahead(&self, index: usize) {
        shmem::swap_readahead(self.range().mapping(), index..self.range().end());
    }

    /// Reads missing pages of `file` from `index` up to the end of the range:
    /// `page_cache_sync_readahead()`.
    ///
    /// Reads as many pages as the file's readahead state suggests. Does nothing if `file` has
    /// another mapping, if the mapping cannot read folios, or if `index` is outside the range.
    ///
    /// Context: may sleep; no folio of the mapping is locked.
    #[inline]
    pub fn readahead(&self, file: &FileRef, index: usize, _none: &NoFolios<'_>) {
        let range = self.range();
        let mapping = range.mapping();
        let nr_pages = range.end().saturating_sub(index);

        if !ptr::eq(AddressSpace::of(file), mapping) || !(1..=HPAGE_PMD_NR).contains(&nr_pages) {
            return;
        }
        // SAFETY: The mapping is alive by its type invariant.
        if !unsafe { bindings::mapping_can_read_folios(mapping.as_raw()) } {
            return;
        }
        // SAFETY: The file and its mapping are alive, and the mapping can read folios. The file's
        // readahead state is a hint that several tasks may use concurrently.
        unsafe {
            bindings::page_cache_sync_readahead(
                mapping.as_raw(),
                bindings::file_ra(file.as_raw()),
                file.as_raw(),
                index,
                nr_pages,
            )
        };
    }

    /// Finds and locks the folio at `index`: `filemap_lock_folio()`.
    ///
    /// Context: may sleep for the folio lock.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is none.
    #[inline]
    pub fn filemap_lock_folio(&self, index: usize) -> Result<LockedFolio> {
        // SAFETY: The mapping is alive by its type invariant.
        let folio = from_err_ptr(unsafe {
            bindings::filemap_lock_folio(self.range().mapping().as_raw(), index)
        })?;
        let folio = NonNull::new(folio).ok_or(ENOENT)?;

        // SAFETY: On success the folio is locked and referenced for the caller.
        Ok(unsafe { LockedFolio::from_raw(folio) })
    }

    /// Returns whether the file is open for writing: `inode_is_open_for_write()`.
    #[inline]
    pub fn is_open_for_write(&self) -> bool {
        // SAFETY: The inode is alive by the type invariant of the mapping.
        unsafe { bindings::inode_is_open_for_write(self.range().mapping().host()) }
    }

    /// Starts writing the file's dirty pages, without waiting for the end: `filemap_flush()`.
    ///
    /// Context: may sleep; no folio of the mapping is locked.
    #[inline]
    pub fn filemap_flush(&self, _none: &NoFolios<'_>) {
        // SAFETY: The mapping is alive by its type invariant. An error is recorded in the mapping.
        unsafe { bindings::filemap_flush(self.range().mapping().as_raw()) };
    }
}
