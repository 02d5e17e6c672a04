// SPDX-License-Identifier: GPL-2.0

//! The list puts the folio back. Putting it back on the LRU a second time corrupts the list and the
//! reference count.

#![forbid(unsafe_code)]

use kernel::mm::folio::{FolioList, IsolatedFolio};

fn gather(list: &mut FolioList, folio: IsolatedFolio) {
    list.push(folio);
    drop(folio);
}

fn main() {}
