// SPDX-License-Identifier: GPL-2.0

//! A collapse without other tasks, or with another task that acts at one exact point.
//!
//! The result and the traced index must be exactly those of the specification. Further tests cover
//! the conditions that the abstractions check at run time because no type does.

use bindings::{
    event::What,
    rmap::vm_area_struct,
    timeline::timeline,
    world::{self, with},
    *,
};
use collapse_file_test::{
    actors::*,
    explore::{checked, report},
    scenario::*,
    spec::{name, predict, File, Page},
};
use kernel::{
    mm::{
        collapse::{CollapseControl, Copied, Gathering, NewFolio, OldFolios, Patience, ScanResult},
        folio::LockedFolio,
        mapping::{AddressSpace, FileRef, PmdRange},
        page_cache::{Cursor, Entry, Walk},
        page_cache_map::{Content, Extent, MappedArea},
        Mm,
    },
    xarray::state::{XaEntry, XaState},
};
use std::{collections::BTreeSet, env, ops::Range, panic, process};

/// The results of a number of cases.
#[derive(Default)]
struct Cases {
    seen: BTreeSet<u32>,
    count: usize,
}

impl Cases {
    fn run(&mut self, is_khugepaged: bool) -> (u32, usize) {
        collapse(START, is_khugepaged);
        let results = checked();
        let result = *results.last().expect("there was a collapse");
        self.seen.insert(result.0);
        self.count += 1;
        result
    }

    /// Does the same as [`run`](Self::run), with an action before the world is checked.
    fn run_but_check(&mut self, is_khugepaged: bool, before: impl FnOnce()) -> (u32, usize) {
        collapse(START, is_khugepaged);
        before();
        let result = *checked().last().expect("there was a collapse");
        self.seen.insert(result.0);
        self.count += 1;
        result
    }

    fn end(self, name: &str) {
        report(name, "sequential", self.count, &self.seen);
    }
}

/// Returns the model of a file that [`file`] creates.
fn model(is_shmem: bool, is_khugepaged: bool, pages: &str) -> File {
    let mut kinds: Vec<char> = pages.chars().collect();
    kinds.resize(HPAGE_PMD_NR, *kinds.last().expect("at least one page"));
    File {
        is_shmem,
        is_khugepaged,
        pages: kinds
            .iter()
            .map(|&kind| {
                if kind == '.' {
                    Page::Missing
                } else {
                    Page::There
                }
            })
            .collect(),
        uffd_missing: false,
        memory: true,
        memcg: true,
        nodes: true,
        room: true,
    }
}

/// A function that prepares a file and changes the model in the same way.
type Prepare = fn(&mut File);

fn compare(cases: &mut Cases, is_shmem: bool, pages: &str, prepare: Prepare, clean_up: fn()) {
    for is_khugepaged in [true, false] {
        file(is_shmem, pages);
        let mut model = model(is_shmem, is_khugepaged, pages);
        prepare(&mut model);
        collapse(START, is_khugepaged);
        clean_up();
        let (result, index) = *checked().last().expect("there was a collapse");
        let (expected, at) = predict(&model);
        assert_eq!(
            (name(result), index),
            (name(expected), at),
            "{pages}\n{}",
            timeline()
        );
        cases.seen.insert(result);
        cases.count += 1;
    }
}

fn nothing() {}

#[test]
fn what_a_range_can_be_made_of() {
    let mut cases = Cases::default();
    for pages in [
        "4", "4.", ".4", "..4", "m.", "l.4", "s.", "s", "f.", "f", "22.", "m4.s", "4.sf", ".f",
        ".s",
    ] {
        compare(&mut cases, true, pages, |_| (), nothing);
    }
    for pages in ["4", "4.", ".", "m.", "22.4", "l4", "4s.4", "s"] {
        compare(&mut cases, false, pages, |_| (), nothing);
    }
    cases.end("what_a_range_can_be_made_of");
}

#[test]
fn what_a_userfaultfd_says() {
    let mut cases = Cases::default();
    let last = START + HPAGE_PMD_NR - 1;
    for (start, nr, counts) in [
        (START, HPAGE_PMD_NR, true),
        (START, 1, true),
        (last, 1, true),
        (last, 3, true),
        (START - 1, 2, true),
        (START - 1, 1, false),
        (last + 1, 1, false),
        (last + 2, 1, false),
    ] {
        // With and without another mapping of the whole range.
        for (pages, alone) in [("4.", false), ("4.", true), ("4", false)] {
            file(true, pages);
            let mut model = model(true, true, pages);
            model.uffd_missing = counts;
            if alone {
                munmap(0);
            }
            let vma = vm_area_struct::add(start, nr);
            register(vma);
            let (result, index) = cases.run(true);
            assert_eq!(
                (name(result), index),
                (name(predict(&model).0), predict(&model).1),
                "{start} {nr}"
            );
        }
    }
    // The userfaultfd or its mapping is gone before the collapse.
    file(true, "4.");
    register(0);
    unregister(0);
    assert_eq!(cases.run(true).0, scan_result_SCAN_SUCCEED);
    file(true, "4.");
    register(0);
    munmap(0);
    assert_eq!(cases.run(true).0, scan_result_SCAN_SUCCEED);
    cases.end("what_a_userfaultfd_says");
}

/// A file without support for PMD-sized folios causes a warning, unless it is shmem.
#[test]
fn no_large_folios() {
    for (is_shmem, warns) in [(false, true), (true, false)] {
        file(is_shmem, "4");
        with(|w| w.mapping.pmd_folios = false);
        collapse(START, true);
        let warned = world::found().is_some_and(|found| found.contains("WARN_ON"));
        assert_eq!(warned, warns);
        assert_eq!(page(START).nr() == HPAGE_PMD_NR, is_shmem);
    }
}

fn page(index: usize) -> &'static folio {
    let folio = page_cache::cached(index).expect("there is a page");
    // SAFETY: Folios stay allocated until the next world.
    unsafe { &*folio }
}

/// Returns the number of a new task.
fn somebody() -> usize {
    world::as_somebody_else(|| with(|w| w.current))
}

fn fail(call: &'static str) {
    with(|w| w.fail_all = Some(call));
}

fn at_call(call: &'static str, action: fn()) {
    with(|w| w.at_call.push_back((call, 1, action)));
}

const LAST: usize = HPAGE_PMD_NR - 1;
const SIZE: usize = 4 * HPAGE_PMD_NR;

/// Tests each result that needs no race.
fn without_a_race(cases: &mut Cases) {
    let mut shmem = |pages, prepare, clean_up| compare(cases, true, pages, prepare, clean_up);

    shmem(".", |_| (), nothing);
    let no_memory: Prepare = |model| {
        fail("alloc_charge_folio");
        model.memory = false;
    };
    shmem("4.", no_memory, nothing);
    let no_memcg: Prepare = |model| {
        fail("mem_cgroup_charge");
        model.memcg = false;
    };
    shmem("4.", no_memcg, nothing);
    let no_nodes: Prepare = |model| {
        fail("node");
        // If the range fits into one node, that node exists already.
        model.nodes = XA_CHUNK_SHIFT >= HPAGE_PMD_ORDER;
    };
    shmem("4.", no_nodes, nothing);
    let no_room: Prepare = |model| {
        with(|w| w.room = w.inode.blocks);
        model.room = false;
    };
    shmem("4.", no_room, nothing);
    let no_swap: Prepare = |model| {
        fail("shmem_get_folio");
        model.pages[1] = Page::Unavailable;
    };
    shmem("4s4", no_swap, nothing);
    // The last page is past the end of the file, as after fallocate(FALLOC_FL_KEEP_SIZE).
    let beyond: Prepare = |model| {
        with(|w| w.inode.size = START + LAST);
        model.pages[LAST] = Page::Unavailable;
    };
    shmem("4.f", beyond, || with(|w| w.inode.size = SIZE));
    let locked: Prepare = |model| {
        page(START + 2).locked.set(Some(somebody()));
        model.pages[2] = Page::Locked;
    };
    shmem("4.4", locked, || page(START + 2).locked.set(None));
    let off_lru: Prepare = |model| {
        page(START + 2).lru_state.set(Lru::Isolated(somebody()));
        model.pages[2] = Page::OffLru;
    };
    shmem("4.4", off_lru, || {
        page(START + 2).lru_state.set(Lru::Listed)
    });
    let private: Prepare = |model| {
        page(START + 2).private.set(true);
        page_cache::get(page_cache::cached(START + 2).expect("there is a page"));
        fail("filemap_release_folio");
        model.pages[2] = Page::Private;
    };
    shmem("4.4", private, nothing);
    let pinned: Prepare = |model| {
        page_cache::get(page_cache::cached(START + 2).expect("there is a page"));
        model.pages[2] = Page::Used;
    };
    // SAFETY: The reference is the one taken before.
    let unpin = || unsafe { folio_put(page_cache::cached(START + 2).expect("there is a page")) };
    shmem("4.4", pinned, unpin);
    let stays_mapped: Prepare = |model| {
        fail("try_to_unmap_file_run");
        model.pages[1] = Page::Used;
    };
    shmem("4m.", stays_mapped, nothing);
    let poisoned: Prepare = |model| {
        page(START + 2).poisoned.set(Some(0));
        model.pages[2] = Page::Poisoned;
    };
    shmem("4.4", poisoned, nothing);
    let huge: Prepare = |model| {
        collapse(START, true);
        model.pages[0] = Page::Huge;
    };
    shmem("4.", huge, nothing);

    let mut regular = |pages, prepare, clean_up| compare(cases, false, pages, prepare, clean_up);
    let beyond: Prepare = |model| {
        with(|w| w.inode.size = START + LAST);
        model.pages[LAST] = Page::Unavailable;
    };
    regular("4.", beyond, || with(|w| w.inode.size = SIZE));
    let unreadable: Prepare = |model| {
        fail("read");
        model.pages[1] = Page::Unavailable;
    };
    regular("4.", unreadable, nothing);
    let dirty: Prepare = |model| {
        page(START + 2).dirty.set(true);
        model.pages[2] = Page::Dirty;
    };
    regular("4", dirty, || {
        assert!(with(|w| w.inode.flushed), "no task has it open for writing")
    });
    let dirty_and_open: Prepare = |model| {
        page(START + 2).dirty.set(true);
        with(|w| w.inode.open_for_write = true);
        model.pages[2] = Page::Dirty;
    };
    regular("4", dirty_and_open, || assert!(!with(|w| w.inode.flushed)));
    let writeback: Prepare = |model| {
        page(START + 2).writeback.set(true);
        model.pages[2] = Page::Dirty;
    };
    regular("4", writeback, nothing);
    // The owner of the lock may wait for the end of writeback, so writeback is the better result.
    let locked_too: Prepare = |model| {
        page(START + 2).writeback.set(true);
        page(START + 2).locked.set(Some(somebody()));
        model.pages[2] = Page::Dirty;
    };
    regular("4", locked_too, || page(START + 2).locked.set(None));
    let dirty_in_page_table: Prepare = |model| {
        page(START + 1).pte_dirty.set(true);
        model.pages[1] = Page::Dirty;
    };
    regular("4m4", dirty_in_page_table, nothing);
}

/// Tests each result that needs another task to act at one exact point.
fn with_a_race(cases: &mut Cases) {
    let mut race = |pages: &str, call, action, expected| {
        let regular_file = expected == scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK;
        file(!regular_file, pages);
        at_call(call, action);
        let (result, _) = cases.run(true);
        assert_eq!(
            name(result),
            name(expected),
            "{pages} {call}\n{}",
            timeline()
        );
        assert!(with(|w| w.at_call.is_empty()), "{pages} {call}");
    };

    // A hole is filled after it was counted.
    race(
        "4.",
        "shmem_charge",
        || write(START + 1, 7),
        scan_result_SCAN_PAGE_FILLED,
    );
    race(
        "4.s",
        "shmem_get_folio",
        || write(START + 1, 7),
        scan_result_SCAN_PAGE_FILLED,
    );
    // A page is gone before it is swapped in.
    race(
        "4s4",
        "shmem_get_folio",
        || punch(START + 1, START + 1),
        scan_result_SCAN_FAIL,
    );
    // The folio that is found instead begins before the index.
    race(
        ".s4",
        "shmem_get_folio",
        || {
            punch(START + 1, START + 1);
            fill_large(START, 1);
        },
        scan_result_SCAN_PAGE_FILLED,
    );
    // The same happens at the end of the range. The folios and the counted hole are then more pages
    // than the range has.
    let hole_and_swap = "4".repeat(HPAGE_PMD_NR - 2) + ".s";
    race(
        &hole_and_swap,
        "shmem_get_folio",
        || {
            punch(START + LAST, START + LAST);
            fill_large(START + LAST - 1, 1);
        },
        scan_result_SCAN_PAGE_FILLED,
    );
    // A page that was read in is dirty or under writeback before it is locked.
    race(
        "4.",
        "filemap_lock_folio",
        || write(START + 1, 7),
        scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK,
    );
    race(
        "4.",
        "filemap_lock_folio",
        || page(START + 1).writeback.set(true),
        scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK,
    );
    // A userfaultfd is registered before the check, and one after the commit.
    race(
        "4.",
        "shmem_charge",
        || register(0),
        scan_result_SCAN_EXCEED_NONE_PTE,
    );
    race(
        "4.",
        "folio_unlock",
        || register(0),
        scan_result_SCAN_SUCCEED,
    );
    if XA_CHUNK_SHIFT < HPAGE_PMD_ORDER {
        // Another task fills a hole and punches it again, which frees the node. The collapse needs
        // no new node.
        race(
            "44.",
            "shmem_charge",
            || {
                write(START + LAST, 7);
                punch(START + LAST, START + LAST);
                fail("node");
            },
            scan_result_SCAN_SUCCEED,
        );
    }
}

/// A preallocated node is freed if another task has created the missing node first.
#[test]
fn unused_node_is_freed() {
    if XA_CHUNK_SHIFT >= HPAGE_PMD_ORDER {
        return;
    }
    file(true, "44.");
    // The node must be allocated without the lock.
    fail("node-atomic");
    at_call("xas_nomem", || {
        write(START + LAST, 7);
        drain(with(|w| w.current));
    });
    collapse(START, true);
    let results = checked();
    assert_eq!(results, [(scan_result_SCAN_SUCCEED, START + HPAGE_PMD_NR)]);
    assert!(with(|w| w.at_call.is_empty()));
}

#[test]
fn each_result() {
    let mut cases = Cases::default();
    without_a_race(&mut cases);
    with_a_race(&mut cases);
    if XA_CHUNK_SHIFT < HPAGE_PMD_ORDER {
        for result in [
            scan_result_SCAN_FAIL,
            scan_result_SCAN_SUCCEED,
            scan_result_SCAN_EXCEED_NONE_PTE,
            scan_result_SCAN_PTE_MAPPED_HUGEPAGE,
            scan_result_SCAN_PAGE_COUNT,
            scan_result_SCAN_PAGE_LOCK,
            scan_result_SCAN_DEL_PAGE_LRU,
            scan_result_SCAN_ALLOC_HUGE_PAGE_FAIL,
            scan_result_SCAN_CGROUP_CHARGE_FAIL,
            scan_result_SCAN_TRUNCATED,
            scan_result_SCAN_PAGE_HAS_PRIVATE,
            scan_result_SCAN_COPY_MC,
            scan_result_SCAN_PAGE_FILLED,
            scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK,
            scan_result_SCAN_NO_SPACE,
        ] {
            assert!(
                cases.seen.contains(&result),
                "{} was never seen",
                name(result)
            );
        }
    }
    cases.end("each_result");
}

/// Makes each call fail that can fail, one at a time.
#[test]
fn each_call_fails_once() {
    let mut cases = Cases::default();
    for (is_shmem, pages) in [
        (true, "4m.sf4."),
        (true, "4.m"),
        (true, "s.f"),
        (false, "m.4"),
        (false, "."),
    ] {
        for nth in 1.. {
            file(is_shmem, pages);
            with(|w| {
                w.fallible = 0;
                w.fail_nth = Some(nth);
            });
            let (result, index) = cases.run(true);
            let Some(failed) = with(|w| w.failed) else {
                break;
            };
            let trouble = |page| {
                (0..HPAGE_PMD_NR).any(|i| {
                    let mut model = model(is_shmem, true, pages);
                    model.pages[i] = page;
                    predict(&model) == (result, index)
                })
            };
            let mut model = model(is_shmem, true, pages);
            let right = match failed {
                "shmem_get_folio" | "read" => trouble(Page::Unavailable),
                // The folio is on the LRU, so the collapse tries again.
                "folios_isolate_lru" => predict(&model) == (result, index),
                "try_to_unmap_file_run" => trouble(Page::Used),
                "copy_mc_highpage" => trouble(Page::Poisoned),
                other => {
                    model.memory = !matches!(other, "alloc_charge_folio" | "kmalloc");
                    model.memcg = other != "mem_cgroup_charge";
                    model.room = other != "shmem_charge";
                    predict(&model) == (result, index)
                }
            };
            assert!(
                right,
                "{pages}: {failed} failed: {} at {index}",
                name(result)
            );
        }
    }
    cases.end("each_call_fails_once");
}

/// Returns the file of this world.
fn file_ref() -> &'static FileRef {
    // SAFETY: The file stays allocated until the next world.
    unsafe { FileRef::from_raw(with(|w| &raw mut *w.file)) }
}

/// Returns the mapping of the file.
fn address_space() -> &'static AddressSpace {
    AddressSpace::of(file_ref())
}

fn range_at(start: usize) -> PmdRange<'static> {
    address_space().pmd_range(start)
}

/// Runs `f` with a `struct collapse_control`.
fn with_control<R>(is_khugepaged: bool, f: impl FnOnce(&CollapseControl) -> R) -> R {
    let mut cc = collapse_control { is_khugepaged };
    // SAFETY: `cc` is valid for the call.
    f(unsafe { CollapseControl::from_raw(&raw mut cc) })
}

fn new_at(start: usize) -> NewFolio<'static> {
    let mm = mm_struct::default();
    // SAFETY: `mm` is valid for the call.
    let mm = unsafe { Mm::from_raw(&raw const mm) };
    with_control(true, |cc| NewFolio::alloc_charged(mm, cc, range_at(start)))
        .expect("there is memory")
}

fn begin_at(start: usize) -> OldFolios<'static, Gathering> {
    OldFolios::new(new_at(start)).expect("there is memory")
}

fn patience() -> Patience {
    with_control(false, Patience::new)
}

/// Gathers and copies a range as `mm/collapse_file.rs` does, up to the commit.
fn copied_at<'w>(
    walk: &'w mut Walk<'static>,
    start: usize,
) -> (Cursor<'w, 'static>, OldFolios<'static, Copied>) {
    let mut old = begin_at(start);
    let mut locked = Cursor::new(walk)
        .lock_with_slots()
        .expect("there is memory");
    while old.next() < start + HPAGE_PMD_NR {
        if !matches!(locked.load(old.next()), Entry::Folio(_)) {
            old.add_hole();
            continue;
        }
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        old.take(&cursor, &mut patience())
            .expect("the folio can be taken");
        locked = match old.lock(cursor) {
            Ok(locked) => locked,
            Err(_) => panic!("no hole was filled"),
        };
    }
    let cursor = locked.unlock();
    let old = old.flush(&cursor).charge_holes(&cursor);
    let old = old.expect("there is room").copy(&cursor);
    match old {
        Ok(old) => (cursor, old),
        Err(_) => panic!("no memory is failing"),
    }
}

/// Replaces a range.
fn commit_at(walk: &mut Walk<'static>, start: usize) {
    let (cursor, old) = copied_at(walk, start);
    let sealed = old
        .lock_for_commit(cursor)
        .fill_holes()
        .and_then(|filled| filled.expect_holes())
        .and_then(|counted| counted.check_userfaultfd());
    let Ok(sealed) = sealed else {
        panic!("the range can be sealed");
    };
    let Ok((huge, replaced)) = sealed.commit() else {
        panic!("every slot exists");
    };
    huge.unlock();
    replaced.release();
}

/// After a commit and after a failed allocation, a walk finds single entries again.
#[test]
fn walk_is_for_single_entries_again() {
    let find = |walk: &mut Walk<'_>, index| {
        let mut locked = Cursor::new(walk).lock();
        let Entry::Folio(found) = locked.load(index) else {
            panic!("there is a page at {index}");
        };
        assert!(core::ptr::eq(found.as_raw(), page(index)), "{index}");
    };
    let after = START + HPAGE_PMD_NR;

    file(true, "4.");
    let mut walk = range_at(START).walk();
    commit_at(&mut walk, START);
    find(&mut walk, after);
    find(&mut walk, START + 1);

    file(true, "4.");
    let mut walk = range_at(START).walk();
    fail("node");
    drop(Cursor::new(&mut walk).lock_with_slots());
    find(&mut walk, START);
    find(&mut walk, after);
}

/// A cursor for another range causes a panic before the page-cache lock is taken.
///
/// Without SMP, a commit with another locked cursor also causes a panic. Each case runs in its own
/// process, because a failed assertion ends it.
#[test]
fn wrong_cursor() {
    const CASE: &str = "WRONG_CURSOR";

    // The action, a part of the panic message, and whether a lock is held at the panic.
    let cases: [(fn(), &str, bool); 3] = [
        (
            || {
                file(true, "4");
                let mut walk = range_at(START + HPAGE_PMD_NR).walk();
                let _ = begin_at(START).lock(Cursor::new(&mut walk));
            },
            "cursor.range() ==",
            false,
        ),
        (
            || {
                file(true, "4");
                let (mut walk, mut other) = (
                    range_at(START).walk(),
                    range_at(START + HPAGE_PMD_NR).walk(),
                );
                let (_, old) = copied_at(&mut walk, START);
                let _ = old.lock_for_commit(Cursor::new(&mut other));
            },
            "cursor.range() ==",
            false,
        ),
        (
            || {
                file(true, "4");
                let (mut walk, mut other) = (range_at(START).walk(), range_at(START).walk());
                let (cursor, old) = copied_at(&mut walk, START);
                let _locked = Cursor::new(&mut other).lock();
                let _ = old.lock_for_commit(cursor);
            },
            "irqs_disabled",
            true,
        ),
    ];
    if let Ok(number) = env::var(CASE) {
        panic::set_hook(Box::new(|info| {
            eprintln!("{info}");
            let held = with(|w| w.lock_owner.is_some() || !w.i_mmap_readers.is_empty());
            process::exit(if held { 2 } else { 1 });
        }));
        let number: usize = number.parse().expect("it is set below");
        cases[number].0();
        process::exit(0);
    }
    for (number, (_, why, held)) in cases.iter().enumerate() {
        let program = env::current_exe().expect("it is running");
        let done = process::Command::new(program)
            .args(["--exact", "wrong_cursor", "--nocapture"])
            .env(CASE, number.to_string())
            .output()
            .expect("it can be run");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1 + i32::from(*held)), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

/// Holes past the end of the range are refused without a search.
///
/// The search would take long with the page-cache lock held.
#[test]
fn holes_past_the_range() {
    // The range is empty, and so is the rest of the file.
    let empty = START + 2 * HPAGE_PMD_NR;
    file(true, ".");
    let mut walk = range_at(empty).walk();
    let mut old = begin_at(empty);
    for _ in 0..=HPAGE_PMD_NR {
        old.add_hole();
    }
    assert!(old.lock(Cursor::new(&mut walk)).is_err());
    drop(old);

    // The state of one collapse does not affect the next one.
    file(true, "4");
    let mut walk = range_at(START).walk();
    let mut old = begin_at(START);
    old.find(&mut Cursor::new(&mut walk).lock(), |_| true);
    drop(old);
    let mut old = begin_at(START);
    old.take(&Cursor::new(&mut walk), &mut patience())
        .expect("there is no folio in the batch");
    assert_eq!(old.next(), START);
    drop(old);
    drain(0);
    checked();
}

/// Locks and returns the folio at an index.
fn lock_at(index: usize) -> LockedFolio {
    let mut walk = range_at(index - index % HPAGE_PMD_NR).walk();
    Cursor::new(&mut walk)
        .filemap_lock_folio(index)
        .expect("there is a page")
}

/// A folio that does not follow the ones before it, or is outside the range, is refused.
#[test]
fn folio_that_does_not_belong() {
    let take = |old: &mut OldFolios<'static, Gathering>, folio| {
        let mut walk = range_at(START).walk();
        old.begin_batch();
        old.add_locked(folio).expect("there is no private data");
        old.take(&Cursor::new(&mut walk), &mut patience())
    };
    let truncated = |index| Err((index, ScanResult::Truncated));

    file(true, "4");
    let mut old = begin_at(START);
    let (first, second) = (lock_at(START), lock_at(START + 1));
    assert_eq!(take(&mut old, second), Ok(()));
    assert_eq!(take(&mut old, first), truncated(START + 1));
    drop(old);
    checked();

    file(true, "4");
    let mut old = begin_at(START);
    assert_eq!(take(&mut old, lock_at(START - 1)), truncated(START));
    drop(old);
    let mut old = begin_at(START);
    let after = START + HPAGE_PMD_NR;
    assert_eq!(take(&mut old, lock_at(after)), truncated(after));
    drop(old);
    checked();

    // The folio has left the mapping.
    file(true, "4");
    let mut old = begin_at(START);
    old.begin_batch();
    old.add_locked(lock_at(START))
        .expect("there is no private data");
    page(START).mapping.set(core::ptr::null_mut());
    let mut walk = range_at(START).walk();
    let taken = old.take(&Cursor::new(&mut walk), &mut patience());
    assert_eq!(taken, truncated(START));
}

/// A folio that was found but not taken is released, even if the collapse continues.
#[test]
fn folio_that_was_not_taken_is_given_back() {
    file(true, "4");
    let refs = page(START - 1).refs.get();
    let mut walk = range_at(START).walk();
    let cursor = Cursor::new(&mut walk);
    let mut old = begin_at(START);
    old.begin_batch();
    old.add_locked(lock_at(START - 1))
        .expect("there is no private data");
    // The collapse continues without the folio.
    let old = old.flush(&cursor);
    assert!(page(START - 1).locked.get().is_none());
    assert_eq!(page(START - 1).refs.get(), refs);
    drop(old);
    checked();
}

/// Readahead outside the range does nothing, nor without a function to read folios with.
#[test]
fn what_cannot_be_read_ahead() {
    let read = |index| {
        let mut walk = range_at(START).walk();
        let cursor = Cursor::new(&mut walk);
        let mut old = begin_at(START);
        cursor.readahead(file_ref(), index, &old.put_back(&cursor));
        cursor.filemap_lock_folio(START + 1).is_ok()
    };

    file(false, "4.");
    assert!(!read(START + HPAGE_PMD_NR) && !read(START - 1));
    // Some mappings, such as that of a directory, have no function to read folios with.
    with(|w| w.mapping.reads = false);
    assert!(!read(START + 1));
    with(|w| w.mapping.reads = true);
    assert!(read(START + 1));
    drain(0);
    checked();
}

/// After the last possible index, the rest is empty.
#[test]
fn rest_after_the_last_index_is_empty() {
    file(true, "4");
    let mut walk = range_at(START).walk();
    let mut locked = Cursor::new(&mut walk).lock();
    locked.load(usize::MAX);
    assert!(locked.rest_is_empty());
    drop(locked);
    checked();
}

/// A search without a result ends after the last slot of a node, and must not read past the node.
#[test]
fn search_ends_after_a_node() {
    let end = 64usize.next_multiple_of(HPAGE_PMD_NR).max(2 * HPAGE_PMD_NR);

    file(true, "4.");
    with(|w| w.inode.size = end + 1);
    write(end - 2, 1);
    write(end, 1);
    // SAFETY: The array stays allocated until the next world. Nothing is stored through `state`.
    let mut state = unsafe { XaState::new(with(|w| &raw mut w.mapping.i_pages), 0, 0) };
    let mut guard = state.lock_irq();
    let is_next = |entry: XaEntry| entry.as_ptr() == (&raw const *page(end)).cast_mut().cast();

    assert!(guard.find(end - 1, end - 1).is_none());
    assert!(is_next(guard.next_slot()));
    drop(guard);
    drop(state);
    checked();
}

/// An unmapped folio stays locked until the TLBs are flushed.
///
/// This also holds if the folio is refused, and if the caller continues after that.
#[test]
fn unmapped_folios_stay_locked_until_the_flush() {
    let is_locked = |index| page(index).locked.get().is_some();

    file(true, "m.m");
    let range = range_at(START);
    let mut walk = range.walk();
    let mut old = begin_at(START);
    let mut locked = Cursor::new(&mut walk).lock();
    old.find(&mut locked, |_| true);
    let cursor = locked.unlock();
    page_cache::get(page_cache::cached(START + 2).expect("there is a page"));
    let taken = old.take(&cursor, &mut patience());
    assert_eq!(taken, Err((START + 2, ScanResult::PageCount)));
    assert!(page(START).mapcount.get() == 0);
    assert!(!is_locked(START) && !is_locked(START + 2));
    let mut locked = cursor.lock();
    old.find(&mut locked, |_| true);
    drop((locked, old));
    // SAFETY: The reference is the one taken above.
    unsafe { folio_put(page_cache::cached(START + 2).expect("there is a page")) };
    checked();
}

/// A folio whose content must not be copied is refused, even if the caller does not check it.
#[test]
fn folios_that_must_not_be_taken() {
    let fail = Err((START, ScanResult::Fail));
    let dirty = Err((START, ScanResult::PageDirtyOrWriteback));
    let not_uptodate: fn(&folio, bool) = |page, wrong| page.uptodate.set(!wrong);
    let is_dirty: fn(&folio, bool) = |page, wrong| page.dirty.set(wrong);
    let is_written: fn(&folio, bool) = |page, wrong| page.writeback.set(wrong);

    for (is_shmem, state, expected) in [
        (true, not_uptodate, fail),
        (false, not_uptodate, fail),
        (true, is_dirty, Ok(())),
        (false, is_dirty, dirty),
        (true, is_written, Ok(())),
        (false, is_written, dirty),
    ] {
        file(is_shmem, "4");
        let was_dirty = page(START).dirty.get();
        let mut walk = range_at(START).walk();
        let mut old = begin_at(START);
        let mut locked = Cursor::new(&mut walk).lock();
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        state(page(START), true);
        let taken = old.take(&cursor, &mut patience());
        assert_eq!(taken, expected);
        drop(old);
        state(page(START), false);
        page(START).dirty.set(was_dirty);
        checked();
    }
}

/// Steps without a folio, in the wrong order or after a failure do no harm.
#[test]
fn steps_in_wrong_order() {
    // No folio was found.
    file(true, "4.");
    let mut walk = range_at(START).walk();
    let mut old = begin_at(START);
    let cursor = Cursor::new(&mut walk);
    assert_eq!(old.take(&cursor, &mut patience()), Ok(()));
    assert_eq!((old.next(), old.holes()), (START, 0));
    old.add_hole();
    assert_eq!(old.take(&cursor, &mut patience()), Ok(()));
    assert_eq!((old.next(), old.holes()), (START + 1, 1));
    drop(old);
    checked();

    // The isolation fails for the second folio. Then a folio before the next index is added.
    file(true, "4");
    let mut walk = range_at(START).walk();
    let mut old = begin_at(START);
    let mut locked = Cursor::new(&mut walk).lock();
    old.find(&mut locked, |_| true);
    let cursor = locked.unlock();
    at_call("folios_isolate_lru", || ());
    at_call("folios_isolate_lru", || {
        page(START + 1).lru_state.set(Lru::Isolated(somebody()))
    });
    let failed = old.take(&cursor, &mut patience());
    assert_eq!(failed, Err((START + 1, ScanResult::DelPageLru)));
    page(START + 1).lru_state.set(Lru::Listed);
    old.begin_batch();
    old.add_locked(lock_at(START + 1))
        .expect("there is no private data");
    let refused = old.take(&cursor, &mut patience());
    assert_eq!(refused, Err((START + 1, ScanResult::Truncated)));
    drop(old);
    checked();
}

/// The traced index is that of the first folio in index order that fails.
///
/// If the folio begins before the next index of the collapse, the next index is traced.
#[test]
fn where_a_batch_fails() {
    let used = |index| page_cache::get(page_cache::cached(index).expect("there is a page"));
    // SAFETY: The reference is one taken above.
    let unused = |index| unsafe { folio_put(page_cache::cached(index).expect("there is a page")) };

    for (first, refused, unread, expected) in [
        (
            START,
            vec![START + 3],
            None,
            (START + 3, ScanResult::PageCount),
        ),
        (
            START,
            vec![START + 3, START + 2],
            None,
            (START + 2, ScanResult::PageCount),
        ),
        (
            START,
            vec![START + 3],
            Some(START + 2),
            (START + 2, ScanResult::Fail),
        ),
        (
            START,
            vec![START + 2],
            Some(START + 3),
            (START + 2, ScanResult::PageCount),
        ),
        (
            START + 1,
            vec![START],
            None,
            (START + 1, ScanResult::PageCount),
        ),
        (
            START + 1,
            vec![],
            Some(START),
            (START + 1, ScanResult::Fail),
        ),
    ] {
        file(true, "2244");
        let mut walk = range_at(START).walk();
        let mut old = begin_at(START);
        (START..first).for_each(|_| old.add_hole());
        let mut locked = Cursor::new(&mut walk).lock();
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        refused.iter().for_each(|&index| used(index));
        let set_uptodate = |uptodate| {
            if let Some(index) = unread {
                page(index).uptodate.set(uptodate);
            }
        };
        set_uptodate(false);
        let failed = old.take(&cursor, &mut patience());
        assert_eq!(failed, Err(expected), "{first} {refused:?}");
        drop(old);
        set_uptodate(true);
        refused.iter().for_each(|&index| unused(index));
        checked();
    }
}

/// The duration of one turn of a loop that waits, in ns: a tenth of the budget of `madvise()`.
const TURN: i64 = 100_000;

/// How another task begins and ends to use a folio, and the result of a collapse in between.
type Use = (fn(), fn(), u32);

/// A collapse fails only if another task uses a folio for longer than the collapse waits.
#[test]
fn what_is_waited_for() {
    let mut cases = Cases::default();
    let others: [Use; 3] = [
        (
            || page_cache::get(page_cache::cached(START + 2).expect("there is a page")),
            // SAFETY: The reference is the one taken above.
            || unsafe { folio_put(page_cache::cached(START + 2).expect("there is a page")) },
            scan_result_SCAN_PAGE_COUNT,
        ),
        (
            || page(START + 2).locked.set(Some(somebody())),
            || page(START + 2).locked.set(None),
            scan_result_SCAN_PAGE_LOCK,
        ),
        (
            || page(START + 2).lru_state.set(Lru::Isolated(somebody())),
            || page(START + 2).lru_state.set(Lru::Listed),
            scan_result_SCAN_DEL_PAGE_LRU,
        ),
    ];
    for (come, go, result) in others {
        for (is_khugepaged, turn, in_time) in [
            (false, 1, true),
            (false, 5, true),
            (false, 20, false),
            (true, 20, true),
            (true, 200, false),
        ] {
            file(true, "4.4");
            with(|w| w.turn = TURN);
            come();
            with(|w| w.at_call.push_back(("cpu_relax", turn, go)));
            let (found, index) = cases.run_but_check(is_khugepaged, || {
                if !in_time {
                    with(|w| w.at_call.clear());
                    go();
                }
            });
            if in_time {
                assert_eq!(index, START + HPAGE_PMD_NR, "{} {turn}", name(result));
            } else {
                assert_eq!((found, index), (result, START + 2), "{turn}");
            }
            let waited = with(|w| w.clock);
            assert!(
                waited <= if is_khugepaged { 11_000_000 } else { 1_100_000 },
                "{waited}"
            );
        }
    }
    cases.end("what_is_waited_for");
}

/// A task that was killed does not wait.
#[test]
fn killed_task_does_not_wait() {
    file(true, "4.4");
    with(|w| (w.turn, w.killed) = (TURN, true));
    page(START + 2).locked.set(Some(somebody()));
    collapse(START, true);
    assert_eq!(with(|w| w.clock), TURN);
    page(START + 2).locked.set(None);
    assert_eq!(checked(), [(scan_result_SCAN_PAGE_LOCK, START + 2)]);
}

/// A folio that has left the page cache since it was found is looked up again.
#[test]
fn folio_that_moved() {
    let mut cases = Cases::default();
    for (pages, action) in [
        // Another task punches the second folio of the batch. The new hole is counted.
        ("44.4", (|| punch(START + 1, START + 1)) as fn()),
        // Another task reclaims it.
        ("44.4", || reclaim(START + 1)),
    ] {
        file(true, pages);
        // The other task acts when the first folio is locked.
        at_call("folio_trylock", action);
        let (result, index) = cases.run(true);
        assert_eq!(
            (name(result), index),
            ("SCAN_SUCCEED", START + HPAGE_PMD_NR)
        );
    }
    cases.end("folio_that_moved");
}

/// A hole that is filled while a batch is taken makes the collapse fail before the copy.
#[test]
fn hole_filled_early_is_noticed_early() {
    let mut cases = Cases::default();
    file(true, "4.4");
    at_call("folio_trylock", || write(START + 1, 7));
    let (result, index) = cases.run(true);
    assert_eq!(
        (name(result), index),
        ("SCAN_PAGE_FILLED", START + HPAGE_PMD_NR)
    );
    let copied = with(|w| {
        let huge = w.folios.iter().filter(|f| f.order == HPAGE_PMD_ORDER);
        huge.flat_map(|f| &f.pages)
            .any(|p| p.content.get() != GARBAGE)
    });
    assert!(!copied);
    cases.end("hole_filled_early_is_noticed_early");
}

/// Each slot of a folio returns that folio, in ascending and in descending order.
#[test]
fn slots_of_a_folio() {
    file(true, "224");
    let mut walk = range_at(START).walk();
    let mut locked = Cursor::new(&mut walk).lock();
    let up = START..START + HPAGE_PMD_NR;
    for index in up.clone().chain(up.rev()) {
        let Entry::Folio(found) = locked.load(index) else {
            panic!("there is a page at {index}");
        };
        assert!(core::ptr::eq(found.as_raw(), page(index)), "{index}");
    }
}

/// An internal entry of the XArray counts as a hole and not as a folio.
#[test]
fn retry_entry_is_no_folio() {
    file(true, "4.4");
    // SAFETY: No preconditions.
    let retry = unsafe { xa_retry_entry() };
    xa_store::Cursor::new(START + 1, 0).locked(|cursor| cursor.store(retry));
    let mut walk = range_at(START).walk();
    let mut locked = Cursor::new(&mut walk).lock();
    assert!(matches!(locked.load(START + 1), Entry::Empty));
}

/// A collapse takes locks once for a batch of folios, also with holes between the folios.
#[test]
fn locks_are_taken_for_batches() {
    let batches = |folios: usize| folios.div_ceil(FOLIO_BATCH_SIZE as usize);
    let all = batches(HPAGE_PMD_NR);
    for (is_shmem, pages, locks, i_mmaps) in [
        // The page-cache lock is taken to create the slots, for each batch, and for the commit.
        (true, "m", all + 2, all + 1),
        (false, "m", all + 2, all + 1),
        // It is also taken to charge for the hole.
        (true, "4.4", batches(HPAGE_PMD_NR - 1) + 3, 2),
    ] {
        file(is_shmem, pages);
        collapse(START, true);
        let taken = |lock| {
            with(|w| {
                let collapse = w.events.iter().skip_while(|e| e.what != What::Begin);
                collapse.filter(|e| e.what == lock).count()
            })
        };
        let found = (taken(What::Lock), taken(What::IMmapRead));
        checked();
        assert_eq!(found, (locks, i_mmaps), "{is_shmem} {pages}");
    }
}

/// Both results of `is_locked()` and `contains()` are right.
#[test]
fn folio_that_is_not_ours() {
    file(true, "4");
    let mut walk = range_at(START).walk();
    let mut locked = Cursor::new(&mut walk).lock();
    let Entry::Folio(folio) = locked.load(START) else {
        panic!("there is a page");
    };
    assert!(!folio.is_locked());
    let folio = folio.try_lock().expect("no task has it locked");
    drop(locked);
    assert!(folio.is_locked() && address_space().contains(&folio));
    page_cache::remove_folio(folio.as_raw(), event::Slot::Hole);
    assert!(!address_space().contains(&folio));
}

/// Returns the content of a range as snapshots report it, as the letters of [`file`].
///
/// Each snapshot has room for `room` extents.
fn letters(range: Range<usize>, room: usize) -> String {
    let mut found = vec![Extent::default(); room];
    let mut text = String::new();
    let mut next = range.start;

    loop {
        let extents = address_space().snapshot(next..range.end, &mut found);
        let Some(last) = extents.last() else {
            return text;
        };
        assert!(extents[0].start <= next);
        for extent in extents {
            let letter = match extent.content {
                Content::Hole => '.',
                Content::Value(_) => 's',
                Content::Folio(flags) if !flags.uptodate => 'f',
                Content::Folio(_) if extent.order == 1 => '2',
                Content::Folio(_) => '4',
            };
            let pages = extent.end().min(range.end) - extent.start.max(range.start);
            assert_eq!(extent.start.max(range.start), range.start + text.len());
            assert!(match letter {
                '.' => extent.end() <= range.end,
                _ => extent.nr_pages == 1 << extent.order,
            });
            text.extend(std::iter::repeat_n(letter, pages));
        }
        next = last.end();
    }
}

#[test]
fn what_a_snapshot_tells() {
    for pages in [
        "4", ".", "s", "4.s", ".4", "22.", "22f.", "..22s", "s.", "f4..", "4..4",
    ] {
        file(true, pages);
        let mut all: String = pages.chars().collect();
        let last = pages.chars().last().expect("at least one page");
        all.extend(std::iter::repeat_n(
            last,
            HPAGE_PMD_NR.saturating_sub(all.len()),
        ));
        all.truncate(HPAGE_PMD_NR);
        // The snapshots also cover the pages before and after the range.
        let all = format!(".{}4{all}4.", ".".repeat(START - 2));
        let end = all.len();
        for room in [1, 2, HPAGE_PMD_NR + 3] {
            for start in (0..end).step_by(1 + end / 40) {
                assert_eq!(letters(start..end, room), all[start..], "{pages}");
            }
            assert_eq!(
                letters(START + 1..START + 2, room),
                all[START + 1..START + 2]
            );
            assert_eq!(letters(START..START, room), "");
        }
        assert_eq!(letters(usize::MAX - 1..usize::MAX, 3), "");
        let far = usize::MAX / 2;
        assert_eq!(letters(far..far + 2, 3), "..");
        checked();
    }
}

#[test]
fn who_maps_it() {
    file(true, "4");
    let vma = vm_area_struct::add(START + 1, 2);
    register(vma);
    let mut found = [MappedArea::default(); 2];
    let areas = |range, found: &mut [MappedArea]| {
        let (areas, more) = address_space().snapshot_vmas(range, found);
        let areas = areas
            .iter()
            .map(|a| (a.pgoff, a.end - a.start, a.userfaultfd.missing));
        (areas.collect::<Vec<_>>(), more)
    };
    let (first, second) = ((START, HPAGE_PMD_NR, false), (START + 1, 2, true));
    assert_eq!(
        areas(0..2 * START, &mut found),
        (vec![first, second], false)
    );
    assert_eq!(areas(0..2 * START, &mut found[..1]), (vec![first], true));
    assert_eq!(areas(START..START + 1, &mut found), (vec![first], false));
    assert_eq!(areas(0..START, &mut found), (vec![], false));
    assert_eq!(areas(START + 1..START + 1, &mut found), (vec![], false));

    for mode in 0..3 {
        let others = core::array::from_fn(|at| at == mode);
        with(|w| w.vmas[vma].uffd_others.set(others));
        let (areas, _) = address_space().snapshot_vmas(START..START + 2, &mut found);
        let modes = areas[1].userfaultfd;
        assert_eq!([modes.wp, modes.minor, modes.rwp], others);
    }
    checked();
}
