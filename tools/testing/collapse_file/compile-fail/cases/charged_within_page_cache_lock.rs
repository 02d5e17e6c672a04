// SPDX-License-Identifier: GPL-2.0

//! Charging takes the page-cache lock. The task waits for itself forever.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Flushed, OldFolios},
    page_cache::LockedCursor,
};

fn charge<'m>(old: OldFolios<'m, Flushed>, locked: &LockedCursor<'_, 'm>) -> bool {
    old.charge_holes(locked).is_ok()
}

fn main() {}
