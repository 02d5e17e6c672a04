// SPDX-License-Identifier: GPL-2.0

//! The page cache would keep pointers to freed folios.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{Copied, OldFolios};

fn free<'m>(old: OldFolios<'m, Copied>) {
    old.release();
}

fn main() {}
