// SPDX-License-Identifier: GPL-2.0

//! Checks whether a folio can be taken.
//!
//! # Other users
//!
//! A folio that is locked, unmapped and without other references does not change any more. The
//! check that follows the unmapping is enough, and needs no lock but the folio's:
//!
//! - A page table cannot map the folio again, because the fault has to lock it first.
//! - `get_user_pages_fast()` takes a reference and then reads the page-table entry again. Unmapping
//!   clears the entry and then drops the reference of the page table, which is a full barrier. The
//!   check reads the reference count after that. One of the two sees the other.
//! - A lookup in the page cache may take a reference later. A reader may use it: the content is the
//!   same in the new folio. `write()`, faults and `memfd_pin_folios()` lock the folio, and find
//!   out that it was replaced.
//! - Reclaim, compaction and memory failure find the folio by the LRU or by its frame number. They
//!   lock it before they change anything.
//!
//! A transient reference looks like a pin, so the check is repeated for a bounded time
//! ([`Patience`]). A task that waits for the folio lock keeps its reference until it gets the lock.
//! The folio is unlocked for such a task, and looked up again later. While a folio lock is waited
//! for, no reference is held to a folio that is not locked: the owner of the lock may be another
//! collapse, which waits for that reference to go.

use super::{Patience, ScanResult};
use crate::{
    alloc::flags::GFP_KERNEL,
    mm::{
        folio::{LockedFolio, HPAGE_PMD_NR},
        mapping::PmdRange,
        mmdebug::vm_bug_on, //
    },
    sync::barrier::{smp_mb, Read},
};

/// Why a folio of a batch was not taken.
pub(super) enum NotTaken {
    /// The collapse fails.
    Failed(ScanResult),
    /// The folio has left the page cache since it was found.
    Moved,
    /// Another task has the folio locked, or waits for its lock with a reference.
    Busy(ScanResult),
}

impl From<ScanResult> for NotTaken {
    #[inline]
    fn from(result: ScanResult) -> Self {
        Self::Failed(result)
    }
}

/// Checks a locked folio before it is unmapped, and lets the file system release its data.
///
/// `end` is the index after the folio before it. Returns its index and the number of its pages.
#[inline]
pub(super) fn check(
    folio: &LockedFolio,
    range: PmdRange<'_>,
    is_shmem: bool,
    came_locked: bool,
    release: bool,
    end: usize,
    patience: &mut Patience,
) -> Result<(usize, usize), NotTaken> {
    let index = folio.index();
    let nr_pages = folio.nr_pages();
    let mapping = range.mapping();

    // Truncation and reclaim may have been faster. They take the folio lock, so the folio stays in
    // the page cache from here on.
    if !mapping.contains(folio) {
        return Err(if came_locked {
            ScanResult::Truncated.into()
        } else {
            NotTaken::Moved
        });
    }
    vm_bug_on!(!folio.is_locked());

    // The copy and the commit rely on all of these.
    if !folio.is_uptodate() {
        return Err(ScanResult::Fail.into());
    }
    // The range may have been truncated and filled with a huge folio before the first folio was
    // locked. The first folio shows that.
    if nr_pages == HPAGE_PMD_NR {
        return Err(ScanResult::PteMappedHugepage.into());
    }
    if !is_shmem && (folio.is_dirty() || folio.is_under_writeback()) {
        return Err(ScanResult::PageDirtyOrWriteback.into());
    }
    if index < end || index >= range.end() || nr_pages > range.end() - index {
        return Err(ScanResult::Truncated.into());
    }
    if !patience.wait(|| folio.is_on_lru()) {
        return Err(ScanResult::DelPageLru.into());
    }
    if (release || folio.has_private()) && !folio.release_private(GFP_KERNEL) {
        return Err(ScanResult::PageHasPrivate.into());
    }
    Ok((index, nr_pages))
}

/// Returns whether anything but the page cache and the batch has a reference to a folio.
#[inline]
pub(super) fn has_users(folio: &LockedFolio) -> bool {
    folio.ref_count() != 1 + folio.nr_pages()
}

/// Checks that nothing uses a folio that was unmapped.
#[inline]
pub(super) fn check_users(
    folio: &LockedFolio,
    is_shmem: bool,
    patience: &mut Patience,
) -> Result<(), NotTaken> {
    if has_users(folio) {
        if !patience.wait(|| !has_users(folio) || folio.has_waiters()) {
            return Err(ScanResult::PageCount.into());
        }
        if has_users(folio) {
            // A task waits for the folio lock, and keeps its reference until it gets that.
            return Err(NotTaken::Busy(ScanResult::PageCount));
        }
    }
    // Unmapping has moved the dirty bits of the page tables to the folio. A clean folio stays
    // clean, because a write takes the folio lock. If another task has unmapped it, that task has
    // set the flag and then dropped the reference.
    if !is_shmem {
        smp_mb(Read);
        if folio.is_dirty() {
            return Err(ScanResult::PageDirtyOrWriteback.into());
        }
    }
    Ok(())
}
