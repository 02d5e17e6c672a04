// SPDX-License-Identifier: GPL-2.0

//! The page-cache lock, which is the lock of the XArray, and interrupts.

use crate::{
    event::What,
    world::{self, check, log, stop, with, Wait},
};
use std::ffi::c_void;

/// `spinlock_t`.
#[repr(C)]
#[derive(Default)]
pub struct spinlock_t(u32);

/// Takes the page-cache lock.
#[no_mangle]
extern "C" fn sim_lock(_lock: *mut c_void, irq: bool) {
    check(
        irq,
        "the page-cache lock is taken without disabling interrupts",
    );
    world::called("lock");
    if with(|w| w.lock_owner == Some(w.current)) {
        stop("the page-cache lock is taken twice");
    }
    check(
        with(|w| w.me().irqs_disabled == 0),
        "the page-cache lock is taken with interrupts off, and its release enables them",
    );
    acquire();
}

fn acquire() {
    world::wait_until(Wait::Lock);
    with(|w| {
        w.lock_owner = Some(w.current);
        w.me().irqs_disabled += 1;
    });
    log(What::Lock);
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn irqs_disabled() -> bool {
    with(|w| w.me().irqs_disabled > 0)
}

/// Takes the page-cache lock.
///
/// Interrupts may be disabled already.
///
/// # Safety
///
/// There are no requirements.
pub unsafe fn spin_lock_irq_disable(_lock: *mut spinlock_t) {
    world::called("lock");
    if with(|w| w.lock_owner == Some(w.current)) {
        stop("the page-cache lock is taken twice");
    }
    acquire();
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn spin_unlock_irq_enable(lock: *mut spinlock_t) {
    sim_unlock(lock.cast(), true);
}

#[no_mangle]
extern "C" fn sim_unlock(_lock: *mut c_void, _irq: bool) {
    check(
        with(|w| w.lock_owner == Some(w.current)),
        "the page-cache lock is released by a task that does not hold it",
    );
    log(What::Unlock);
    with(|w| {
        w.lock_owner = None;
        w.me().irqs_disabled -= 1;
        // All retry entries are gone by now; `retry_is_not_left()` checks this.
        w.me().unordered = false;
    });
    world::called("unlocked");
}

#[no_mangle]
extern "C" fn sim_lock_is_held(_lock: *const c_void) -> bool {
    with(|w| w.lock_owner == Some(w.current))
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn lockdep_assert_irqs_enabled() {
    check(
        with(|w| w.me().irqs_disabled == 0),
        "interrupts are off where they must be enabled",
    );
}
