// SPDX-License-Identifier: GPL-2.0

//! The state that all simulated functions share, who runs, and what was found wrong.
//!
//! # Tasks
//!
//! All tasks of an execution are coroutines on one thread, so that a world is a thread-local
//! variable. A task runs until it comes to a [`point`] or has to wait; only there do others get a
//! turn. Who does is up to the scheduler of the test, which asks [`can_run`] which tasks can. A
//! task that waits spins on nothing: it is not run before what it waits for holds.
//!
//! Without a scheduler, for sequential tests, there is one task, and to wait is a deadlock.
//!
//! # Violations
//!
//! The functions are called from `extern "C"` code that must not be unwound, and whose destructors
//! would find more to complain about. So a violation is noted, and the scheduler ends the execution
//! where it would have gone on with another task. Nothing is freed before the next execution: what
//! a broken program does until then cannot corrupt the test itself.
//!
//! # Locks
//!
//! Folio locks, `i_mmap_rwsem` and the page-cache lock have owners, and must be taken in this
//! order: folio, `i_mmap_rwsem`, page cache. Within the last one interrupts are off and nothing
//! sleeps.

use crate::{
    event::{place, Event, Slot, What},
    folios::{folio, LRUVECS},
    mapping::{address_space, file, file_ra_state, inode},
    rmap::vm_area_struct,
    xa::Nodes,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ffi::c_int,
};

/// Who: 0 is the test itself.
pub type Task = usize;

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The page-cache lock.
    Lock,
    /// A folio's lock.
    Folio(*mut folio),
    /// `i_mmap_rwsem`, for reading.
    IMmapRead,
    /// `i_mmap_rwsem`, for writing.
    IMmapWrite,
    /// No fault is under way: the VMAs cannot change meanwhile.
    NoFaults,
    /// All tasks but the test itself have ended.
    TheEnd,
    /// Never to run again.
    Forever,
}

/// What is known of a task.
#[derive(Default)]
pub struct TaskState {
    /// Its column in the timeline.
    pub name: &'static str,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// How often it has disabled interrupts.
    pub irqs_disabled: usize,
    /// A retry entry was stored, and no full barrier has come since.
    pub unordered: bool,
    /// Nesting of RCU read-side critical sections.
    pub rcu: usize,
    /// Whether it has ended.
    pub ended: bool,
    /// Folios that it has unmapped and not flushed the TLBs for.
    pub unflushed: Vec<*mut folio>,
    /// Folios on their way to the LRU, on its CPU.
    pub lru_batch: Vec<*mut folio>,
    /// Folios that it has locked.
    pub locked: Vec<*mut folio>,
    /// It is in `collapse_file()`.
    pub collapsing: bool,
    /// It measures the last hold of the page-cache lock.
    pub measuring: bool,
}

/// Everything.
pub struct World {
    /// Whether there is a scheduler.
    pub concurrent: bool,
    /// Whether somebody looks at the page cache without its lock, so that it matters what happens
    /// within the lock.
    pub lockless: bool,
    /// Whether somebody writes by stale translations, so that it matters when a page is copied.
    pub stale_writers: bool,
    /// The tasks have been created.
    pub started: bool,
    /// Page faults under way.
    pub faults: usize,
    /// Who runs.
    pub current: Task,
    /// All tasks.
    pub tasks: Vec<TaskState>,
    /// All that happened.
    pub events: Vec<Event>,
    /// What was found wrong first.
    pub violation: Option<String>,
    /// Who holds the page-cache lock.
    pub lock_owner: Option<Task>,
    /// How often a userfaultfd was registered.
    pub registrations: c_int,
    /// Who holds `i_mmap_rwsem` for reading.
    pub i_mmap_readers: Vec<Task>,
    /// Who holds it for writing.
    pub i_mmap_writer: Option<Task>,
    /// The nodes of the XArray.
    pub nodes: Nodes,
    /// All folios ever allocated, by number.
    pub folios: Vec<Box<folio>>,
    /// Their numbers by address.
    pub folio_ids: HashMap<usize, usize>,
    /// Page-table entries: VMA, index, folio.
    pub ptes: Vec<(usize, usize, *mut folio)>,
    /// Translations that a task's CPU may use to write: task, index, folio.
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
    /// What has been swapped out.
    pub swap: Vec<u64>,
    /// What is on disk, for a regular file.
    pub disk: Vec<u64>,
    /// Statistics by `enum node_stat_item`, of each node and memory cgroup.
    pub stat: [[isize; 4]; LRUVECS],
    /// Pages charged to the memory cgroup.
    pub memcg: isize,
    /// Pages that the file system may still be charged for.
    pub room: usize,
    /// Calls that can fail, so far.
    pub fallible: usize,
    /// The number of the one that is to fail.
    pub fail_nth: Option<usize>,
    /// All calls whose names begin like this are to fail.
    pub fail_all: Option<&'static str>,
    /// What failed.
    pub failed: Option<&'static str>,
    /// What others do when a call of a name is made: for races without a scheduler.
    pub at_call: VecDeque<(&'static str, usize, fn())>,
    /// State of the generator of random numbers.
    pub random: u64,
    /// All tasks were killed.
    pub killed: bool,
    /// The time, in ns.
    pub clock: i64,
    /// How long one turn of a loop that waits takes, in ns.
    pub turn: i64,
}

thread_local! {
    static WORLD: RefCell<Option<Box<World>>> = const { RefCell::new(None) };
}

impl World {
    /// Replaces the world by a new one, with a file that is shmem or a regular one.
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
            // Longer than any budget: a loop that waits looks once more, and gives up.
            turn: 1_000_000_000,
        });
        let old = WORLD.with(|w| w.borrow_mut().replace(world));
        drop(old);
    }

    /// The running task.
    pub fn me(&mut self) -> &mut TaskState {
        &mut self.tasks[self.current]
    }

    fn holds(&self, wait: Wait) -> bool {
        match wait {
            Wait::Lock => self.lock_owner.is_none(),
            // SAFETY: Folios stay until the next world.
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

    /// Whether a task could run.
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

/// There is no world any more, until the next one is made.
pub fn forget() {
    let old = WORLD.with(|w| w.borrow_mut().take());
    drop(old);
}

/// Looks at the world. Not to be nested, and not to be left by switching to another task.
pub fn with<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|w| f(w.borrow_mut().as_mut().expect("World::reset() comes first")))
}

/// Notes an event. After a violation, which has been noted before, nothing else is of interest.
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

/// Something is wrong. The execution ends as soon as it can.
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

/// Checks a contract.
pub fn check(holds: bool, what: &str) {
    if !holds {
        violation(what);
    }
}

/// Something is so wrong that the task cannot go on.
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

/// Others may run before what comes next.
pub fn point() {
    let concurrent = with(|w| w.concurrent);
    if concurrent {
        switch();
    }
}

/// As [`point`], where only those can notice who look at the page cache without its lock.
pub fn lockless_point() {
    if with(|w| w.lockless) {
        point();
    }
}

/// Waits. Others may run before, whether that is necessary or not.
pub fn wait_until(wait: Wait) {
    if !with(|w| w.concurrent) {
        if !with(|w| w.holds(wait)) {
            panic!(
                "{} waits for {wait:?}, which nobody is going to give",
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
            "the scheduler runs who can run"
        );
    });
}

/// The caller may sleep: checks that it is allowed to.
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
            "{call}() may sleep, and the page-cache lock is held"
        ));
    } else if irqs_off {
        violation(format!("{call}() may sleep, and interrupts are off"));
    } else if rcu {
        violation(format!("{call}() may sleep, within rcu_read_lock()"));
    }
}

/// `ktime_get()`.
///
/// # Safety
///
/// None.
pub unsafe fn ktime_get() -> i64 {
    with(|w| w.clock)
}

/// One turn of a loop that waits: time passes, and others may run.
///
/// # Safety
///
/// None.
pub unsafe fn cpu_relax() {
    check(
        with(|w| !w.i_mmap_readers.contains(&w.current)),
        "a task waits for another one, and keeps i_mmap_rwsem",
    );
    with(|w| w.clock += w.turn);
    called("cpu_relax");
    point();
}

/// # Safety
///
/// None.
pub unsafe fn cond_resched() {
    might_sleep("cond_resched");
}

/// `struct task_struct`.
pub struct task_struct(());

/// # Safety
///
/// None.
pub unsafe fn get_current() -> *mut task_struct {
    core::ptr::null_mut()
}

/// # Safety
///
/// None.
pub unsafe fn fatal_signal_pending(_task: *mut task_struct) -> bool {
    with(|w| w.killed)
}

/// Whether this call is to fail; and lets others do what a test wants done at it.
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

/// A call that a test may want something done at.
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

/// Does something as another task does it, all at once.
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

/// A random number below `n`, from the seed of the execution.
pub fn random(n: usize) -> usize {
    with(|w| {
        // SplitMix64.
        w.random = w.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = w.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    })
}

/// The timeline: what the file holds, then one line for each event and one column for each task.
pub fn timeline() -> String {
    with(|w| {
        const WIDTH: usize = 30;
        let begin = w.events.iter().position(|e| e.task != 0).unwrap_or(0);
        let (before, events) = w.events.split_at(begin);
        let tasks: BTreeSet<Task> = events.iter().map(|e| e.task).collect();
        let column = |task: Task| tasks.range(..task).count() * WIDTH;
        let mut text = contents(before);
        for &task in &tasks {
            text.push_str(&format!("{:WIDTH$}", w.tasks[task].name));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        let mut rest = events.iter().peekable();
        while let Some(event) = rest.next() {
            let next = rest.peek().filter(|e| e.task == event.task);
            let (line, both) = match (event.what, next.map(|e| e.what)) {
                (What::Store(..), Some(What::Stored)) => (event.what.to_string(), true),
                (What::Store(..), _) => (format!("{} ...", event.what), false),
                (What::Lock, Some(What::Unlock)) => ("lock and unlock page cache".into(), true),
                (What::IMmapRead, Some(What::IMmapUnlock)) => {
                    ("lock and unlock i_mmap".into(), true)
                }
                _ => (event.what.to_string(), false),
            };
            if both {
                rest.next();
            }
            text.push_str(&" ".repeat(column(event.task)));
            text.push_str(&line);
            text.push('\n');
        }
        if let Some(violation) = &w.violation {
            text.push_str(&format!("=> {violation}\n"));
        }
        text
    })
}

/// What the pages of the file are after these events, but for the holes.
fn contents(events: &[Event]) -> String {
    let mut slots = BTreeMap::new();
    for event in events {
        if let What::Store(index, order, slot) = event.what {
            slots.insert((index, order), slot);
        }
    }
    let pages: Vec<String> = slots
        .into_iter()
        .filter(|(_, slot)| *slot != Slot::Hole)
        .map(|((index, order), slot)| format!("{} {slot}", place(index, order)))
        .collect();
    let shown = pages.len().min(16);
    let more = if shown < pages.len() { ", ..." } else { "" };
    format!("file: {}{more}\n", pages[..shown].join(", "))
}

/// Whether the named task can run, for the scheduler. Without a world everything can.
pub fn can_run(task: Task) -> bool {
    WORLD.with(|w| w.borrow().as_ref().is_none_or(|w| w.can_run(task)))
}

/// What was found wrong.
pub fn found() -> Option<String> {
    WORLD.with(|w| w.borrow().as_ref().and_then(|w| w.violation.clone()))
}
