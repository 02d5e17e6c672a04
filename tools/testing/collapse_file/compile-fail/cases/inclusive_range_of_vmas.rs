// SPDX-License-Identifier: GPL-2.0

//! An inclusive range also has the first page after the range. A userfaultfd for that page makes
//! the collapse fail for no reason.

#![forbid(unsafe_code)]

use kernel::mm::mapping::{IMmapReadGuard, PmdRange};

fn has_userfaultfd(i_mmap: &IMmapReadGuard<'_>, range: PmdRange<'_>) -> bool {
    i_mmap
        .vmas(range.start()..=range.end())
        .any(|vma| vma.userfaultfd_missing())
}

fn main() {}
