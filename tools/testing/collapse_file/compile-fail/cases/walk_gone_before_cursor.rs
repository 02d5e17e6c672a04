// SPDX-License-Identifier: GPL-2.0

//! The cursor would read its place in the tree, and the preallocated nodes, from a part of the stack
//! that is in use for something else.

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
