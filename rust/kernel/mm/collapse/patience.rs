// SPDX-License-Identifier: GPL-2.0

//! Waiting for other tasks that use a folio for a moment only.
//!
//! A reader holds a reference for the time of a copy, and a writer holds the folio lock. The LRU
//! batch of a CPU holds a reference until it is drained. All of these go away without a collapse
//! having to fail. A pin does not go away. The two look alike, so a collapse waits for a bounded
//! time and then gives up.

use super::CollapseControl;
use crate::{
    bindings,
    mm::folio::lru_add_drain_all,
    processor::cpu_relax,
    time::{Delta, Instant, Monotonic}, //
};

/// What a collapse for `madvise()` waits in all: about as long as it takes to copy 2 MiB.
const MADVISE_BUDGET: Delta = Delta::from_millis(1);

/// What a collapse by khugepaged waits in all. The daemon is in no hurry.
const KHUGEPAGED_BUDGET: Delta = Delta::from_millis(10);

/// What a folio is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its lock, or a task that has its lock or waits for that.
    Task,
    /// Its references or its place on the LRU. The LRU batch of a CPU may be the cause.
    LruBatch,
}

/// How often a collapse goes back to a folio that other tasks have changed or locked.
///
/// Each time another task has made progress, which takes time that is not in the budget.
const TRIES: u32 = 64;

/// The time that a collapse may still spend on waiting for other tasks.
///
/// The time is the sum over all folios, so a collapse is delayed by a bounded time.
pub struct Patience {
    left: Delta,
    tries: u32,
    drained: bool,
}

impl Patience {
    /// Creates the budget of one collapse.
    #[inline]
    pub fn new(cc: &CollapseControl) -> Self {
        Self {
            left: if cc.is_khugepaged() {
                KHUGEPAGED_BUDGET
            } else {
                MADVISE_BUDGET
            },
            tries: TRIES,
            drained: false,
        }
    }

    /// Returns whether to go back to a folio once more.
    #[inline]
    pub(super) fn try_again(&mut self) -> bool {
        let again = self.tries > 0;

        self.tries = self.tries.saturating_sub(1);
        again
    }

    /// Waits until `done` returns true. Returns false if the budget is spent before.
    ///
    /// Context: may sleep. Folio locks may be held, but not `i_mmap_rwsem`.
    #[inline]
    pub(super) fn wait(&mut self, wait: Wait, mut done: impl FnMut() -> bool) -> bool {
        done() || self.wait_slowly(wait, &mut done)
    }

    #[cold]
    #[inline(never)]
    fn wait_slowly(&mut self, wait: Wait, done: &mut dyn FnMut() -> bool) -> bool {
        let begin = Instant::<Monotonic>::now();

        loop {
            cpu_relax();
            if done() {
                self.left -= begin.elapsed();
                return true;
            }
            let elapsed = begin.elapsed();

            // SAFETY: The current task is alive.
            let killed = unsafe { bindings::fatal_signal_pending(bindings::get_current()) };

            if elapsed >= self.left || killed {
                self.left = Delta::ZERO;
                return false;
            }
            // A task that uses the folio is done by then, most of the time.
            if wait == Wait::LruBatch && !self.drained && elapsed + elapsed >= self.left {
                self.drained = true;
                lru_add_drain_all();
            }
            // SAFETY: The caller may sleep.
            unsafe { bindings::cond_resched() };
        }
    }
}
