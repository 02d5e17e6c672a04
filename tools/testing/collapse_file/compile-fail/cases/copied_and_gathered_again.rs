// SPDX-License-Identifier: GPL-2.0

//! The old folios are unlocked after the copy and gathered again. Data that was written between the
//! two is lost.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{Batch, Copied, Gathering, OldFolios};

fn gather_again<'b, 'm>(
    copied: OldFolios<'m, Copied<'m>>,
    batch: &'b mut Batch,
) -> OldFolios<'m, Gathering<'b>> {
    OldFolios::new(copied.new, batch)
}

fn main() {}
