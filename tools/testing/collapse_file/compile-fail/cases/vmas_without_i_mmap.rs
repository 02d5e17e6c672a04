// SPDX-License-Identifier: GPL-2.0

//! The tree of a file's mappings is rebalanced, and the VMA freed, while the walk goes on.

#![forbid(unsafe_code)]

use kernel::mm::rmap::IMmapReadGuard;

fn look_later(i_mmap: IMmapReadGuard<'_>) -> bool {
    let mut vmas = i_mmap.vmas(0..1);
    drop(i_mmap);
    vmas.any(|vma| vma.userfaultfd_missing())
}

fn main() {}
