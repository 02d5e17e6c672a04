// SPDX-License-Identifier: GPL-2.0

//! Without the lock another task may free the node that the cursor is on. The next step reads freed
//! memory.

#![forbid(unsafe_code)]

use kernel::mm::page_cache::LockedCursor;

fn look_once_more(mut locked: LockedCursor<'_, '_>) -> bool {
    locked.load(0);
    let cursor = locked.unlock();
    cursor.is_open_for_write();
    locked.rest_is_empty()
}

fn main() {}
