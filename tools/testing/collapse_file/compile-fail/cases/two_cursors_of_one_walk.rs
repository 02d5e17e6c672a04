// SPDX-License-Identifier: GPL-2.0

//! The cursor that locks second waits for itself forever.

#![forbid(unsafe_code)]

use kernel::mm::page_cache::{Cursor, Walk};

fn begin(walk: &mut Walk<'_>) {
    let one = Cursor::new(walk).lock();
    let two = Cursor::new(walk).lock();
    one.unlock();
    two.unlock();
}

fn main() {}
