// SPDX-License-Identifier: GPL-2.0

//! The collapse unlocks the folio and drops its reference. The second time corrupts both.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    folio::LockedFolio,
};

fn gather(old: &mut OldFolios<'_, Gathering>, folio: LockedFolio) {
    old.begin_batch();
    let _ = old.add_locked(folio);
    drop(folio);
}

fn main() {}
