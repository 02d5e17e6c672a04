// SPDX-License-Identifier: GPL-2.0

//! The file: its `address_space` and inode, and the functions that access their fields.

use crate::{
    world::{check, with},
    xa::xarray,
    HPAGE_PMD_NR,
};

/// `struct address_space`.
#[repr(C)]
pub struct address_space {
    pub i_pages: xarray,
    pub host: *mut inode,
    pub nrpages: usize,
    pub is_shmem: bool,
    /// True if the file system supports folios of PMD size.
    pub pmd_folios: bool,
    /// True if the file system has a function to read folios with.
    pub reads: bool,
}

impl address_space {
    /// Creates an empty mapping at its final address.
    pub fn new(is_shmem: bool) -> Box<Self> {
        Box::new(Self {
            i_pages: xarray::default(),
            host: core::ptr::null_mut(),
            nrpages: 0,
            is_shmem,
            pmd_folios: true,
            reads: true,
        })
    }
}

/// `struct inode`.
#[repr(C)]
pub struct inode {
    pub mapping: *mut address_space,
    /// The number of pages that the file is charged for.
    pub blocks: usize,
    /// The number of pages that are swapped out.
    pub swapped: usize,
    /// The number of pages up to the end of the file.
    pub size: usize,
    /// True if a task has it open for writing.
    pub open_for_write: bool,
    /// True if `filemap_flush()` was called.
    pub flushed: bool,
}

impl Default for inode {
    fn default() -> Self {
        Self {
            mapping: core::ptr::null_mut(),
            blocks: 0,
            swapped: 0,
            size: 4 * HPAGE_PMD_NR,
            open_for_write: false,
            flushed: false,
        }
    }
}

/// `struct file_ra_state`.
#[derive(Default)]
pub struct file_ra_state {
    _unused: usize,
}

/// `struct file`.
#[repr(C)]
pub struct file {
    pub mapping: *mut address_space,
}

impl Default for file {
    fn default() -> Self {
        Self {
            mapping: core::ptr::null_mut(),
        }
    }
}

/// # Safety
///
/// `file` must be the one of this world.
pub unsafe fn file_mapping(file: *const file) -> *mut address_space {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*file).mapping }
}

/// # Safety
///
/// `file` must be the one of this world.
pub unsafe fn file_is_regular(_file: *const file) -> bool {
    true
}

/// # Safety
///
/// `file` must be the one of this world.
pub unsafe fn file_ra(_file: *mut file) -> *mut file_ra_state {
    with(|w| &raw mut *w.ra)
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_host(mapping: *const address_space) -> *mut inode {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).host }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_i_pages(mapping: *mut address_space) -> *mut xarray {
    // SAFETY: By the safety requirements of this function.
    unsafe { &raw mut (*mapping).i_pages }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_sub_nrpages(mapping: *mut address_space, nr: usize) {
    check(
        with(|w| w.lock_owner == Some(w.current)),
        "nrpages changes without the page-cache lock",
    );
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).nrpages -= nr };
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn shmem_mapping(mapping: *mut address_space) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).is_shmem }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_release_always(_mapping: *const address_space) -> bool {
    false
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_pmd_folio_support(mapping: *const address_space) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).pmd_folios }
}

/// # Safety
///
/// `mapping` must be the one of this world.
pub unsafe fn mapping_can_read_folios(mapping: *const address_space) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*mapping).reads }
}

/// # Safety
///
/// `inode` must be the one of this world.
pub unsafe fn inode_is_open_for_write(inode: *const inode) -> bool {
    // SAFETY: By the safety requirements of this function.
    unsafe { (*inode).open_for_write }
}
