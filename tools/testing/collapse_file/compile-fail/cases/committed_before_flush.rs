// SPDX-License-Identifier: GPL-2.0

//! The old folios are freed while CPUs still reach them through their TLBs: they write to memory
//! that is somebody else's.

#![forbid(unsafe_code)]

use kernel::mm::{
    khugepaged::{NewFolio, OldFolios, Uptodate},
    page_cache::SealedCursor,
    rmap::UnmapBatch,
    shmem::Charge,
};

fn replace<'m>(
    sealed: SealedCursor<'_, 'm>,
    new: NewFolio<'m, Uptodate>,
    charge: Charge<'m>,
    old: OldFolios<'m, UnmapBatch>,
) {
    sealed.commit(new, charge, old);
}

fn main() {}
