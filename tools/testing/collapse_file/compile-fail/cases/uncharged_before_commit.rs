// SPDX-License-Identifier: GPL-2.0

//! The pages are in the file although the charge was returned. The file system gives the same space
//! to another file.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{Copied, OldFolios};

fn uncharge<'m>(old: OldFolios<'m, Copied>) {
    drop(old.collapse.charge);
}

fn main() {}
