// SPDX-License-Identifier: GPL-2.0

//! The properties that must hold for each execution, checked on its events.
//!
//! The simulated C functions check their own contracts. This module checks the properties that
//! users of the file, of a userfaultfd or of the machine's memory rely on:
//!
//! - [`observers_are_told`]: a collapse fills no hole that a task has seen since a userfaultfd was
//!   registered for it.
//! - [`failure_changes_nothing`]: a collapse that fails replaces no folio. A collapse that succeeds
//!   replaces the range once and then retracts page tables.
//! - [`no_mapping_is_lost_in_vain`]: the folios after one that fails stay mapped. This is checked
//!   only without other tasks.
//! - [`retry_is_not_left`]: no retry entry remains when the lock is released.
//! - [`lookups_are_right`]: a lockless reader sees content that was there at some time during its
//!   lookup.
//! - [`content_is_right`]: in the end each page has the content that was last written to it, or
//!   zeroes.
//! - [`all_is_balanced`]: references, locks, the LRU, charges, statistics and nodes are right.
//! - [`results_are_allowed`]: the result is one that [`spec`](crate::spec) allows for the events.
//!   A sequential test has exactly one right result, which it compares itself.
//!
//! The scheduler checks that readers finish: it reports a deadlock if no task can run before all
//! have ended.

use crate::{scenario::START, spec};
use bindings::{
    event::{Event, Seen, Slot, What},
    folio_of,
    page_cache::{cached, evict},
    scan_result_SCAN_COPY_MC, scan_result_SCAN_PTE_MAPPED_HUGEPAGE, scan_result_SCAN_SUCCEED,
    world::{violation, with},
    xa::slot,
    xa_store::Cursor,
    Lru, HPAGE_PMD_NR, HPAGE_PMD_ORDER, LRUVECS,
};

/// Checks all properties, at the end of an execution.
pub fn check() {
    let tasks = with(|w| w.tasks.len());
    for task in 0..tasks {
        bindings::drain(task);
    }
    let events = with(|w| std::mem::take(&mut w.events));
    let history = History::new(&events);
    observers_are_told(&events, &history);
    failure_changes_nothing(&events);
    if !with(|w| w.started) {
        no_mapping_is_lost_in_vain(&events);
    }
    retry_is_not_left(&events);
    lookups_are_right(&events, &history);
    if with(|w| w.started) {
        results_are_allowed(&events, &history);
    }
    content_is_right(&history);
    all_is_balanced();
    // The events of the checks themselves are dropped.
    with(|w| w.events = events);
}

/// The content of the file at each time, as its users see it.
///
/// A retry entry does not change the content, nor does swapping a page in or out.
pub struct History {
    /// For each index: the event from which on the page had a content, or `None` for a hole.
    pages: Vec<Vec<(usize, Option<u64>)>>,
}

impl History {
    /// Computes the history from the events.
    pub fn new(events: &[Event]) -> Self {
        let (size, disk) = with(|w| {
            let disk = (!w.mapping.is_shmem).then(|| w.disk.clone());
            (w.inode.size, disk)
        });
        let mut pages: Vec<Vec<(usize, Option<u64>)>> = (0..size)
            .map(|i| vec![(0, disk.as_ref().map(|d| d[i]))])
            .collect();
        let mut set = |index: usize, at: usize, page: Option<u64>| {
            if pages[index].last().is_none_or(|last| last.1 != page) {
                pages[index].push((at, page));
            }
        };
        let mut now: Vec<Option<u64>> = (0..size).map(|i| disk.as_ref().map(|d| d[i])).collect();
        for (at, event) in events.iter().enumerate() {
            match event.what {
                What::Store(index, order, stored) => {
                    let changed = now.iter_mut().enumerate().skip(index).take(1 << order);
                    for (i, page) in changed {
                        match stored {
                            Slot::Hole if disk.is_none() => *page = None,
                            Slot::Folio(_) | Slot::Value(_) if page.is_none() => *page = Some(0),
                            _ => continue,
                        }
                        set(i, at, *page);
                    }
                }
                What::Write(index, content) => {
                    now[index] = Some(content);
                    set(index, at, now[index]);
                }
                _ => (),
            }
        }
        Self { pages }
    }

    /// Returns each content of an index from event `from` to event `to`.
    pub fn between(
        &self,
        index: usize,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = Option<u64>> + '_ {
        let pages = &self.pages[index];
        let first = pages.partition_point(|p| p.0 <= from).saturating_sub(1);
        pages[first..]
            .iter()
            .take_while(move |p| p.0 <= to)
            .map(|p| p.1)
    }

    /// Returns the content of an index before an event.
    pub fn before(&self, index: usize, at: usize) -> Option<u64> {
        self.between(index, at.saturating_sub(1), at.saturating_sub(1))
            .last()
            .flatten()
    }
}

/// Returns whether an event is the commit of a collapse: its store of a huge folio.
fn is_commit(events: &[Event], at: usize) -> bool {
    let Event { task, what } = events[at];
    matches!(what, What::Store(START, HPAGE_PMD_ORDER, Slot::Folio(_)))
        && events[..at]
            .iter()
            .rev()
            .find(|e| e.task == task && matches!(e.what, What::Begin | What::End(..)))
            .is_some_and(|e| e.what == What::Begin)
}

fn observers_are_told(events: &[Event], history: &History) {
    for (commit, event) in events.iter().enumerate() {
        if !is_commit(events, commit) {
            continue;
        }
        // A hole that a reader sees during the store is one that the store fills.
        let stored = events[commit..]
            .iter()
            .position(|e| e.task == event.task && e.what == What::Stored)
            .map_or(events.len(), |after| commit + after);
        // The registered userfaultfds, each with the event of its registration.
        let mut registered: Vec<(usize, usize)> = Vec::new();
        for (at, event) in events[..stored].iter().enumerate() {
            match event.what {
                What::Register(vma) => registered.push((vma, at)),
                What::Unregister(vma) | What::Munmap(vma) => registered.retain(|r| r.0 != vma),
                _ => (),
            }
        }
        for (vma, since) in registered {
            let (start, end) = with(|w| (w.vmas[vma].start, w.vmas[vma].start + w.vmas[vma].nr));
            for seen in &events[since..stored] {
                let index = match seen.what {
                    What::Missing(told, index) if told == vma => index,
                    What::Saw(from, index, Seen::Hole) if from >= since => index,
                    _ => continue,
                };
                let in_range =
                    (START..START + HPAGE_PMD_NR).contains(&index) && (start..end).contains(&index);
                if in_range && history.before(index, commit).is_none() {
                    violation(format!(
                        "page {index} was seen missing in vma {vma}, which has a userfaultfd, and {} fills it",
                        with(|w| w.tasks[event.task].name)
                    ));
                }
            }
        }
    }
}

fn failure_changes_nothing(events: &[Event]) {
    let mut begun = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match event.what {
            What::Begin => begun.push((event.task, 0, 0)),
            What::Store(index, order, stored) => {
                let Some(collapse) = begun.iter_mut().find(|b| b.0 == event.task) else {
                    continue;
                };
                if is_commit(events, at) {
                    collapse.1 += 1;
                } else if stored == Slot::Hole && order == 0 && !was_retry(events, at, index) {
                    violation(format!("a collapse removes the entry at {index}"));
                }
            }
            What::Retract => {
                if let Some(collapse) = begun.iter_mut().find(|b| b.0 == event.task) {
                    collapse.2 += 1;
                }
            }
            What::End(result, _) if begun.iter().any(|b| b.0 == event.task) => {
                let Some(place) = begun.iter().position(|b| b.0 == event.task) else {
                    continue;
                };
                let (_, commits, retracted) = begun.swap_remove(place);
                let right = match result {
                    scan_result_SCAN_SUCCEED => commits == 1,
                    // `madvise()` maps the huge folio, whichever task created it.
                    scan_result_SCAN_PTE_MAPPED_HUGEPAGE => commits <= 1,
                    _ => commits == 0,
                };
                if commits != retracted {
                    violation(format!(
                        "the range was replaced {commits} times and page tables retracted {retracted} times"
                    ));
                }
                if !right {
                    violation(format!(
                        "the range was replaced {commits} times, and the result is {result}"
                    ));
                }
            }
            _ => (),
        }
    }
}

fn was_retry(events: &[Event], at: usize, index: usize) -> bool {
    events[..at]
        .iter()
        .rev()
        .find_map(|e| match e.what {
            What::Store(i, order, slot) if (i..i + (1 << order)).contains(&index) => Some(slot),
            _ => None,
        })
        .is_some_and(|slot| slot == Slot::Retry)
}

fn no_mapping_is_lost_in_vain(events: &[Event]) {
    let mut unmapped = Vec::new();
    for event in events {
        match event.what {
            What::Begin => unmapped.clear(),
            What::Unmap(folio) => unmapped.push(folio),
            // The copy comes after all folios were unmapped.
            What::End(scan_result_SCAN_COPY_MC, _) => (),
            What::End(_, failed) => {
                for &folio in &unmapped {
                    if with(|w| w.folios[folio].index.get()) > failed {
                        violation(format!(
                            "folio {folio} is unmapped by a collapse that fails at {failed}"
                        ));
                    }
                }
            }
            _ => (),
        }
    }
}

fn retry_is_not_left(events: &[Event]) {
    let mut retries: Vec<usize> = Vec::new();
    for event in events {
        match event.what {
            What::Store(index, _, Slot::Retry) => retries.push(index),
            What::Store(index, order, _) => {
                retries.retain(|i| !(index..index + (1 << order)).contains(i))
            }
            What::Unlock => {
                if let Some(index) = retries.first() {
                    violation(format!(
                        "XA_RETRY_ENTRY is left at {index} when the lock is released"
                    ));
                    return;
                }
            }
            _ => (),
        }
    }
}

fn lookups_are_right(events: &[Event], history: &History) {
    if with(|w| !w.mapping.is_shmem) {
        return;
    }
    for (at, event) in events.iter().enumerate() {
        let What::Saw(from, index, seen) = event.what else {
            continue;
        };
        let from = before_store_under_way(events, from);
        let right = history.between(index, from, at).any(|page| match seen {
            Seen::Hole => page.is_none(),
            Seen::Data => page.is_some(),
            Seen::Content(content) => page == Some(content),
        });
        if !right {
            let name = with(|w| w.tasks[event.task].name);
            let were: Vec<_> = history.between(index, from, at).collect();
            violation(format!(
                "{name} saw {seen:?} at {index}, but the content was {were:?}"
            ));
        }
    }
}

/// Returns the event before a store in progress at `from`, or `from`.
///
/// A reader that begins during a store may still see the old content.
fn before_store_under_way(events: &[Event], from: usize) -> usize {
    let last = events[..from]
        .iter()
        .rposition(|e| matches!(e.what, What::Store(..) | What::Stored));
    match last {
        Some(at) if matches!(events[at].what, What::Store(..)) => at.saturating_sub(1),
        _ => from,
    }
}

fn content_is_right(history: &History) {
    let size = with(|w| w.inode.size);
    for index in 0..size {
        let expected = history.pages[index].last().and_then(|p| p.1);
        let found = slot(Cursor::new(index, 0).locked(|c| c.load()));
        let content = match found {
            Slot::Hole => None,
            Slot::Retry => {
                violation(format!("XA_RETRY_ENTRY is left at {index}"));
                continue;
            }
            Slot::Value(value) => with(|w| w.swap.get(value).copied()),
            Slot::Folio(id) => {
                let there = cached(index).is_some_and(|f| core::ptr::eq(f, folio_of(id)));
                if !there {
                    violation(format!("folio {id} is at {index}, which is not its index"));
                }
                with(|w| {
                    let folio = &w.folios[id];
                    let page = index.wrapping_sub(folio.index.get());
                    let content = folio.pages.get(page).map(|p| p.content.get());
                    // A page that is not uptodate is zeroed or read again before its use.
                    match folio.uptodate.get() {
                        true => content,
                        false => w.mapping.is_shmem.then_some(0),
                    }
                })
            }
        };
        let missing_is_fine = with(|w| !w.mapping.is_shmem) && content.is_none();
        if content != expected && !missing_is_fine {
            violation(format!(
                "page {index} is {content:?}, and must be {expected:?}"
            ));
        }
    }
}

fn all_is_balanced() {
    let mut wrong = Vec::new();
    with(|w| {
        let is_shmem = w.mapping.is_shmem;
        let mut pages = 0;
        let mut live = 0;
        let mut stat = [[0; 4]; LRUVECS];
        for f in &w.folios {
            if f.freed.get() {
                continue;
            }
            live += f.nr();
            let id = f.id;
            if !f.cached.get() {
                wrong.push(format!(
                    "folio {id} is leaked, with {} references",
                    f.refs.get()
                ));
                continue;
            }
            pages += f.nr();
            let nr = f.nr() as isize;
            let huge = if f.order == HPAGE_PMD_ORDER { nr } else { 0 };
            let counted = match is_shmem {
                true => [nr, 0, nr, huge],
                false => [nr, huge, 0, 0],
            };
            for (sum, pages) in stat[f.lruvec].iter_mut().zip(counted) {
                *sum += pages;
            }
            if let Some(task) = f.locked.get() {
                wrong.push(format!(
                    "folio {id} is left locked by {}",
                    w.tasks[task].name
                ));
            }
            if f.lru_state.get() != Lru::Listed {
                wrong.push(format!(
                    "folio {id} is left off the LRU: {:?}",
                    f.lru_state.get()
                ));
            }
            let expected = f.nr() as i32 + f.mapcount.get() + i32::from(f.private.get());
            if f.refs.get() != expected {
                wrong.push(format!(
                    "folio {id} has {} references and {expected} users",
                    f.refs.get()
                ));
            }
            if f.stale.get().is_some() {
                wrong.push(format!("the TLBs are not flushed for folio {id}"));
            }
        }
        let mut same = |what: &str, found: isize, expected: usize| {
            if found != expected as isize {
                wrong.push(format!("{what} is {found}, and must be {expected}"));
            }
        };
        same("memcg charge", w.memcg, live);
        same("nrpages", w.mapping.nrpages as isize, pages);
        if is_shmem {
            same(
                "the charge of the file",
                w.inode.blocks as isize,
                pages + w.inode.swapped,
            );
        }
        let names = ["NR_FILE_PAGES", "NR_FILE_THPS", "NR_SHMEM", "NR_SHMEM_THPS"];
        for (lruvec, (found, expected)) in w.stat.iter().zip(&stat).enumerate() {
            for (item, name) in names.iter().enumerate() {
                if found[item] != expected[item] {
                    wrong.push(format!(
                        "{name} of node and memcg {lruvec} is {}, and must be {}",
                        found[item], expected[item]
                    ));
                }
            }
        }
        if w.lock_owner.is_some() || !w.i_mmap_readers.is_empty() || w.i_mmap_writer.is_some() {
            wrong.push("a lock is left locked".into());
        }
        if w.tasks
            .iter()
            .any(|t| t.irqs_disabled > 0 || t.rcu > 0 || !t.unflushed.is_empty())
        {
            wrong.push(
                "a task ends with interrupts off, under rcu_read_lock(), or with pending flushes"
                    .into(),
            );
        }
    });
    for what in wrong {
        violation(what);
    }
    evict();
}

fn results_are_allowed(events: &[Event], history: &History) {
    for (end, event) in events.iter().enumerate() {
        let What::End(result, _) = event.what else {
            continue;
        };
        let begin = events[..end]
            .iter()
            .rposition(|e| e.task == event.task && e.what == What::Begin)
            .unwrap_or(0);
        let window = spec::Window {
            events: &events[..end],
            begin,
            task: event.task,
            history,
        };
        if !window.allows(result) {
            violation(format!(
                "no event explains the result {}",
                spec::name(result)
            ));
        }
    }
}
