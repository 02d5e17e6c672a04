// SPDX-License-Identifier: GPL-2.0

//! Explores the interleavings of the tasks of a scenario, and reports what it found.
//!
//! After a violation, the task of the test ends the execution, because the stacks of the other
//! tasks must not be unwound.
//!
//! The environment has:
//!
//! - `REPLAY`: the execution that a failure printed. Only this execution runs, and its timeline is
//!   printed.
//! - `SHORTEST`: the number of failing executions to search for (1: 500). The search begins without
//!   preemptions and then allows one more each time. The failure with the fewest switches of tasks
//!   is printed; if several have the same number, the one with the fewest events.
//! - `SEED`: the seed of the first execution.
//! - `LONG`: 1 to explore more.
//! - `HOST_TEST_REPORT`: a directory for reports of the executions and of the results seen.

use crate::{
    properties,
    scheduler::{decode, encode, Replay, Shared},
};
use bindings::{
    event::What,
    timeline::timeline,
    world::{self, with, TaskState, Wait},
};
use shuttle::{
    scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler},
    Config, FailurePersistence, MaxSteps, Runner,
};
use std::{
    collections::BTreeSet,
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Arc, Mutex},
};

/// A task of a scenario.
pub struct Actor {
    name: &'static str,
    run: Box<dyn FnOnce() + Send>,
}

/// Creates a task of a scenario.
pub fn actor(name: &'static str, run: impl FnOnce() + Send + 'static) -> Actor {
    Actor {
        name,
        run: Box::new(run),
    }
}

/// The selection of interleavings.
#[derive(Clone, Copy)]
pub enum Mode {
    /// All interleavings.
    Dfs,
    /// All interleavings up to a number of preemptions: switches from a task that can still run.
    Bounded(usize),
    /// Random priorities, with a number of random changes, for a number of executions.
    Pct(usize, usize),
    /// A random task at each step, for a number of executions.
    Random(usize),
}

/// Returns the number of executions after which a depth-first search ends.
fn limit() -> usize {
    if long() {
        20_000_000
    } else {
        400_000
    }
}

/// Returns whether to explore more.
pub fn long() -> bool {
    env::var_os("LONG").is_some_and(|long| long == "1")
}

struct Failure {
    switches: usize,
    events: usize,
    replay: String,
    timeline: String,
}

/// Runs one execution, in the task of the test.
fn execute(scenario: &dyn Fn() -> Vec<Actor>) {
    let actors = scenario();
    with(|w| w.concurrent = true);
    for actor in actors {
        let id = with(|w| {
            w.tasks.push(TaskState {
                name: actor.name,
                ..TaskState::default()
            });
            w.tasks.len() - 1
        });
        // The tasks are detached: `Wait::TheEnd` waits for them below.
        drop(shuttle::thread::spawn(move || {
            with(|w| w.current = id);
            (actor.run)();
            world::point();
            bindings::drain(id);
            with(|w| w.me().ended = true);
        }));
    }
    with(|w| {
        w.started = true;
        w.current = 0;
    });
    world::wait_until(Wait::TheEnd);
    if world::found().is_none() {
        with(|w| w.concurrent = false);
        properties::check();
    }
    if let Some(found) = world::found() {
        panic::resume_unwind(Box::new(found));
    }
}

fn seen() -> BTreeSet<u32> {
    with(|w| {
        w.events
            .iter()
            .filter_map(|e| match e.what {
                What::End(result, _) => Some(result),
                _ => None,
            })
            .collect()
    })
}

type Scenario = Arc<dyn Fn() -> Vec<Actor> + Send + Sync>;

/// The result of a search.
struct Outcome {
    mode: String,
    executions: usize,
    failures: usize,
    best: Option<Failure>,
    results: BTreeSet<u32>,
}

/// Explores a scenario: a function that creates a world and its tasks.
///
/// # Panics
///
/// If a violation is found, after its timeline was printed.
pub fn explore(name: &str, mode: Mode, scenario: impl Fn() -> Vec<Actor> + Send + Sync + 'static) {
    let scenario: Scenario = Arc::new(scenario);
    let number = |name| env::var(name).ok().and_then(|s| s.parse().ok());
    let seed = number("SEED").unwrap_or(1);

    if let Ok(record) = env::var("REPLAY") {
        let (wanted, seed, steps) = decode(&record).expect("REPLAY has the text of a failure");
        if wanted == name {
            let replay = Some(Replay::new(steps));
            judge(name, search(name, mode, replay, seed, 1, &scenario));
            println!("{}", timeline());
        }
        return;
    }

    let failures = match number("SHORTEST") {
        None | Some(0) => 1,
        Some(1) => 500,
        Some(n) => n as usize,
    };
    if failures > 1 {
        let bounds = match mode {
            Mode::Dfs => 0..4,
            Mode::Bounded(n) => 0..n,
            Mode::Pct(..) | Mode::Random(_) => 0..0,
        };
        for bound in bounds {
            let mode = Mode::Bounded(bound);
            judge(name, search(name, mode, None, seed, failures, &scenario));
        }
    }
    let outcome = judge(name, search(name, mode, None, seed, failures, &scenario));
    report(name, &outcome.mode, outcome.executions, &outcome.results);
}

/// Prints the best failure and panics, if a search found one.
fn judge(name: &str, outcome: Outcome) -> Outcome {
    let Some(best) = outcome.best else {
        return outcome;
    };
    eprintln!(
        "{name}: {} of {} executions failed\n\n{}\n{} events, {} switches; again: REPLAY='{}'",
        outcome.failures,
        outcome.executions,
        best.timeline,
        best.events,
        best.switches,
        best.replay
    );
    // This panic prints no backtrace, which would not help.
    panic::resume_unwind(Box::new("a violation was found"));
}

/// Runs the interleavings of a scenario that a mode selects, until `enough` of them have failed.
fn search(
    name: &str,
    mode: Mode,
    replay: Option<Replay>,
    seed: u64,
    enough: usize,
    scenario: &Scenario,
) -> Outcome {
    let dfs = replay.is_none() && matches!(mode, Mode::Dfs | Mode::Bounded(_));
    let bound = match mode {
        Mode::Bounded(n) if dfs => Some(n),
        _ => None,
    };
    let scheduler: Box<dyn Scheduler + Send> = match (replay, mode) {
        (Some(replay), _) => Box::new(replay),
        (None, Mode::Dfs | Mode::Bounded(_)) => Box::new(DfsScheduler::new(None, false)),
        (None, Mode::Pct(depth, n)) => {
            Box::new(PctScheduler::new_from_seed(seed, depth, n * effort()))
        }
        (None, Mode::Random(n)) => Box::new(RandomScheduler::new_from_seed(seed, n * effort())),
    };
    let shared = Shared::new(scheduler, bound, dfs.then(limit), seed);
    note_assertions(name, &shared);
    let results = Arc::new(Mutex::new(BTreeSet::new()));
    let mut failures = 0;
    let mut best: Option<Failure> = None;

    while failures < enough {
        let mut config = Config::new();
        config.stack_size = 256 << 10;
        config.failure_persistence = FailurePersistence::None;
        config.max_steps = MaxSteps::FailAfter(10_000_000);
        let (scenario, results) = (Arc::clone(scenario), Arc::clone(&results));
        let runner = Runner::new(shared.clone(), config);
        let ran = panic::catch_unwind(AssertUnwindSafe(|| {
            runner.run(move || {
                execute(&*scenario);
                results
                    .lock()
                    .expect("no task panics with it")
                    .extend(seen());
            })
        }));
        let Err(payload) = ran else { break };
        if world::found().is_none() {
            panic::resume_unwind(payload);
        }
        failures += 1;
        let inner = shared.inner();
        let failure = Failure {
            switches: inner.steps.windows(2).filter(|w| w[0] != w[1]).count(),
            events: with(|w| w.events.len()),
            replay: encode(name, inner.seed, &inner.steps),
            timeline: timeline(),
        };
        if best
            .as_ref()
            .is_none_or(|b| (failure.switches, failure.events) < (b.switches, b.events))
        {
            best = Some(failure);
        }
    }

    let inner = shared.inner();
    let mode = match mode {
        Mode::Dfs if inner.exhausted => "dfs exhaustive".into(),
        Mode::Bounded(n) if inner.exhausted => format!("dfs exhaustive to {n} preemptions"),
        Mode::Dfs => "dfs cut off".into(),
        Mode::Bounded(n) => format!("dfs to {n} preemptions, cut off"),
        Mode::Pct(..) => "pct".into(),
        Mode::Random(_) => "random".into(),
    };
    let results = results.lock().expect("no task panics with it").clone();
    Outcome {
        mode,
        executions: inner.executions,
        failures,
        best,
        results,
    }
}

fn effort() -> usize {
    if long() {
        20
    } else {
        1
    }
}

/// Installs a panic hook that records a failed assertion of the program as a violation.
///
/// The hook also prints the execution. The process may abort during the unwinding.
fn note_assertions(name: &str, shared: &Shared) {
    let (name, shared) = (name.to_string(), shared.clone());
    let replayed = env::var_os("REPLAY").is_some();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let in_program = info.location().is_some_and(|l| {
            l.file().contains("rust/kernel/") || l.file().ends_with("mm/collapse_file.rs")
        });
        if !in_program {
            hook(info);
            return;
        }
        world::violation(info.to_string());
        let inner = shared.inner();
        eprintln!(
            "{name}: {info}; again: REPLAY='{}'",
            encode(&name, inner.seed, &inner.steps)
        );
        if replayed {
            eprintln!("{}", timeline());
        }
    }));
}

/// Prints the number of executions of a test, and writes a report if there is a directory for it.
pub fn report(name: &str, mode: &str, schedules: usize, results: &BTreeSet<u32>) {
    println!("{name}: {mode}, {schedules} schedules");
    let Some(dir) = env::var_os("HOST_TEST_REPORT") else {
        return;
    };
    let names: Vec<String> = results
        .iter()
        .map(|&r| {
            format!(
                "\"{}\"",
                bindings::SCAN_RESULTS[r as usize].trim_start_matches("scan_result_")
            )
        })
        .collect();
    let line = format!(
        "{{\"name\": \"{name}\", \"mode\": \"{mode}\", \"schedules\": {schedules}, \"results\": [{}]}}\n",
        names.join(", ")
    );
    let file: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .collect();
    fs::write(Path::new(&dir).join(format!("{file}.json")), line)
        .expect("HOST_TEST_REPORT is a writable directory");
}

/// Checks the properties after a sequential test.
///
/// Returns the result and the traced index of each collapse.
///
/// # Panics
///
/// With the timeline, if a violation is found.
pub fn checked() -> Vec<(u32, usize)> {
    if world::found().is_none() {
        properties::check();
    }
    if let Some(found) = world::found() {
        panic!("{found}\n\n{}", timeline());
    }
    with(|w| {
        w.events
            .iter()
            .filter_map(|e| match e.what {
                What::End(result, index) => Some((result, index)),
                _ => None,
            })
            .collect()
    })
}
