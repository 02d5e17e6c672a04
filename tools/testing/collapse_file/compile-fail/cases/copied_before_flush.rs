// SPDX-License-Identifier: GPL-2.0

//! A CPU may go on writing through its TLB, and what it writes behind the copy is lost.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{CopyCursor, OldFolios},
    rmap::UnmapBatch,
};

fn copy_all(copy: &mut CopyCursor<'_>, old: &OldFolios<'_, UnmapBatch>) -> bool {
    old.folios().all(|folio| copy.copy_folio(folio))
}

fn main() {}
