// SPDX-License-Identifier: GPL-2.0

//! An end taken for the last index finds a userfaultfd behind the range, and the collapse is
//! refused for nothing.

#![forbid(unsafe_code)]

use kernel::mm::{page_cache::PmdRange, rmap::IMmapReadGuard};

fn has_userfaultfd(i_mmap: &IMmapReadGuard<'_>, range: PmdRange<'_>) -> bool {
    i_mmap
        .vmas(range.start()..=range.end())
        .any(|vma| vma.userfaultfd_missing())
}

fn main() {}
