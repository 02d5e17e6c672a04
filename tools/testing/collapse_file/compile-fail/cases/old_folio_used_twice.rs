// SPDX-License-Identifier: GPL-2.0

//! The collapse unlocks the folio and drops its reference. The second time corrupts both.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    folio::LockedFolio,
};

fn gather(old: &mut OldFolios<'_, Gathering<'_>>, folio: LockedFolio) {
    let _ = old.begin_with(folio);
    drop(folio);
}

fn main() {}
