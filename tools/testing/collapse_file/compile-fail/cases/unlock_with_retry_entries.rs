// SPDX-License-Identifier: GPL-2.0

//! Readers that find a retry entry spin until it is gone. No task removes it.

#![forbid(unsafe_code)]

use kernel::mm::{collapse::FilledRange, page_cache::Cursor};

fn give_up<'w, 'm>(filled: FilledRange<'w, 'm>) -> Cursor<'w, 'm> {
    filled.unlock()
}

fn main() {}
