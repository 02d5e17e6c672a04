// SPDX-License-Identifier: GPL-2.0

//! The page cache would go on pointing to freed folios.

#![forbid(unsafe_code)]

use kernel::mm::{khugepaged::OldFolios, rmap::Flushed};

fn free(old: OldFolios<'_, Flushed>) {
    old.release();
}

fn main() {}
