// SPDX-License-Identifier: GPL-2.0

//! The folios still point to their mapping, which is freed with the inode.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{ReplacedFolios, SealedRange};

fn replace<'m>(sealed: SealedRange<'_, 'm>) -> Option<ReplacedFolios<'static>> {
    sealed.commit().ok().map(|(_, replaced)| replaced)
}

fn main() {}
