// SPDX-License-Identifier: GPL-2.0

//! The walk has the position in the tree and the preallocated nodes. The cursor would read them
//! from stack memory that has another use by then.

#![forbid(unsafe_code)]

use kernel::mm::{mapping::PmdRange, page_cache::Cursor};

fn begin(range: PmdRange<'_>) {
    let cursor = {
        let mut walk = range.walk();
        Cursor::new(&mut walk)
    };
    cursor.is_open_for_write();
}

fn main() {}
