// SPDX-License-Identifier: GPL-2.0

//! Without others, or with others that do something at one exact place: the result and the traced
//! index are exactly what the specification says. And what the abstractions assert because no type
//! says it.

use bindings::{
    event::What,
    rmap::vm_area_struct,
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
    fs::file::LocalFile,
    mm::{
        khugepaged::{
            CollapseControl, CopyCursor, FolioBatch, FolioSlots, IsolatedBatch, NewFolio,
            OldFolios, ScanResult, Uptodate,
        },
        page_cache::{AddressSpace, Cursor, Entry, LockedCursor, PmdRange, Walk},
        page_cache_map::{Content, Extent, MappedArea},
        rmap::Flushed,
        Mm,
    },
    xarray::state::{XaEntry, XaState},
};
use std::{collections::BTreeSet, env, ops::Range, panic, process};

/// What the results were, of a number of cases.
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

    fn end(self, name: &str) {
        report(name, "sequential", self.count, &self.seen);
    }
}

/// The model of a file as [`file`] makes it.
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

/// Prepares a file and says so to the model; and cleans up behind the collapse.
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
            world::timeline()
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
        // With and without another mapping of all the range.
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
    // Gone again.
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

/// It is for the caller not to ask for such a file.
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
    let folio = mapping::cached(index).expect("there is a page");
    // SAFETY: Folios stay until the next world.
    unsafe { &*folio }
}

/// A task that is nowhere else.
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

/// Each result that does not take a race.
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
        // Else the node that the neighbours have is enough.
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
    // Allocated beyond the end of the file, as fallocate(KEEP_SIZE) does.
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
        mapping::get(mapping::cached(START + 2).expect("there is a page"));
        fail("filemap_release_folio");
        model.pages[2] = Page::Private;
    };
    shmem("4.4", private, nothing);
    let pinned: Prepare = |model| {
        mapping::get(mapping::cached(START + 2).expect("there is a page"));
        model.pages[2] = Page::Used;
    };
    // SAFETY: The reference is the one taken before.
    let unpin = || unsafe { folio_put(mapping::cached(START + 2).expect("there is a page")) };
    shmem("4.4", pinned, unpin);
    let stays_mapped: Prepare = |model| {
        fail("try_to_unmap");
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
        assert!(with(|w| w.inode.flushed), "nobody has it open for writing")
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
    // What it is waiting for may be the end of it: that somebody has it locked tells less.
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

/// Results that take somebody else at the right place.
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
            world::timeline()
        );
        assert!(with(|w| w.at_call.is_empty()), "{pages} {call}");
    };

    // A hole is filled after it was counted, or comes back.
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
    // A page that was to be swapped in is not there any more.
    race(
        "4s4",
        "shmem_get_folio",
        || punch(START + 1, START + 1),
        scan_result_SCAN_FAIL,
    );
    // The folio that comes begins before the index.
    race(
        ".s4",
        "shmem_get_folio",
        || {
            punch(START + 1, START + 1);
            fill_large(START, 1);
        },
        scan_result_SCAN_PAGE_FILLED,
    );
    // The same at the end of the range: it has as many pages as the range then, and the hole that
    // was counted besides.
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
    // A page that was read in is dirty before it is locked, or being written already.
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
    // A userfaultfd is there in time, and one is too late.
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
        // The node of holes only is gone with a page that came and went, and there is no other.
        race(
            "44.",
            "shmem_charge",
            || {
                write(START + LAST, 7);
                punch(START + LAST, START + LAST);
                fail("node");
            },
            scan_result_SCAN_STORE_FAILED,
        );
    }
}

/// A node that was allocated is freed if somebody else has made the one that it was for.
#[test]
fn unused_node_is_freed() {
    if XA_CHUNK_SHIFT >= HPAGE_PMD_ORDER {
        return;
    }
    file(true, "44.");
    // One has to be asked for without the lock.
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
            scan_result_SCAN_STORE_FAILED,
            scan_result_SCAN_COPY_MC,
            scan_result_SCAN_PAGE_FILLED,
            scan_result_SCAN_PAGE_DIRTY_OR_WRITEBACK,
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

/// Lets each call fail that can, one at a time.
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
                "folio_test_clear_lru" => trouble(Page::OffLru),
                "try_to_unmap" => trouble(Page::Used),
                "copy_mc_highpage" => trouble(Page::Poisoned),
                other => {
                    model.memory = other != "alloc_charge_folio";
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

/// The file there is.
fn local_file() -> &'static LocalFile {
    // SAFETY: It stays until the next world.
    unsafe { LocalFile::from_raw_file(with(|w| &raw const *w.file)) }
}

/// Its mapping.
fn address_space() -> &'static AddressSpace {
    AddressSpace::of(local_file())
}

fn range_at(start: usize) -> PmdRange<'static> {
    address_space().pmd_range(start)
}

fn new_at(start: usize) -> NewFolio<'static, Uptodate> {
    copy_at(start).clear_rest().mark_uptodate()
}

fn copy_at(start: usize) -> CopyCursor<'static> {
    let mm = mm_struct::default();
    let mut cc = collapse_control {
        is_khugepaged: true,
    };
    // SAFETY: Both are valid for the call.
    let (mm, cc) = unsafe {
        (
            Mm::from_raw(&raw const mm),
            CollapseControl::from_raw(&raw mut cc),
        )
    };
    let new = NewFolio::alloc_charged(mm, cc, range_at(start)).expect("there is memory");
    new.into_copy_cursor()
}

/// The folios at the first `nr` indices of a range.
fn old_at(start: usize, nr: usize) -> OldFolios<'static, Flushed> {
    let range = range_at(start);
    let mut walk = range.walk();
    let mut old = OldFolios::new(range);
    let mut locked = Cursor::new(&mut walk).lock();
    for index in start..start + nr {
        let Entry::Folio(folio) = locked.load(index) else {
            continue;
        };
        let folio = folio.try_lock().expect("nobody has it locked");
        let cursor = locked.unlock();
        let batch = FolioBatch::new(&mut FolioSlots::new(), index, folio).isolate_lru();
        let batch = old.unmap(batch);
        let added = old.add(cursor, batch);
        locked = added.unwrap_or_else(|failed| panic!("{failed:?}"));
    }
    drop(locked);
    old.flush()
}

/// Replaces a range with one page, by what may belong to another.
fn commit(new_start: usize, charged: usize, old: (usize, usize)) {
    file(true, "4.");
    commit_by(&mut range_at(START).walk(), new_start, charged, old);
    assert_eq!(world::found(), None);
}

fn commit_by(walk: &mut Walk<'static>, new_start: usize, charged: usize, old: (usize, usize)) {
    let cursor = Cursor::new(walk);
    let old = old_at(old.0, old.1);
    let charge = cursor.charge_holes(charged).expect("there is room");
    let new = new_at(new_start);
    let i_mmap = cursor.i_mmap_read();
    let sealed = cursor
        .lock_with_slots()
        .and_then(|locked| locked.fill_holes())
        .and_then(|filled| filled.expect_holes(HPAGE_PMD_NR - 1))
        .and_then(|counted| counted.check_userfaultfd(i_mmap))
        .expect("nothing is in the way");
    let (huge, replaced) = sealed.commit(new, charge, old);
    huge.unlock();
    replaced.release();
}

/// Both a commit and a lack of memory leave a walk that was for the whole range at once.
#[test]
fn walk_is_for_single_entries_again() {
    let find = |walk: &mut Walk<'_>, index| {
        let mut locked = Cursor::new(walk).lock();
        let Entry::Folio(found) = locked.load(index) else {
            panic!("there is a page at {index}");
        };
        assert!(core::ptr::eq(found.as_raw(), page(index)), "{index}");
    };
    let behind = START + HPAGE_PMD_NR;

    file(true, "4.");
    let mut walk = range_at(START).walk();
    commit_by(&mut walk, START, HPAGE_PMD_NR - 1, (START, 1));
    find(&mut walk, behind);
    find(&mut walk, START + 1);

    file(true, "4.");
    let mut walk = range_at(START).walk();
    fail("node");
    drop(Cursor::new(&mut walk).lock_with_slots());
    find(&mut walk, START);
    find(&mut walk, behind);
}

/// No type says that what is committed belongs together.
///
/// Each case has a process of its own, which an assertion ends at once, as it ends a kernel: what
/// is dropped on the way would find the locks held.
#[test]
fn values_of_two_collapses() {
    const HOLES: usize = HPAGE_PMD_NR - 1;
    const OTHER: usize = START + HPAGE_PMD_NR;
    const CASE: &str = "VALUES_OF_TWO_COLLAPSES";
    const BELONG: &str = "new.range() == *range";

    let cases: [(fn(), &str); 12] = [
        (|| commit(START, HOLES, (START, 1)), ""),
        (|| commit(OTHER, HOLES, (START, 1)), BELONG),
        (|| commit(START, HOLES - 1, (START, 1)), BELONG),
        (|| commit(START, HOLES, (START, 0)), BELONG),
        (|| commit(START, HOLES, (OTHER, 1)), BELONG),
        (seal_another, "full.is_of"),
        (unmap_another, "folio.is_placed_in(mapping)"),
        (add_one_before, "(end..range.end()).contains"),
        (add_too_many, "pages <= batch.end - batch.index"),
        (copy_to_another_page, "from.start() == self.index()"),
        (copy_of_another, "from.is_placed_in"),
        (read_beyond, "(1..=HPAGE_PMD_NR).contains"),
    ];
    if let Ok(number) = env::var(CASE) {
        panic::set_hook(Box::new(|info| {
            eprintln!("{info}");
            process::exit(1);
        }));
        let number: usize = number.parse().expect("it is set below");
        cases[number].0();
        process::exit(0);
    }
    for (number, (_, assertion)) in cases.iter().enumerate() {
        let program = env::current_exe().expect("it is running");
        let done = process::Command::new(program)
            .args(["--exact", "values_of_two_collapses", "--nocapture"])
            .env(CASE, number.to_string())
            .output()
            .expect("it can be run");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.success(), assertion.is_empty(), "{said}");
        assert!(said.contains(assertion), "{said}");
    }
}

fn seal_another() {
    file(true, "4");
    let old = old_at(START, HPAGE_PMD_NR);
    let mut walk = range_at(START + HPAGE_PMD_NR).walk();
    let full = old.full_range().expect("there are no holes");
    let _ = Cursor::new(&mut walk).lock().seal_full(full);
}

fn unmap_another() {
    file(true, "m");
    let mut walk = range_at(START).walk();
    let mut slots = FolioSlots::new();
    let (locked, batch) = batch_at(Cursor::new(&mut walk).lock(), START, &mut slots);
    let _cursor = locked.unlock();
    let batch = batch.isolate_lru();
    page(START).mapping.set(core::ptr::null_mut());
    let _ = OldFolios::new(range_at(START)).unmap(batch);
}

fn isolated_at(walk: &mut Walk<'static>, index: usize) -> IsolatedBatch {
    let folio = Cursor::new(walk).filemap_lock_folio(index);
    let mut slots = FolioSlots::new();
    FolioBatch::new(&mut slots, index, folio.expect("there is a page")).isolate_lru()
}

fn add_one_before() {
    file(true, "4");
    let mut old = OldFolios::new(range_at(START));
    for index in [START + 1, START] {
        let mut walk = range_at(START).walk();
        let batch = old.unmap(isolated_at(&mut walk, index));
        let _ = old.add(Cursor::new(&mut walk), batch);
    }
}

fn add_too_many() {
    file(true, "4.22");
    let mut old = OldFolios::new(range_at(START));
    let mut walk = range_at(START).walk();
    let small = old.unmap(isolated_at(&mut walk, START));
    let _ = old.unmap(isolated_at(&mut walk, START + 2));
    let _ = old.add(Cursor::new(&mut walk), small);
}

fn copy_to_another_page() {
    file(true, "4");
    let old = old_at(START, 1);
    let mut copy = copy_at(START);
    copy.clear_until(START + 1);
    for folio in old.folios() {
        let _ = copy.copy_folio(folio);
    }
}

fn copy_of_another() {
    file(true, "4");
    let old = old_at(START, 1);
    page(START).mapping.set(core::ptr::null_mut());
    for folio in old.folios() {
        let _ = copy_at(START).copy_folio(folio);
    }
}

fn read_beyond() {
    file(false, "4");
    let mut walk = range_at(START).walk();
    Cursor::new(&mut walk).readahead(local_file(), START, HPAGE_PMD_NR + 1);
}

/// A directory has no function to read folios with.
#[test]
fn what_cannot_be_read_ahead() {
    file(false, ".");
    with(|w| w.mapping.reads = false);
    let mut walk = range_at(START).walk();
    let cursor = Cursor::new(&mut walk);
    cursor.readahead(local_file(), START, HPAGE_PMD_NR);
    assert!(cursor.filemap_lock_folio(START).is_err());
    checked();
}

/// As a `long` it would be one.
#[test]
fn charge_is_no_negative_number() {
    file(true, ".");
    let mut walk = range_at(START).walk();
    assert!(Cursor::new(&mut walk).charge_holes(usize::MAX - 1).is_err());
    checked();
}

/// A search that has found nothing ends behind the last slot of a node, where nothing is to be read.
#[test]
fn search_ends_behind_a_node() {
    let end = 64usize.next_multiple_of(HPAGE_PMD_NR).max(2 * HPAGE_PMD_NR);

    file(true, "4.");
    with(|w| w.inode.size = end + 1);
    write(end - 2, 1);
    write(end, 1);
    // SAFETY: The array stays until the next world, and nothing is stored.
    let mut state = unsafe { XaState::new(with(|w| &raw mut w.mapping.i_pages), 0, 0) };
    let mut guard = state.lock_irq();
    let is_next = |entry: XaEntry| entry.as_ptr() == (&raw const *page(end)).cast_mut().cast();

    guard.load_at(end - 1);
    assert!(guard.next_entry(end - 1).is_empty());
    assert!(is_next(guard.next_slot()));
    assert!(guard.find(end - 1, end - 1).is_none());
    assert!(is_next(guard.next_slot()));
    drop(guard);
    drop(state);
    checked();
}

/// Who has not looked at the content before is refused what cannot be copied, or is about to change.
#[test]
fn folios_that_are_not_to_be_taken() {
    let fail = Some((START, ScanResult::Fail));
    let dirty = Some((START, ScanResult::PageDirtyOrWriteback));
    let not_uptodate: fn(&folio, bool) = |page, wrong| page.uptodate.set(!wrong);
    let is_dirty: fn(&folio, bool) = |page, wrong| page.dirty.set(wrong);
    let is_written: fn(&folio, bool) = |page, wrong| page.writeback.set(wrong);

    for (is_shmem, state, expected) in [
        (true, not_uptodate, fail),
        (false, not_uptodate, fail),
        (true, is_dirty, None),
        (false, is_dirty, dirty),
        (true, is_written, None),
        (false, is_written, dirty),
    ] {
        file(is_shmem, "4");
        let was_dirty = page(START).dirty.get();
        let range = range_at(START);
        let mut walk = range.walk();
        let mut old = OldFolios::new(range);
        let mut slots = FolioSlots::new();
        let (locked, batch) = batch_at(Cursor::new(&mut walk).lock(), START, &mut slots);
        let cursor = locked.unlock();
        state(page(START), true);
        let batch = old.unmap(batch.isolate_lru());
        assert_eq!(old.add(cursor, batch).err(), expected);
        drop(old);
        state(page(START), false);
        page(START).dirty.set(was_dirty);
        checked();
    }
}

/// The room for a batch is there for longer than the batch.
#[test]
fn batch_that_is_not_used_is_unlocked() {
    file(true, "4");
    let mut walk = range_at(START).walk();
    let mut slots = FolioSlots::new();
    let (locked, batch) = batch_at(Cursor::new(&mut walk).lock(), START, &mut slots);
    drop(locked);
    drop(batch);
    assert!((START..START + HPAGE_PMD_NR).all(|index| page(index).locked.get().is_none()));
    drop(slots);
    checked();
}

/// Whoever is given a folio that was unmapped might write to it, or free it, while a CPU still has the
/// old translation.
#[test]
fn unmapped_folios_are_kept_until_the_flush() {
    let is_kept = |index| page(index).locked.get().is_some();

    file(true, "m.m");
    let range = range_at(START);
    let mut walk = range.walk();
    let mut old = OldFolios::new(range);
    // Nobody goes on with either.
    for index in [START, START + 2] {
        let mut slots = FolioSlots::new();
        let folio = Cursor::new(&mut walk).filemap_lock_folio(index);
        let folio = folio.expect("there is a page");
        let batch = FolioBatch::new(&mut slots, index, folio).isolate_lru();
        let _ = old.unmap(batch);
        assert!(is_kept(START) && page(index).mapcount.get() == 0);
    }
    drop(old);
    assert!(!is_kept(START) && !is_kept(START + 2));
    checked();
}

/// The folio at an index and what can be taken with it.
fn batch_at<'w, 'm, 's>(
    mut locked: LockedCursor<'w, 'm>,
    index: usize,
    slots: &'s mut FolioSlots,
) -> (LockedCursor<'w, 'm>, FolioBatch<'s>) {
    let Entry::Folio(folio) = locked.load(index) else {
        panic!("there is a page");
    };
    let folio = folio.try_lock().expect("nobody has it locked");
    let mut batch = FolioBatch::new(slots, index, folio);
    locked.extend(&mut batch, |_| true);
    (locked, batch)
}

/// Whatever step it is that fails: the index is the one that was asked for if the folio begins
/// before it, and else the folio's.
#[test]
fn where_a_batch_fails() {
    // Where the batch begins, and which folio is in the way at which step: 0 when locked, 1 when
    // unmapped, 2 when added. Of two the first in the file counts, even if a later step finds it.
    let mut cases = vec![];
    for step in 0..3 {
        cases.push((START + 1, vec![(step, START)], START + 1));
        cases.push((START + 1, vec![(step, START + 3)], START + 3));
        for later in step + 1..3 {
            let both = vec![(step, START + 3), (later, START + 2)];
            cases.push((START, both, START + 2));
        }
    }
    for (start, objections, expected) in cases {
        file(true, "2244");
        let range = range_at(START);
        let mut walk = range.walk();
        let mut old = OldFolios::new(range);
        let mut slots = FolioSlots::new();
        let (locked, mut batch) = batch_at(Cursor::new(&mut walk).lock(), start, &mut slots);
        let cursor = locked.unlock();
        let folios = |step| objections.iter().filter(move |&&(at, _)| at == step);
        batch.check(
            |folio| match folios(0).any(|&(_, at)| at == folio.start()) {
                true => Err(ScanResult::PageCount),
                false => Ok(()),
            },
        );
        let batch = batch.isolate_lru();
        let use_folios = |step| {
            for &(_, at) in folios(step) {
                // SAFETY: The folio is there; the reference is given up below.
                unsafe { bindings::folio_get(core::ptr::from_ref(page(at)).cast_mut()) };
            }
        };
        use_folios(1);
        let batch = old.unmap(batch);
        // What was unmapped is kept for the flush, also if it was refused then.
        assert!(folios(1).all(|&(_, at)| page(at).locked.get().is_some()));
        use_folios(2);
        let failed = old.add(cursor, batch).err();
        assert_eq!(
            failed,
            Some((expected, ScanResult::PageCount)),
            "{objections:?}"
        );
        for &(_, at) in folios(1).chain(folios(2)) {
            // SAFETY: Taken above.
            unsafe { bindings::folio_put(core::ptr::from_ref(page(at)).cast_mut()) };
        }
        drop(old);
        checked();
    }
}

/// Each slot of a folio is that folio, in whatever order one looks.
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

/// What a collapse takes locks for, it does for a batch of folios at once, holes between them or
/// not.
#[test]
fn locks_are_taken_for_batches() {
    let batches = |folios: usize| folios.div_ceil(FOLIO_BATCH_SIZE as usize);
    let all = batches(HPAGE_PMD_NR);
    for (is_shmem, pages, locks, i_mmaps) in [
        // The page-cache lock: for the slots, for each batch, in the end.
        (true, "m", all + 2, all + 1),
        (false, "m", all + 2, all + 1),
        // And to charge for the hole.
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

/// What only assertions ask, as long as all is well.
#[test]
fn folio_that_is_not_ours() {
    file(true, "4");
    let mut walk = range_at(START).walk();
    let mut locked = Cursor::new(&mut walk).lock();
    let Entry::Folio(folio) = locked.load(START) else {
        panic!("there is a page");
    };
    assert!(!folio.is_locked());
    let folio = folio.try_lock().expect("nobody has it locked");
    drop(locked);
    assert!(folio.is_locked() && folio.is_in(address_space()));
    mapping::remove_folio(folio.as_raw(), event::Slot::Hole);
    assert!(!folio.is_in(address_space()));
}

/// What snapshots of a range tell, with room for some extents each time: a letter for each page, as
/// [`file`] takes them.
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
        // With the neighbours of the range, and what is behind them.
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
