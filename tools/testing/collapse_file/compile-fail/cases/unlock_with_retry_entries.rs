// SPDX-License-Identifier: GPL-2.0

//! Readers that find an entry to retry on spin until it is gone, and nobody would remove it.

#![forbid(unsafe_code)]

use kernel::mm::page_cache::{Cursor, FilledCursor};

fn give_up<'w, 'm>(filled: FilledCursor<'w, 'm>) -> Cursor<'w, 'm> {
    filled.unlock()
}

fn main() {}
