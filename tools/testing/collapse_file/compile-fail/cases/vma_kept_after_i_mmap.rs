// SPDX-License-Identifier: GPL-2.0

//! After the lock was released, munmap() frees the VMA.

#![forbid(unsafe_code)]

use kernel::mm::mapping::{IMmapReadGuard, RmapVma};

fn first<'m>(i_mmap: IMmapReadGuard<'m>) -> Option<&'m RmapVma> {
    i_mmap.vmas(0..1).next()
}

fn main() {}
