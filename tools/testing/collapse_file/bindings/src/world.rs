// SPDX-License-Identifier: GPL-2.0

//! The state that all simulated functions share: tasks, locks, events and the first violation.
//!
//! # Tasks
//!
//! All tasks of an execution are coroutines on one thread, so a world is a thread-local variable.
//! A task runs until it reaches a [`point`] or has to wait. Other tasks can run only there. The
//! scheduler of the test selects the next task, and asks [`can_run`] which tasks can run. A task
//! that waits does not spin: it does not run before its condition holds.
//!
//! Sequential tests have one task and no scheduler. There, a wait whose condition does not hold is
//! a deadlock.
//!
//! # Violations
//!
//! The functions are called from `extern "C"` code, which must not be unwound. Its destructors
//! would also cause further violations. Therefore [`violation`] only records the first one, and the
//! scheduler ends the execution at the next switch of tasks. No memory is freed before the next
//! execution, so a broken program cannot corrupt the test itself.
//!
//! # Locks
//!
//! Folio locks, `i_mmap_rwsem` and the page-cache lock have owners. They must be taken in this
//! order. Under the page-cache lock, interrupts are disabled and no function may sleep.

use crate::{
    event::{Event, What},
    folios::{folio, LRUVECS},
    mapping::{address_space, file, file_ra_state, inode},
    rmap::vm_area_struct,
    xa_nodes::Nodes,
};
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    ffi::c_int,
};

/// The number of a task; 0 is the test itself.
pub type Task = usize;

/// A condition that a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The page-cache lock is free.
    Lock,
    /// The lock of a folio is free.
    Folio(*mut folio),
    /// `i_mmap_rwsem` can be taken for reading.
    IMmapRead,
    /// `i_mmap_rwsem` can be taken for writing.
    IMmapWrite,
    /// No page fault is in progress.
    ///
    /// During one, no userfaultfd is registered or unregistered.
    NoFaults,
    /// All tasks except the test itself have ended.
    TheEnd,
    /// The condition never holds, so the task does not run again.
    Forever,
}

/// The state of a task.
#[derive(Default)]
pub struct TaskState {
    /// Its column in the timeline.
    pub name: &'static str,
    /// The condition that it waits for.
    pub wait: Option<Wait>,
    /// How often it has disabled interrupts.
    pub irqs_disabled: usize,
    /// True if it has stored a retry entry and executed no full barrier since.
    pub unordered: bool,
    /// The nesting of RCU read-side critical sections.
    pub rcu: usize,
    /// True if it has ended.
    pub ended: bool,
    /// Folios that it has unmapped without flushing the TLBs yet.
    pub unflushed: Vec<*mut folio>,
    /// Folios in the LRU batch of its CPU.
    pub lru_batch: Vec<*mut folio>,
    /// Folios that it has locked.
    pub locked: Vec<*mut folio>,
    /// True if it is in `collapse_file()`.
    pub collapsing: bool,
    /// True if it measures the final critical section under the page-cache lock.
    pub measuring: bool,
}

/// The state of an execution.
pub struct World {
    /// True if there is a scheduler.
    pub concurrent: bool,
    /// True if a task reads the page cache without its lock.
    ///
    /// Other tasks can then run between two steps under the lock, too.
    pub lockless: bool,
    /// True if a task writes through stale translations.
    ///
    /// Other tasks can then run before each flush and before the copy of each page, too.
    pub stale_writers: bool,
    /// True if all tasks have been created.
    pub started: bool,
    /// The number of page faults in progress.
    pub faults: usize,
    /// The running task.
    pub current: Task,
    /// All tasks.
    pub tasks: Vec<TaskState>,
    /// All events, in order.
    pub events: Vec<Event>,
    /// The first violation.
    pub violation: Option<String>,
    /// The task that holds the page-cache lock.
    pub lock_owner: Option<Task>,
    /// How often a userfaultfd was registered.
    pub registrations: c_int,
    /// The tasks that hold `i_mmap_rwsem` for reading.
    pub i_mmap_readers: Vec<Task>,
    /// The task that holds it for writing.
    pub i_mmap_writer: Option<Task>,
    /// The nodes of the XArray.
    pub nodes: Nodes,
    /// All folios ever allocated, by number.
    pub folios: Vec<Box<folio>>,
    /// Their numbers by address.
    pub folio_ids: HashMap<usize, usize>,
    /// Page-table entries: VMA, index, folio.
    pub ptes: Vec<(usize, usize, *mut folio)>,
    /// Translations through which the CPU of a task may write: task, index, folio.
    pub tlb: Vec<(Task, usize, *mut folio)>,
    /// The VMAs that map the file.
    pub vmas: Vec<Box<vm_area_struct>>,
    /// The file.
    pub file: Box<file>,
    /// Its readahead state.
    pub ra: Box<file_ra_state>,
    /// Its page cache.
    pub mapping: Box<address_space>,
    /// Its inode.
    pub inode: Box<inode>,
    /// The content of the swapped-out pages, by swap entry.
    pub swap: Vec<u64>,
    /// The content of a regular file on disk, by index.
    pub disk: Vec<u64>,
    /// The statistics of each node and memory cgroup, by `enum node_stat_item`.
    pub stat: [[isize; 4]; LRUVECS],
    /// Pages charged to the memory cgroup.
    pub memcg: isize,
    /// The number of pages up to which `shmem_charge()` may charge the file.
    pub room: usize,
    /// The number of calls so far that can fail.
    pub fallible: usize,
    /// The number of the call that fails.
    pub fail_nth: Option<usize>,
    /// The prefix of the names of calls that all fail.
    pub fail_all: Option<&'static str>,
    /// The call that failed last.
    pub failed: Option<&'static str>,
    /// Actions of other tasks, for races without a scheduler.
    ///
    /// Each runs at the n-th call of a function: name, n, action.
    pub at_call: VecDeque<(&'static str, usize, fn())>,
    /// The state of the random number generator.
    pub random: u64,
    /// True if all tasks were killed.
    pub killed: bool,
    /// The time, in ns.
    pub clock: i64,
    /// The duration of one turn of a loop that waits, in ns.
    pub turn: i64,
}

thread_local! {
    static WORLD: RefCell<Option<Box<World>>> = const { RefCell::new(None) };
}

impl World {
    /// Replaces the world with a new one, which has an empty shmem or regular file.
    pub fn reset(is_shmem: bool, seed: u64) {
        let mut file = Box::new(file::default());
        let mut mapping = address_space::new(is_shmem);
        let mut inode = Box::new(inode::default());
        inode.mapping = &raw mut *mapping;
        mapping.host = &raw mut *inode;
        file.mapping = &raw mut *mapping;
        let world = Box::new(World {
            concurrent: false,
            lockless: false,
            stale_writers: false,
            started: false,
            faults: 0,
            current: 0,
            tasks: vec![TaskState::default()],
            events: Vec::with_capacity(256),
            violation: None,
            lock_owner: None,
            i_mmap_readers: Vec::new(),
            i_mmap_writer: None,
            nodes: Nodes::default(),
            folios: Vec::new(),
            folio_ids: HashMap::new(),
            ptes: Vec::new(),
            tlb: Vec::new(),
            vmas: Vec::new(),
            file,
            ra: Box::default(),
            mapping,
            inode,
            swap: Vec::new(),
            disk: Vec::new(),
            registrations: 0,
            stat: [[0; 4]; LRUVECS],
            memcg: 0,
            room: usize::MAX / 2,
            fallible: 0,
            fail_nth: None,
            fail_all: None,
            failed: None,
            at_call: VecDeque::new(),
            random: seed,
            killed: false,
            clock: 0,
            // Longer than any budget: a loop that waits checks once more and gives up.
            turn: 1_000_000_000,
        });
        let old = WORLD.with(|w| w.borrow_mut().replace(world));
        drop(old);
    }

    /// Returns the state of the running task.
    pub fn me(&mut self) -> &mut TaskState {
        &mut self.tasks[self.current]
    }

    fn holds(&self, wait: Wait) -> bool {
        match wait {
            Wait::Lock => self.lock_owner.is_none(),
            // SAFETY: `folio` is valid, because folios stay allocated until the next world.
            Wait::Folio(folio) => unsafe { (*folio).locked.get().is_none() },
            // A writer in the queue keeps new readers out.
            Wait::IMmapRead => {
                self.i_mmap_writer.is_none()
                    && !self.tasks.iter().any(|t| t.wait == Some(Wait::IMmapWrite))
            }
            Wait::IMmapWrite => self.i_mmap_writer.is_none() && self.i_mmap_readers.is_empty(),
            Wait::NoFaults => self.faults == 0,
            Wait::TheEnd => self.tasks.iter().skip(1).all(|t| t.ended),
            Wait::Forever => false,
        }
    }

    /// Returns whether a task can run.
    pub fn can_run(&self, task: Task) -> bool {
        if task > 0 && !self.started {
            return false;
        }
        self.tasks
            .get(task)
            .and_then(|t| t.wait)
            .is_none_or(|wait| self.holds(wait))
    }
}

/// Drops the world.
pub fn forget() {
    let old = WORLD.with(|w| w.borrow_mut().take());
    drop(old);
}

/// Runs `f` with the world.
///
/// `f` must not call `with()` and must not switch to another task.
///
/// # Panics
///
/// If there is no world, or in a nested call.
pub fn with<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|w| f(w.borrow_mut().as_mut().expect("World::reset() comes first")))
}

/// Records an event.
///
/// After a violation, a task of a scenario does not return from here: only the events up to the
/// violation matter.
pub fn log(what: What) {
    let ended = with(|w| {
        let task = w.current;
        w.events.push(Event { task, what });
        w.violation.is_some() && w.concurrent && task != 0
    });
    if ended {
        wait_until(Wait::Forever);
    }
}

/// Records the first violation.
///
/// The execution ends at the next switch of tasks.
pub fn violation(what: impl Into<String>) {
    with(|w| {
        if w.violation.is_none() {
            let what = what.into();
            let name = w.tasks[w.current].name;
            w.violation = Some(if w.current == 0 {
                what
            } else {
                format!("{name}: {what}")
            });
        }
    });
}

/// Records a violation unless `holds`.
pub fn check(holds: bool, what: &str) {
    if !holds {
        violation(what);
    }
}

/// Records a violation after which the task cannot continue.
pub fn stop(what: impl Into<String>) -> ! {
    violation(what);
    let (concurrent, violation) = with(|w| (w.concurrent, w.violation.clone()));
    if concurrent {
        wait_until(Wait::Forever);
    }
    panic!("{}", violation.unwrap_or_default());
}

fn switch() {
    let me = with(|w| w.current);
    shuttle::thread::yield_now();
    with(|w| w.current = me);
}

/// Lets other tasks run.
pub fn point() {
    let concurrent = with(|w| w.concurrent);
    if concurrent {
        switch();
    }
}

/// Lets other tasks run at a step that only lockless readers of the page cache can notice.
pub fn lockless_point() {
    if with(|w| w.lockless) {
        point();
    }
}

/// Waits for a condition.
///
/// Other tasks may run before, even if the condition holds already.
pub fn wait_until(wait: Wait) {
    if !with(|w| w.concurrent) {
        if !with(|w| w.holds(wait)) {
            panic!(
                "{} waits for {wait:?}, and no other task runs",
                with(|w| w.me().name)
            );
        }
        return;
    }
    with(|w| w.me().wait = Some(wait));
    switch();
    with(|w| {
        w.me().wait = None;
        assert!(
            w.holds(wait) || w.violation.is_some(),
            "the scheduler runs only tasks that can run"
        );
    });
}

/// Checks that the caller may sleep.
pub fn might_sleep(call: &str) {
    let (irqs_off, locked, rcu) = with(|w| {
        let me = w.current;
        (
            w.tasks[me].irqs_disabled > 0,
            w.lock_owner == Some(me),
            w.tasks[me].rcu > 0,
        )
    });
    if locked {
        violation(format!(
            "{call}() may sleep, but the page-cache lock is held"
        ));
    } else if irqs_off {
        violation(format!("{call}() may sleep, but interrupts are off"));
    } else if rcu {
        violation(format!("{call}() may sleep, but rcu_read_lock() is held"));
    }
}

/// Returns whether this call fails, after the action that a test has set for it.
pub fn fails(call: &'static str) -> bool {
    called(call);
    let fails = with(|w| {
        w.fallible += 1;
        let fails =
            w.fail_all.is_some_and(|name| call.starts_with(name)) || w.fail_nth == Some(w.fallible);
        if fails {
            w.failed = Some(call);
        }
        fails
    });
    if fails {
        log(What::Injected(call));
    }
    fails
}

/// Runs the action that a test has set for this call, as another task.
pub fn called(call: &'static str) {
    let action = with(|w| {
        let (name, count, _) = w.at_call.front_mut()?;
        if *name != call {
            return None;
        }
        if *count > 1 {
            *count -= 1;
            return None;
        }
        w.at_call.pop_front().map(|(_, _, action)| action)
    });
    if let Some(action) = action {
        as_somebody_else(action);
    }
}

/// Runs `action` as a new task, without a switch of tasks.
pub fn as_somebody_else<R>(action: impl FnOnce() -> R) -> R {
    let me = with(|w| {
        let me = w.current;
        w.tasks.push(TaskState {
            name: "other",
            ended: true,
            ..TaskState::default()
        });
        w.current = w.tasks.len() - 1;
        me
    });
    let result = action();
    with(|w| w.current = me);
    result
}

/// Returns a random number below `n`, from the seed of the execution.
pub fn random(n: usize) -> usize {
    with(|w| {
        // This is SplitMix64.
        w.random = w.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = w.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    })
}

/// Returns whether a task can run, for the scheduler.
///
/// Without a world every task can.
pub fn can_run(task: Task) -> bool {
    WORLD.with(|w| w.borrow().as_ref().is_none_or(|w| w.can_run(task)))
}

/// Returns the first violation.
pub fn found() -> Option<String> {
    WORLD.with(|w| w.borrow().as_ref().and_then(|w| w.violation.clone()))
}
