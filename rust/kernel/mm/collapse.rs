// SPDX-License-Identifier: GPL-2.0

//! Collapsing the small folios of a file into one huge folio: the types that
//! `mm/collapse_file.rs` uses.
//!
//! # The collapse
//!
//! [`OldFolios`] is a collapse in progress. It owns the new folio and the old ones, and its state
//! says how far the collapse is:
//!
//! ```text
//!               flush               charge_holes            copy
//!   Gathering --------> Flushed ------------------> Charged ------> Copied
//! ```
//!
//! - [`Gathering`]: folios are locked, unmapped and isolated, a batch at a time. CPUs may still
//!   write to them through their TLBs.
//! - [`Flushed`]: no CPU has a translation any more. The content of the old folios is stable.
//! - [`Charged`]: the file is charged for the holes.
//! - [`Copied`]: the new folio has the content of exactly these old folios, and zeroes for the
//!   holes. It is uptodate.
//!
//! # The replacement
//!
//! The rest happens under one hold of the page-cache lock:
//!
//! ```text
//!               lock_for_commit   fill_holes               expect_holes
//!   OldFolios<Copied> ----> LastLock ----------> FilledRange --------------> CountedRange
//!                                                                                  |
//!                           HugeFolio, ReplacedFolios <-------- SealedRange <------+
//!                                                      commit           check_userfaultfd
//! ```
//!
//! - [`FilledRange`], [`CountedRange`]: each empty slot of the range holds `XA_RETRY_ENTRY`.
//!   Lockless readers spin on it, so no other task may see it after the lock is released. These
//!   types have no method that unlocks, and dropping them removes the retry entries first.
//! - [`SealedRange`]: no task can have observed a hole that the commit fills.
//!
//! Each of these rolls the whole collapse back when it is dropped: it removes the retry entries,
//! releases the lock and `i_mmap_rwsem`, uncharges the holes, puts the old folios back and frees
//! the new one.
//!
//! # Examples
//!
//! A shmem file consists of its first page and holes, and becomes one huge folio. The cases of
//! `mm/collapse_file.rs` are left out.
//!
//! ```
//! use kernel::mm::{
//!     collapse::{NewFolio, OldFolios, Patience},
//!     mapping::AddressSpace,
//!     page_cache::Cursor,
//! };
//!
//! # use kernel::mm::kunit::{mm, Control, ShmemFile};
//! # let file = ShmemFile::new(512)?;
//! # file.fill(0..1)?;
//! # let (mm, cc) = (mm()?, Control::new()?);
//! let range = AddressSpace::of(&file).pmd_range(0);
//! let new = NewFolio::alloc_charged(&mm, &cc, range).map_err(|_| ENOMEM)?;
//! let mut old = OldFolios::new(new)?;
//! let mut patience = Patience::new(&cc);
//! let mut walk = range.walk();
//!
//! // One batch has the page and the holes after it.
//! let mut locked = Cursor::new(&mut walk).lock_with_slots()?;
//! old.find(&mut locked, |folio| folio.is_uptodate());
//! let cursor = locked.unlock();
//! old.take(&cursor, &mut patience).map_err(|_| EAGAIN)?;
//! let cursor = old.lock(cursor).map_err(|_| EAGAIN)?.unlock();
//!
//! let old = old.flush(&cursor).charge_holes(&cursor)?;
//! let old = old.copy(&cursor).map_err(|_| EIO)?;
//!
//! // Nothing of it is visible before this.
//! let (huge, replaced) = old
//!     .lock_for_commit(cursor)
//!     .fill_holes()?
//!     .expect_holes()?
//!     .check_userfaultfd()?
//!     .commit()?;
//! huge.retract_page_tables();
//! huge.unlock();
//! replaced.release();
//!
//! # assert_eq!(file.pages(), range.indices().len());
//! # assert_eq!((file.content(0)?, file.content(1)?), (ShmemFile::byte(0), 0));
//! # assert!(file.folio(0)?.is_pmd_order());
//! # Ok::<(), Error>(())
//! ```
//!
//! C files: `mm/khugepaged.c`, `mm/khugepaged.h`

mod batch;
mod checks;
mod control;
mod gather;
mod missing;
mod new_folio;
mod old_folios;
mod patience;
mod replace;

pub use {
    batch::BATCH_SIZE,
    control::{trace_collapse_file, CollapseControl, ScanResult},
    missing::NoFolios,
    new_folio::{HugeFolio, NewFolio},
    old_folios::{Charged, Copied, Flushed, Gathering, OldFolios, ReplacedFolios},
    patience::Patience,
    replace::{CountedRange, FilledRange, LastLock, SealedRange},
};

// The macro that exports the algorithm to C.
pub use control::export_collapse_file;

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
mod tests;
