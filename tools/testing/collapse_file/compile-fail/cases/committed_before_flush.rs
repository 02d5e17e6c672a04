// SPDX-License-Identifier: GPL-2.0

//! The old folios are freed while CPUs still reach them through their TLBs. These CPUs write to
//! memory that belongs to another task.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, LastLock, OldFolios},
    page_cache::Cursor,
};

fn lock<'w, 'm>(old: OldFolios<'m, Gathering>, cursor: Cursor<'w, 'm>) -> LastLock<'w, 'm> {
    old.lock_for_commit(cursor)
}

fn main() {}
