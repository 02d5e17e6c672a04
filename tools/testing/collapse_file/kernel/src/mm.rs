// SPDX-License-Identifier: GPL-2.0

//! Memory management.

#[path = "../../../../../rust/kernel/mm/folio.rs"]
pub mod folio;
#[path = "../../../../../rust/kernel/mm/khugepaged.rs"]
pub mod khugepaged;
#[path = "../../../../../rust/kernel/mm/mmdebug.rs"]
pub mod mmdebug;
#[path = "../../../../../rust/kernel/mm/page_cache.rs"]
pub mod page_cache;
#[path = "../../../../../rust/kernel/mm/page_cache_map.rs"]
pub mod page_cache_map;
#[path = "../../../../../rust/kernel/mm/rmap.rs"]
pub mod rmap;
#[path = "../../../../../rust/kernel/mm/shmem.rs"]
pub mod shmem;

use crate::types::Opaque;

/// `struct mm_struct`.
#[repr(transparent)]
pub struct Mm(Opaque<bindings::mm_struct>);

impl Mm {
    /// Makes a Rust reference from a C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is valid for `'a`.
    pub unsafe fn from_raw<'a>(ptr: *const bindings::mm_struct) -> &'a Self {
        // SAFETY: Transparent; the caller promises the rest.
        unsafe { &*ptr.cast() }
    }

    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::mm_struct {
        self.0.get()
    }
}
