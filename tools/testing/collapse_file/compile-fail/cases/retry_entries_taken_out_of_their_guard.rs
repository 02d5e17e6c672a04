// SPDX-License-Identifier: GPL-2.0

//! The locked cursor of a filled range can be unlocked with the retry entries in the tree. Readers
//! spin forever.

#![forbid(unsafe_code)]

use kernel::mm::{collapse::FilledRange, page_cache::Cursor};

fn give_up<'w, 'm>(filled: FilledRange<'w, 'm>) -> Cursor<'w, 'm> {
    filled.0.locked.unlock()
}

fn main() {}
