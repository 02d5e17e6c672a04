// SPDX-License-Identifier: GPL-2.0

//! An end that is taken for the last index finds a userfaultfd past the end of the range. The
//! collapse is refused for no reason.

#![forbid(unsafe_code)]

use kernel::mm::mapping::{IMmapReadGuard, PmdRange};

fn has_userfaultfd(i_mmap: &IMmapReadGuard<'_>, range: PmdRange<'_>) -> bool {
    i_mmap
        .vmas(range.start()..=range.end())
        .any(|vma| vma.userfaultfd_missing())
}

fn main() {}
