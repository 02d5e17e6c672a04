// SPDX-License-Identifier: GPL-2.0

//! The old folios are unlocked after the copy and gathered again. Data that was written between the
//! two is lost.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{Copied, Gathering, OldFolios};

fn gather_again<'m>(copied: OldFolios<'m, Copied>) -> Option<OldFolios<'m, Gathering>> {
    OldFolios::new(copied.collapse).ok()
}

fn main() {}
