// SPDX-License-Identifier: GPL-2.0

//! The cursor would take its place in the tree, and the nodes allocated ahead, from a part of the
//! stack that is in use for something else, after these nodes were freed.

#![forbid(unsafe_code)]

use kernel::mm::page_cache::{Cursor, PmdRange};

fn begin<'m>(range: PmdRange<'m>) {
    let cursor = {
        let mut walk = range.walk();
        Cursor::new(&mut walk)
    };
    cursor.filemap_flush();
}

fn main() {}
