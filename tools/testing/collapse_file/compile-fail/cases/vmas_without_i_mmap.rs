// SPDX-License-Identifier: GPL-2.0

//! The tree of a file's VMAs is rebalanced, and the VMA freed, during the walk.

#![forbid(unsafe_code)]

use kernel::mm::mapping::IMmapReadGuard;

fn look_later(i_mmap: IMmapReadGuard<'_>) -> bool {
    let mut vmas = i_mmap.vmas(0..1);
    drop(i_mmap);
    vmas.any(|vma| vma.userfaultfd_missing())
}

fn main() {}
