// SPDX-License-Identifier: GPL-2.0

//! Waiting for other tasks that use a folio for a moment only.
//!
//! A reader holds a reference for the time of a copy, and a writer holds the folio lock. Both go
//! away without a collapse having to fail. A pin does not go away. The two look alike, so a
//! collapse waits for a bounded time and then gives up.
//!
//! The LRU batch of a CPU holds a reference until it is drained. `collapse_scan_file()` drains the
//! batches, because draining waits for other CPUs, which is not done with folio locks held.

use super::CollapseControl;
use crate::{
    bindings,
    processor::cpu_relax,
    time::{Delta, Instant, Monotonic}, //
};

/// The budget of a collapse for `madvise()`: about as long as it takes to copy 2 MiB.
const MADVISE_BUDGET: Delta = Delta::from_millis(1);

/// The budget of a collapse by khugepaged. No task waits for it.
const KHUGEPAGED_BUDGET: Delta = Delta::from_millis(10);

/// The pause before a collapse looks again for a folio that another task has locked.
const PAUSE: Delta = Delta::from_micros(20);

/// The number of times that a collapse looks up a folio again, because other tasks have changed or
/// locked it.
///
/// Each time another task has made progress, which takes time that is not in the budget.
const TRIES: u32 = 64;

/// The time that a collapse may still spend on waiting for other tasks.
///
/// The time is the sum over all folios, so a collapse is delayed by a bounded time.
pub struct Patience {
    left: Delta,
    tries: u32,
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
        }
    }

    /// Returns whether to go back to a folio once more.
    #[inline]
    pub fn try_again(&mut self) -> bool {
        let again = self.tries > 0;

        self.tries = self.tries.saturating_sub(1);
        again
    }

    /// Returns whether no time is left.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.left <= Delta::ZERO
    }

    /// Waits until `done` returns true. Returns false if the budget is spent before.
    ///
    /// Context: may sleep. Folio locks may be held, but not `i_mmap_rwsem`.
    #[inline]
    pub(super) fn wait(&mut self, mut done: impl FnMut() -> bool) -> bool {
        done() || self.wait_slowly(&mut done)
    }

    #[cold]
    #[inline(never)]
    fn wait_slowly(&mut self, done: &mut dyn FnMut() -> bool) -> bool {
        let begin = Instant::<Monotonic>::now();

        loop {
            turn();
            if done() {
                self.left -= begin.elapsed();
                return true;
            }
            let elapsed = begin.elapsed();

            if elapsed >= self.left || is_killed() {
                self.left = Delta::ZERO;
                return false;
            }
        }
    }

    /// Waits for a moment.
    ///
    /// Context: may sleep. Folio locks may be held, but not `i_mmap_rwsem`.
    #[cold]
    #[inline(never)]
    pub(super) fn pause(&mut self) {
        let begin = Instant::<Monotonic>::now();

        loop {
            turn();
            if begin.elapsed() >= PAUSE {
                break;
            }
        }
        self.left -= begin.elapsed();
        if is_killed() {
            self.left = Delta::ZERO;
        }
    }
}

/// One turn of a loop that waits.
#[inline]
fn turn() {
    cpu_relax();
    // SAFETY: The callers may sleep.
    unsafe { bindings::cond_resched() };
}

/// Returns whether the current task was killed.
#[inline]
fn is_killed() -> bool {
    // SAFETY: The current task is alive.
    unsafe { bindings::fatal_signal_pending(bindings::get_current()) }
}
