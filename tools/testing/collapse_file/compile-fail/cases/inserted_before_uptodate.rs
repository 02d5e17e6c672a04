// SPDX-License-Identifier: GPL-2.0

//! Who finds the folio in the page cache has it zeroed, or read from the disk again, over all that
//! was copied.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{CopyCursor, OldFolios},
    page_cache::SealedCursor,
    rmap::Flushed,
    shmem::Charge,
};

fn replace<'m>(
    sealed: SealedCursor<'_, 'm>,
    copy: CopyCursor<'m>,
    charge: Charge<'m>,
    old: OldFolios<'m, Flushed>,
) {
    let new = copy.clear_rest();
    sealed.commit(new, charge, old);
}

fn main() {}
