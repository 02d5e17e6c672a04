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
pub mod folios;
pub mod khugepaged;
pub mod mapping;
pub mod rmap;
pub mod shmem;
pub mod world;
pub mod xa;

pub use folios::*;
pub use khugepaged::*;
pub use mapping::*;
pub use rmap::*;
pub use shmem::*;
pub use world::{cond_resched, cpu_relax, fatal_signal_pending, get_current, ktime_get};
pub use xa::*;

include!(concat!(env!("OUT_DIR"), "/sizes.rs"));

/// The number of pages that a PMD maps.
pub const HPAGE_PMD_NR: usize = 1 << HPAGE_PMD_ORDER;
