// SPDX-License-Identifier: GPL-2.0

//! A CPU may still write through its TLB. A write that comes after the copy is lost.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    page_cache::Cursor,
};

fn copy<'m>(old: OldFolios<'m, Gathering>, cursor: &Cursor<'_, 'm>) -> bool {
    old.copy(cursor).is_ok()
}

fn main() {}
