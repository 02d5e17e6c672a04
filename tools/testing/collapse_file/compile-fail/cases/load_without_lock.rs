// SPDX-License-Identifier: GPL-2.0

//! Without the lock, the walk goes through nodes that are being freed. The folio that it finds may
//! be gone before it is used.

#![forbid(unsafe_code)]

use kernel::mm::page_cache::{Cursor, Entry};

fn is_hole(mut cursor: Cursor<'_, '_>, index: usize) -> bool {
    matches!(cursor.load(index), Entry::Empty)
}

fn main() {}
