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
    /// `CAP_SYS_ADMIN`: administration of the system.
    // INVARIANT: The kernel's own number.
    pub const SYS_ADMIN: Self = Self(bindings::CAP_SYS_ADMIN as c_int);
}

/// Returns whether the current task has `capability` in the initial user namespace: `capable()`.
///
/// Asks the security modules too, and notes that the capability was used if it is there, so that
/// this is not to be asked in advance.
///
/// # Examples
///
/// ```
/// use kernel::capability::{capable, Capability};
///
/// fn may_look() -> Result {
///     if capable(Capability::SYS_ADMIN) {
///         Ok(())
///     } else {
///         Err(EPERM)
///     }
/// }
/// # // The kernel's own threads may.
/// # assert!(may_look().is_ok());
/// ```
pub fn capable(capability: Capability) -> bool {
    // SAFETY: The capability exists, by the type invariant.
    unsafe { bindings::capable(capability.0) }
}

#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_capability)]
mod tests {
    use super::*;
    use crate::error::{code::ENOMEM, to_result, Result};

    #[test]
    fn thread_of_the_kernel_has_it() {
        assert!(capable(Capability::SYS_ADMIN));
    }

    #[cfg(CONFIG_MULTIUSER)]
    #[test]
    fn it_is_missing_once_given_up() -> Result {
        // SAFETY: No preconditions.
        let cred = unsafe { bindings::prepare_creds() };

        if cred.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: The credentials are new and ours alone.
        unsafe { (*cred).cap_effective.val &= !(1 << bindings::CAP_SYS_ADMIN) };
        // SAFETY: As above, and handed over. They go with the thread, which is this test's.
        to_result(unsafe { bindings::commit_creds(cred) })?;

        assert!(!capable(Capability::SYS_ADMIN));
        Ok(())
    }
}
