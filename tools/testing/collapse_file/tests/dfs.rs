// SPDX-License-Identifier: GPL-2.0

//! A collapse and one or two others, in every order that matters. For small sizes: with each
//! point where others can run the number of orders multiplies.

use bindings::{rmap::vm_area_struct, world::with, HPAGE_PMD_NR};
use collapse_file_test::{actors::*, explore::*, scenario::*};

fn collapser() -> Actor {
    actor("collapse", || {
        collapse(START, true);
    })
}

const LAST: usize = START + HPAGE_PMD_NR - 1;

macro_rules! tests {
    ($($(#[$doc:meta])* $name:ident: $mode:expr, $pages:expr, $prepare:expr, [$($actor:ident: $run:expr),* $(,)?];)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            explore(stringify!($name), $mode, || {
                file(true, $pages);
                let prepare: fn() = $prepare;
                prepare();
                vec![collapser(), $(actor(stringify!($actor), || $run)),*]
            });
        }
    )*};
}

fn nothing() {}

/// Another mapping of the same pages, by the same process or another one.
fn alias() {
    vm_area_struct::add(START, HPAGE_PMD_NR);
}

tests! {
    /// A hole is filled by `write()`.
    write_to_hole: Mode::Dfs, "4.4", nothing, [write: write(START + 1, 7)];
    /// A page is written to.
    write_to_page: Mode::Dfs, "4.4", nothing, [write: write(START, 7)];
    /// A hole is filled by a page fault.
    fault_in_hole: Mode::Dfs, "4.4", nothing, [fault: fault(0, START + 1, Some(7))];
    /// A page is mapped again while it is about to be replaced.
    fault_in_page: Mode::Dfs, "m.4", nothing, [fault: fault(0, START, Some(7))];
    /// A userfaultfd is registered, and its owner looks before it waits.
    observer: Mode::Dfs, "4.4", nothing, [
        observer: {
            register(0);
            fault(0, START + 1, None);
        },
    ];
    /// It looks at the second hole of two, and at any time: what the collapse does within the lock
    /// matters as well.
    observer_of_second_hole: Mode::Bounded(3), "4..4", with_readers, [
        observer: {
            register(0);
            fault(0, START + 2, None);
        },
    ];
    /// The same by another mapping.
    observer_of_alias: Mode::Dfs, "4.4", alias, [
        observer: {
            register(1);
            fault(1, START + 1, None);
        },
    ];
    /// The owner of the userfaultfd fills what it was told of.
    observer_fills: Mode::Bounded(3), "4.4", with_readers, [
        observer: {
            register(0);
            fault(0, START + 1, None);
            uffd_copy(START + 1, 9);
            fault(0, START + 1, None);
        },
    ];
    /// A userfaultfd comes and goes.
    registered_for_a_while: Mode::Dfs, "4.4", nothing, [
        observer: {
            register(0);
            unregister(0);
        },
    ];
    /// One is registered, and its mapping goes.
    unmapped: Mode::Dfs, "m.4", || register(0), [munmap: munmap(0)];
    /// A hole is looked at without a lock.
    read_hole: Mode::Bounded(4), "4.4", with_readers, [read: read(START + 1)];
    /// A page is read without a lock.
    read_page: Mode::Bounded(4), "4.4", with_readers, [read: read(START)];
    /// `SEEK_HOLE` goes over the range while a userfaultfd makes the collapse fail.
    seek_in_failure: Mode::Bounded(2), "4.4", || { with_readers(); register(0) }, [
        seek: seek(START, LAST),
    ];
    /// `SEEK_HOLE` goes over the range.
    seek_range: Mode::Bounded(2), "4.4", with_readers, [seek: seek(START, LAST)];
    /// A hole becomes larger.
    punch_page: Mode::Dfs, "4.4", nothing, [punch: punch(START, START)];
    /// Everything goes.
    punch_all: Mode::Bounded(4), "4.4", nothing, [punch: punch(START, LAST)];
    /// A hole is filled and punched again.
    fill_and_punch: Mode::Bounded(4), "4.4", nothing, [
        other: {
            write(START + 1, 7);
            punch(START + 1, START + 1);
        },
    ];
    /// The same where the node of the hole goes with it, and there is no memory for another.
    fill_and_punch_without_memory: Mode::Bounded(3), "44.", nothing, [
        other: {
            write(LAST, 7);
            punch(LAST, LAST);
            with(|w| w.fail_all = Some("node"));
        },
    ];
    /// A page is swapped in by two.
    swapped_page: Mode::Dfs, "4s.4", nothing, [swap: swap_in(START + 1)];
    /// A page goes to swap.
    reclaimed_page: Mode::Dfs, "4.4", nothing, [reclaim: reclaim(START)];
    /// A swapped page is punched.
    punch_swapped: Mode::Dfs, "s.4", nothing, [punch: punch(START, START)];
    /// A page that was never written is written at last.
    write_to_fallocated: Mode::Dfs, "f.4", nothing, [write: write(START, 7)];
    /// Somebody uses a page.
    pinned_page: Mode::Dfs, "4.4", nothing, [pin: pin(START)];
    /// Somebody uses a page, and writes to it in the end.
    pinned_page_written: Mode::Dfs, "m.4", nothing, [write: write_pinned(0, START, 7)];
    /// Somebody has a page locked.
    locked_page: Mode::Dfs, "4.4", nothing, [lock: lock_for_a_while(START)];
    /// Another task has a page locked that comes after a mapped one.
    locked_page_after_mapped_one: Mode::Dfs, "m4.", nothing, [lock: lock_for_a_while(START + 1)];
    /// Two holes are filled by one folio.
    fill_two_holes: Mode::Dfs, "4.4", nothing, [write: fill_large(START, 1)];
    /// Two holes are filled by one folio, where a page is swapped in.
    fill_two_holes_at_swap: Mode::Bounded(4), "..s4", nothing, [write: fill_large(START, 1)];
    /// The range is truncated and filled anew where a page is swapped in.
    replaced_at_swap: Mode::Bounded(3), ".s.4", nothing, [
        other: {
            punch(START, START + 1);
            fill_large(START, 1);
        },
    ];
    /// A process writes by its mapping, and a CPU by the translation that it still has.
    write_by_mapping: Mode::Bounded(3), "m.4", with_stale_writers, [
        write: write_mapped(0, START, &[7, 8, 9]),
    ];
    /// Two collapses of the same range.
    two_collapses: Mode::Bounded(3), "4.4", nothing, [
        second: {
            collapse(START, false);
        },
    ];
    /// A hole is filled while an observer looks.
    write_and_observer: Mode::Bounded(2), "4.4", nothing, [
        write: write(START + 1, 7),
        observer: {
            register(0);
            fault(0, START + 1, None);
        },
    ];
    /// A reader comes while a hole is filled.
    write_and_read: Mode::Bounded(2), "4.4", with_readers, [
        write: write(START + 1, 7),
        read: read(START + 1),
    ];
    /// A reader and an observer.
    read_and_observer: Mode::Bounded(2), "4.4", with_readers, [
        read: read(START + 1),
        observer: {
            register(0);
            fault(0, START + 1, None);
        },
    ];
    /// A page goes to swap and somebody fills a hole.
    reclaim_and_write: Mode::Bounded(2), "4.4", nothing, [
        reclaim: reclaim(START),
        write: write(START + 1, 7),
    ];
}

/// Whatever call fails, nobody notices anything.
#[test]
fn read_while_a_call_fails() {
    for nth in 1..=12 {
        explore(
            &format!("read_while_a_call_fails-{nth}"),
            Mode::Bounded(1),
            move || {
                file(true, "m.s4");
                with_readers();
                with(|w| {
                    w.fallible = 0;
                    w.fail_nth = Some(nth);
                });
                vec![
                    collapser(),
                    actor("seek", || seek(START, LAST)),
                    actor("read", || read(START)),
                ]
            },
        );
    }
}
