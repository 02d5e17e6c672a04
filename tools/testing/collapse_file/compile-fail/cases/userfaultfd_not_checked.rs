// SPDX-License-Identifier: GPL-2.0

//! Pages that a userfaultfd is to deliver turn up as zeroes: the virtual machine that is being
//! restored has lost them.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{NewFolio, OldFolios, Uptodate},
    page_cache::CountedCursor,
    rmap::Flushed,
    shmem::Charge,
};

fn replace<'m>(
    counted: CountedCursor<'_, 'm>,
    new: NewFolio<'m, Uptodate>,
    charge: Charge<'m>,
    old: OldFolios<'m, Flushed>,
) {
    counted.commit(new, charge, old);
}

fn main() {}
