// SPDX-License-Identifier: GPL-2.0

//! A simulation of the C functions that `mm/collapse_file.rs` and the abstractions below it call
//! through `bindgen`.
//!
//! The XArray is the kernel's own. The rest is a model of one file: its page cache, the VMAs that
//! map it, and the tasks that use it. Each function checks the contract of the C function of the
//! same name, and records a violation in the [`world`] if it is broken.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
// Pointers come from the world, and their targets stay allocated until the next world.
#![allow(clippy::not_unsafe_ptr_arg_deref)]

pub mod event;
pub mod filemap;
mod folios;
pub mod khugepaged;
mod list;
mod lru;
mod mapping;
pub mod page_cache;
pub mod rmap;
mod sched;
pub mod shmem;
pub mod timeline;
pub mod world;
pub mod xa;
mod xa_lock;
mod xa_nodes;
pub mod xa_store;

pub use filemap::*;
pub use folios::*;
pub use khugepaged::*;
pub use list::*;
pub use lru::*;
pub use mapping::*;
pub use rmap::*;
pub use sched::*;
pub use shmem::*;
pub use xa::*;
pub use xa_lock::*;
pub use xa_store::*;

include!(concat!(env!("OUT_DIR"), "/sizes.rs"));

/// The number of pages that a PMD maps.
pub const HPAGE_PMD_NR: usize = 1 << HPAGE_PMD_ORDER;
