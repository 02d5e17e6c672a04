// SPDX-License-Identifier: GPL-2.0

//! The specification: the results that a collapse may return.
//!
//! [`predict`] is the protocol as a sequential program over a model of a file. Without other tasks,
//! there is exactly one right result and one right index to trace.
//!
//! Another task may lock, reference or isolate a page for a moment. A collapse waits for that, so
//! the result is the same as without the other task. [`Page::There`] includes such a page. For
//! [`Page::Locked`] and similar states, the time is longer than a collapse waits.
//!
//! With other tasks, the file may have several states during a collapse, and any of them may
//! determine the result. [`Window::allows`] has a condition for each result. The condition must
//! have held at some time.

use crate::{properties::History, scenario::START};
use bindings::{
    event::{Event, Slot, What},
    world::{with, Task},
    *,
};

/// The state of a page of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// It is a hole of a shmem file, or must be read in.
    Missing,
    /// It is in memory or in swap.
    There,
    /// It cannot be swapped or read in, or is past the end of the file.
    Unavailable,
    /// Another task has it locked, for longer than a collapse waits.
    Locked,
    /// It is a part of a huge folio.
    Huge,
    /// It is dirty or under writeback.
    Dirty,
    /// Another task has taken it off the LRU, for longer than a collapse waits.
    OffLru,
    /// The file system does not release its private data.
    Private,
    /// Another task has a reference, for longer than a collapse waits, or it cannot be unmapped.
    Used,
    /// Its memory is failing.
    Poisoned,
}

/// The model of a file and a collapse.
pub struct File {
    /// True if the file is shmem, which may have holes.
    pub is_shmem: bool,
    /// True if khugepaged is the caller.
    pub is_khugepaged: bool,
    /// The pages of the range.
    pub pages: Vec<Page>,
    /// True if a userfaultfd waits for missing pages of the range.
    pub uffd_missing: bool,
    /// True if a huge folio can be allocated.
    pub memory: bool,
    /// True if the memory cgroup has room for it.
    pub memcg: bool,
    /// True if there are nodes for the page cache.
    pub nodes: bool,
    /// True if the file system has room for the holes.
    pub room: bool,
}

/// Returns the right result and the right index to trace.
pub fn predict(file: &File) -> (scan_result, usize) {
    let end = START + HPAGE_PMD_NR;
    let mut holes = 0;

    if !file.memory {
        return (scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL, 0);
    }
    if !file.memcg {
        return (scan_result_SCAN_CGROUP_CHARGE_FAIL, 0);
    }
    if !file.nodes {
        return (scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL, 0);
    }
    if file.is_shmem && file.pages.iter().all(|&p| p == Page::Missing) {
        return (scan_result_SCAN_TRUNCATED, START);
    }
    for (i, page) in file.pages.iter().enumerate() {
        let failed = match page {
            Page::Missing => {
                holes += usize::from(file.is_shmem);
                continue;
            }
            Page::There | Page::Poisoned => continue,
            Page::Unavailable => scan_result_SCAN_FAIL,
            Page::Locked => scan_result_SCAN_PAGE_LOCK,
            Page::Huge => scan_result_SCAN_PTE_MAPPED_HUGEPAGE,
            Page::Dirty if file.is_shmem => continue,
            Page::Dirty => scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK,
            Page::OffLru => scan_result_SCAN_DEL_PAGE_LRU,
            Page::Private => scan_result_SCAN_PAGE_HAS_PRIVATE,
            Page::Used => scan_result_SCAN_PAGE_COUNT,
        };
        return (failed, START + i);
    }
    if holes > 0 && !file.room {
        return (scan_result_SCAN_NO_SPACE, end);
    }
    if let Some(i) = file.pages.iter().position(|&p| p == Page::Poisoned) {
        return (scan_result_SCAN_COPY_MC, START + i);
    }
    if holes > 0 && file.uffd_missing {
        return (scan_result_SCAN_EXCEED_NONE_PTE, end);
    }
    if file.is_khugepaged {
        (scan_result_SCAN_SUCCEED, end)
    } else {
        (scan_result_SCAN_PTE_MAPPED_HUGEPAGE, end)
    }
}

/// Returns the name of a result.
pub fn name(result: scan_result) -> &'static str {
    SCAN_RESULTS[result as usize].trim_start_matches("scan_result_")
}

/// The events up to the end of a collapse.
pub struct Window<'a> {
    /// All events from the beginning of the execution.
    pub events: &'a [Event],
    /// The event at which the collapse begins.
    pub begin: usize,
    /// The task that collapses.
    pub task: Task,
    /// The content of the file at each time.
    pub history: &'a History,
}

impl Window<'_> {
    fn others(&self) -> impl Iterator<Item = &Event> {
        self.events
            .iter()
            .filter(|e| e.task != self.task && e.task != 0)
    }

    fn mine(&self, which: impl Fn(What) -> bool) -> bool {
        self.events[self.begin..]
            .iter()
            .any(|e| e.task == self.task && which(e.what))
    }

    /// Returns whether the test made this call fail.
    fn injected(&self, call: &'static str) -> bool {
        self.mine(|what| what == What::Injected(call))
    }

    /// Returns whether a page of the range became present or missing during the collapse.
    fn changed(&self) -> bool {
        self.range().any(|i| {
            let mut pages = self
                .history
                .between(i, self.begin, self.events.len())
                .map(|p| p.is_some());
            let first = pages.next();
            pages.any(|p| Some(p) != first)
        })
    }

    fn range(&self) -> std::ops::Range<usize> {
        START..START + HPAGE_PMD_NR
    }

    /// Returns whether the range had no page at some time.
    fn was_empty(&self) -> bool {
        (self.begin..=self.events.len())
            .any(|at| self.range().all(|i| self.history.before(i, at).is_none()))
    }

    fn hole_at(&self, at: usize) -> bool {
        self.range().any(|i| self.history.before(i, at).is_none())
    }

    /// Returns whether a hole and a userfaultfd for it existed at some time, and whether such a pair
    /// was missing at some time.
    ///
    /// Before a registration returns, its userfaultfd may or may not wait.
    fn holes_and_userfaultfds(&self) -> (bool, bool) {
        let end = START + HPAGE_PMD_NR - 1;
        let reaches = |vma: usize| with(|w| w.vmas[vma].reaches(START, end));
        let (mut set, mut registered) = (Vec::new(), Vec::new());
        let (mut both, mut not_both) = (false, false);
        for (at, event) in self.events.iter().enumerate() {
            match event.what {
                What::Registering(vma) if reaches(vma) => set.push(vma),
                What::Register(vma) if reaches(vma) => registered.push(vma),
                What::Unregister(vma) | What::Munmap(vma) => {
                    set.retain(|&v| v != vma);
                    registered.retain(|&v| v != vma);
                }
                _ => (),
            }
            if at >= self.begin && !(both && not_both) {
                let hole = self.hole_at(at + 1);
                both |= !set.is_empty() && hole;
                not_both |= registered.is_empty() || !hole;
            }
        }
        (both, not_both)
    }

    /// Returns whether the events allow a result.
    pub fn allows(&self, result: scan_result) -> bool {
        let huge =
            |e: &Event| matches!(e.what, What::Store(START, HPAGE_PMD_ORDER, Slot::Folio(_)));
        let refused = self.mine(|what| what == What::NodeRefused);
        match result {
            scan_result_SCAN_SUCCEED => self.holes_and_userfaultfds().1,
            scan_result_SCAN_PTE_MAPPED_HUGEPAGE => self.events.iter().any(huge),
            scan_result_SCAN_EXCEED_NONE_PTE => self.holes_and_userfaultfds().0,
            scan_result_SCAN_PAGE_FILLED => self.changed(),
            scan_result_SCAN_TRUNCATED => self.was_empty(),
            scan_result_SCAN_PAGE_LOCK => {
                self.others().any(|e| matches!(e.what, What::FolioLock(_)))
            }
            scan_result_SCAN_DEL_PAGE_LRU => {
                self.injected("folios_isolate_lru")
                    || self.others().any(|e| {
                        matches!(
                            e.what,
                            What::Alloc(..) | What::Isolate(..) | What::Putback(_)
                        )
                    })
            }
            scan_result_SCAN_PAGE_COUNT => {
                self.injected("try_to_unmap_file_run")
                    || self
                        .others()
                        .any(|e| matches!(e.what, What::Get(_) | What::Alloc(..)))
            }
            scan_result_SCAN_PAGE_HAS_PRIVATE => self.injected("filemap_release_folio"),
            scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK => with(|w| !w.mapping.is_shmem),
            scan_result_SCAN_STORE_FAILED => refused,
            scan_result_SCAN_COPY_MC => {
                self.injected("copy_mc_highpage")
                    || with(|w| w.folios.iter().any(|f| f.poisoned.get().is_some()))
            }
            scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL => {
                refused || self.mine(|what| matches!(what, What::Injected(_)))
            }
            scan_result_SCAN_NO_SPACE => {
                self.mine(|what| matches!(what, What::Injected(_) | What::Charge(_, false)))
            }
            scan_result_SCAN_CGROUP_CHARGE_FAIL => self.injected("mem_cgroup_charge"),
            // A page may disappear while the lock is not held.
            scan_result_SCAN_FAIL => {
                self.changed()
                    || self.mine(|what| matches!(what, What::Injected(_)))
                    || with(|w| {
                        w.inode.size < START + HPAGE_PMD_NR
                            || w.folios.iter().any(|f| !f.uptodate.get())
                    })
            }
            _ => false,
        }
    }
}
