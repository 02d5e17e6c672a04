// SPDX-License-Identifier: GPL-2.0

//! Whoever has the locked cursor of a filled one can unlock it, with the entries to retry on in
//! the tree: readers spin for ever.

#![forbid(unsafe_code)]

use kernel::mm::page_cache::{Cursor, FilledCursor};

fn give_up<'w, 'm>(filled: FilledCursor<'w, 'm>) -> Cursor<'w, 'm> {
    filled.locked.unlock()
}

fn main() {}
