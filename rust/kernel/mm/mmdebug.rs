// SPDX-License-Identifier: GPL-2.0

//! Assertions for memory management: checked when `CONFIG_DEBUG_VM` is set, free otherwise.
//!
//! C header: [`include/linux/mmdebug.h`](srctree/include/linux/mmdebug.h)

/// Stops the kernel if the condition holds and `CONFIG_DEBUG_VM` is set: `VM_BUG_ON()`.
#[macro_export]
macro_rules! vm_bug_on {
    ($cond:expr) => {
        if cfg!(CONFIG_DEBUG_VM) {
            assert!(!$cond, concat!("VM_BUG_ON(", stringify!($cond), ")"));
        }
    };
}

/// Warns the first time the condition holds, if `CONFIG_DEBUG_VM` is set: `VM_WARN_ON_ONCE()`.
#[macro_export]
macro_rules! vm_warn_on_once {
    ($cond:expr) => {
        if cfg!(CONFIG_DEBUG_VM) && $cond {
            $crate::do_once_lite! {
                $crate::warn_on!(true);
            }
        }
    };
}

pub use {vm_bug_on, vm_warn_on_once};
