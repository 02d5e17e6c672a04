// SPDX-License-Identifier: GPL-2.0

//! The one that locks second waits for itself for ever, and each would move the other to another
//! node.

#![forbid(unsafe_code)]

use kernel::mm::page_cache::{Cursor, Walk};

fn begin(walk: &mut Walk<'_>) {
    let one = Cursor::new(walk).lock();
    let two = Cursor::new(walk).lock();
    one.unlock();
    two.unlock();
}

fn main() {}
