// SPDX-License-Identifier: GPL-2.0

//! The list gives the folio back: to unlock it and put it back on the LRU a second time breaks the
//! list of the LRU and the reference count.

#![forbid(unsafe_code)]

use kernel::mm::folio::{FolioList, IsolatedFolio};

fn gather(list: &mut FolioList, folio: IsolatedFolio) {
    list.push(folio);
    drop(folio);
}

fn main() {}
