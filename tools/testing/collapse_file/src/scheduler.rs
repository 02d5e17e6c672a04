// SPDX-License-Identifier: GPL-2.0

//! The selection of the next task, and the text that repeats an execution.
//!
//! `shuttle` selects the next task. This module hides waiting tasks from it and can bound the
//! number of preemptions. After a violation, it selects the task of the test, which ends the
//! execution.

use bindings::world::{self, with};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use std::{
    cell::Cell,
    sync::{Arc, Mutex, MutexGuard},
};

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Returns the seed of this execution.
pub(crate) fn seed() -> u64 {
    SEED.get()
}

/// The state of a search, which remains after an execution has failed.
pub(crate) struct Inner {
    scheduler: Box<dyn Scheduler + Send>,
    bound: Option<usize>,
    preemptions: usize,
    pub(crate) executions: usize,
    cut: Option<usize>,
    pub(crate) steps: Vec<usize>,
    pub(crate) seed: u64,
    pub(crate) exhausted: bool,
}

/// The scheduler of a search.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Inner>>);

impl Shared {
    /// Selects tasks by `scheduler`, with at most `bound` preemptions in each of at most `cut`
    /// executions.
    pub(crate) fn new(
        scheduler: Box<dyn Scheduler + Send>,
        bound: Option<usize>,
        cut: Option<usize>,
        seed: u64,
    ) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            scheduler,
            bound,
            preemptions: 0,
            executions: 0,
            cut,
            steps: Vec::new(),
            seed,
            exhausted: false,
        })))
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Scheduler for Shared {
    fn new_execution(&mut self) -> Option<Schedule> {
        let mut inner = self.inner();
        if inner.cut.is_some_and(|cut| inner.executions >= cut) {
            return None;
        }
        let Some(schedule) = inner.scheduler.new_execution() else {
            inner.exhausted = true;
            return None;
        };
        if inner.executions > 0 {
            inner.seed += 1;
        }
        inner.executions += 1;
        inner.preemptions = 0;
        inner.steps.clear();
        SEED.set(inner.seed);
        // `can_run()` must not ask the world of the last execution.
        world::forget();
        Some(schedule)
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        let test = runnable
            .iter()
            .find(|t| usize::from(t.id()) == 0)
            .map(|t| t.id());
        let mut can: Vec<&Task> = runnable
            .iter()
            .filter(|t| world::can_run(t.id().into()))
            .copied()
            .collect();
        if can.is_empty() {
            world::violation(format!("deadlock: {}", waiting()));
        }
        if world::found().is_some() {
            return test;
        }
        let mut inner = self.inner();
        let goes_on = current.filter(|&c| can.iter().any(|t| t.id() == c));
        if let (Some(bound), Some(current)) = (inner.bound, goes_on) {
            if inner.preemptions >= bound {
                can.retain(|t| t.id() == current);
            }
        }
        let next = inner.scheduler.next_task(&can, current, false)?;
        if goes_on.is_some_and(|c| c != next) {
            inner.preemptions += 1;
        }
        inner.steps.push(next.into());
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

fn waiting() -> String {
    with(|w| {
        w.tasks
            .iter()
            .filter_map(|t| t.wait.map(|wait| format!("{} waits for {wait:?}", t.name)))
            .collect::<Vec<_>>()
            .join(", ")
    })
}

/// Follows a recorded execution.
pub(crate) struct Replay {
    steps: Vec<usize>,
    at: usize,
    started: bool,
}

impl Replay {
    /// Selects the task with the number of each step.
    pub(crate) fn new(steps: Vec<usize>) -> Self {
        Self {
            steps,
            at: 0,
            started: false,
        }
    }
}

impl Scheduler for Replay {
    fn new_execution(&mut self) -> Option<Schedule> {
        (!std::mem::replace(&mut self.started, true)).then(|| Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], _: Option<TaskId>, _: bool) -> Option<TaskId> {
        let wanted = self.steps.get(self.at).copied();
        self.at += 1;
        // The first task runs if the record has ended or the program has changed.
        let found = runnable
            .iter()
            .find(|t| Some(usize::from(t.id())) == wanted);
        found.or(runnable.first()).map(|t| t.id())
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

/// Formats an execution as `name@seed:task*steps.task*steps...`.
pub(crate) fn encode(name: &str, seed: u64, steps: &[usize]) -> String {
    let runs: Vec<String> = steps
        .chunk_by(|a, b| a == b)
        .map(|run| format!("{}*{}", run[0], run.len()))
        .collect();
    format!("{name}@{seed}:{}", runs.join("."))
}

pub(crate) fn decode(text: &str) -> Option<(&str, u64, Vec<usize>)> {
    let (name, rest) = text.rsplit_once('@')?;
    let (seed, runs) = rest.split_once(':')?;
    let mut steps = Vec::new();
    for run in runs.split('.') {
        let (task, times) = run.split_once('*')?;
        steps.extend(std::iter::repeat_n(
            task.parse::<usize>().ok()?,
            times.parse().ok()?,
        ));
    }
    Some((name, seed.parse().ok()?, steps))
}
