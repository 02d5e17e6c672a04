// SPDX-License-Identifier: GPL-2.0

//! The folio is freed with the others, and what is done with it then is done to somebody else's.

#![forbid(unsafe_code)]

use kernel::mm::{khugepaged::OldFolios, rmap::Flushed};

fn look_later(old: OldFolios<'_, Flushed>) -> bool {
    let first = old.folios().next();
    drop(old);
    first.is_some_and(|folio| folio.is_dirty())
}

fn main() {}
