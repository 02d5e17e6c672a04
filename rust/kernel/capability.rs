// SPDX-License-Identifier: GPL-2.0

//! Capabilities: what of the superuser's rights a task has.
//!
//! C header: [`include/linux/capability.h`](srctree/include/linux/capability.h)

use crate::{bindings, ffi::c_int};

/// One of the superuser's rights.
///
/// # Invariants
///
/// Holds a number that the kernel has a capability for.
#[derive(Clone, Copy)]
pub struct Capability(c_int);

impl Capability {
    /// To administer the system: `CAP_SYS_ADMIN`.
    // INVARIANT: The kernel's own number.
    pub const SYS_ADMIN: Self = Self(bindings::CAP_SYS_ADMIN as c_int);
}

/// Whether the current task has `capability` in the initial user namespace: `capable()`.
///
/// Asks the security modules too, and notes that the capability was used if it is there, so that
/// this is not to be asked in advance.
pub fn capable(capability: Capability) -> bool {
    // SAFETY: The capability exists, by the type invariant.
    unsafe { bindings::capable(capability.0) }
}
