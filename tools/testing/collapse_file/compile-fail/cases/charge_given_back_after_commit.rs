// SPDX-License-Identifier: GPL-2.0

//! The pages are in the file, and giving the charge back lets the file system hand out the same
//! room twice.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{NewFolio, OldFolios, Uptodate},
    page_cache::SealedCursor,
    rmap::Flushed,
    shmem::Charge,
};

fn replace<'m>(
    sealed: SealedCursor<'_, 'm>,
    new: NewFolio<'m, Uptodate>,
    charge: Charge<'m>,
    old: OldFolios<'m, Flushed>,
) {
    sealed.commit(new, charge, old);
    drop(charge);
}

fn main() {}
