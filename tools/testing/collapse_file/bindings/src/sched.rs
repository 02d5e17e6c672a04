// SPDX-License-Identifier: GPL-2.0

//! These functions stand in for those of the scheduler, the clock and signals.

use crate::world::{called, check, might_sleep, point, with};

/// Returns the time in ns.
///
/// # Safety
///
/// There are no requirements.
pub unsafe fn ktime_get() -> i64 {
    with(|w| w.clock)
}

/// Executes one turn of a loop that waits: advances the clock and lets other tasks run.
///
/// # Safety
///
/// There are no requirements.
pub unsafe fn cpu_relax() {
    check(
        with(|w| !w.i_mmap_readers.contains(&w.current)),
        "a task waits for another one with i_mmap_rwsem held",
    );
    with(|w| w.clock += w.turn);
    called("cpu_relax");
    point();
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn cond_resched() {
    might_sleep("cond_resched");
}

/// `struct task_struct`.
pub struct task_struct(());

/// # Safety
///
/// There are no requirements.
pub unsafe fn get_current() -> *mut task_struct {
    core::ptr::null_mut()
}

/// # Safety
///
/// There are no requirements.
pub unsafe fn fatal_signal_pending(_task: *mut task_struct) -> bool {
    with(|w| w.killed)
}
