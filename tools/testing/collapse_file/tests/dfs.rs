// SPDX-License-Identifier: GPL-2.0

//! All interleavings of a collapse and one or two other tasks, for small sizes.
//!
//! Each point where other tasks can run multiplies the number of interleavings. The larger
//! scenarios therefore bound the number of preemptions.

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

/// Adds another mapping of the same pages, in the same process or another one.
fn alias() {
    vm_area_struct::add(START, HPAGE_PMD_NR);
}

tests! {
    /// A `write()` fills a hole.
    write_to_hole: Mode::Dfs, "4.4", nothing, [write: write(START + 1, 7)];
    /// A `write()` changes a page.
    write_to_page: Mode::Dfs, "4.4", nothing, [write: write(START, 7)];
    /// A page fault fills a hole.
    fault_in_hole: Mode::Dfs, "4.4", nothing, [fault: fault(0, START + 1, Some(7))];
    /// A page fault maps a page again that the collapse has unmapped.
    fault_in_page: Mode::Dfs, "m.4", nothing, [fault: fault(0, START, Some(7))];
    /// A task registers a userfaultfd and then accesses a hole.
    observer: Mode::Dfs, "4.4", nothing, [
        observer: {
            register(0);
            fault(0, START + 1, None);
        },
    ];
    /// A task registers a userfaultfd and accesses the second of two holes, also between two steps
    /// of the collapse under the lock.
    observer_of_second_hole: Mode::Bounded(3), "4..4", with_readers, [
        observer: {
            register(0);
            fault(0, START + 2, None);
        },
    ];
    /// A task registers a userfaultfd and accesses a hole, both in another mapping.
    observer_of_alias: Mode::Dfs, "4.4", alias, [
        observer: {
            register(1);
            fault(1, START + 1, None);
        },
    ];
    /// The owner of the userfaultfd gets an event for a hole and fills it.
    observer_fills: Mode::Bounded(3), "4.4", with_readers, [
        observer: {
            register(0);
            fault(0, START + 1, None);
            uffd_copy(START + 1, 9);
            fault(0, START + 1, None);
        },
    ];
    /// A task registers a userfaultfd and unregisters it.
    registered_for_a_while: Mode::Dfs, "4.4", nothing, [
        observer: {
            register(0);
            unregister(0);
        },
    ];
    /// A task unmaps the VMA of a userfaultfd.
    unmapped: Mode::Dfs, "m.4", || register(0), [munmap: munmap(0)];
    /// A lockless reader looks up a hole.
    read_hole: Mode::Bounded(4), "4.4", with_readers, [read: read(START + 1)];
    /// A lockless reader looks up a page.
    read_page: Mode::Bounded(4), "4.4", with_readers, [read: read(START)];
    /// `SEEK_HOLE` searches the range while a userfaultfd makes the collapse fail.
    seek_in_failure: Mode::Bounded(2), "4.4", || { with_readers(); register(0) }, [
        seek: seek(START, LAST),
    ];
    /// `SEEK_HOLE` searches the range.
    seek_range: Mode::Bounded(2), "4.4", with_readers, [seek: seek(START, LAST)];
    /// A task punches a hole before another hole.
    punch_page: Mode::Dfs, "4.4", nothing, [punch: punch(START, START)];
    /// A task punches the whole range.
    punch_all: Mode::Bounded(4), "4.4", nothing, [punch: punch(START, LAST)];
    /// A task fills a hole and punches it again.
    fill_and_punch: Mode::Dfs, "4.4", nothing, [
        other: {
            write(START + 1, 7);
            punch(START + 1, START + 1);
        },
    ];
    /// A task fills a hole and punches it again.
    ///
    /// This frees the node, and another node cannot be allocated.
    fill_and_punch_without_memory: Mode::Dfs, "44.", nothing, [
        other: {
            write(LAST, 7);
            punch(LAST, LAST);
            with(|w| w.fail_all = Some("node"));
        },
    ];
    /// Two tasks swap in the same page.
    swapped_page: Mode::Dfs, "4s.4", nothing, [swap: swap_in(START + 1)];
    /// A task reclaims a page to swap.
    reclaimed_page: Mode::Dfs, "4.4", nothing, [reclaim: reclaim(START)];
    /// A task punches a swapped-out page.
    punch_swapped: Mode::Dfs, "s.4", nothing, [punch: punch(START, START)];
    /// A `write()` changes a page that was allocated and never written.
    write_to_fallocated: Mode::Dfs, "f.4", nothing, [write: write(START, 7)];
    /// Another task holds a reference to a page.
    pinned_page: Mode::Dfs, "4.4", nothing, [pin: pin(START)];
    /// Another task holds a reference to a page and writes to the page.
    pinned_page_written: Mode::Dfs, "m.4", nothing, [write: write_pinned(0, START, 7)];
    /// Another task has a page locked.
    locked_page: Mode::Dfs, "4.4", nothing, [lock: lock_for_a_while(START)];
    /// Another task has a page locked that follows a mapped one.
    locked_page_after_mapped_one: Mode::Dfs, "m4.", nothing, [lock: lock_for_a_while(START + 1)];
    /// A task fills two holes with one folio.
    fill_two_holes: Mode::Dfs, "..4", nothing, [write: fill_large(START, 1)];
    /// A task fills two holes with one folio, before a page that the collapse swaps in.
    fill_two_holes_at_swap: Mode::Dfs, "..s4", nothing, [write: fill_large(START, 1)];
    /// A task punches a hole and a page that the collapse swaps in, and fills both with one folio.
    replaced_at_swap: Mode::Dfs, ".s.4", nothing, [
        other: {
            punch(START, START + 1);
            fill_large(START, 1);
        },
    ];
    /// A task writes through its mapping, and its CPU through a stale translation.
    write_by_mapping: Mode::Bounded(3), "m.4", with_stale_writers, [
        write: write_mapped(0, START, &[7, 8, 9]),
    ];
    /// Two tasks collapse the same range.
    two_collapses: Mode::Bounded(3), "4.4", nothing, [
        second: {
            collapse(START, false);
        },
    ];
    /// A `write()` fills a hole, and another task registers a userfaultfd and accesses the hole.
    write_and_observer: Mode::Bounded(2), "4.4", nothing, [
        write: write(START + 1, 7),
        observer: {
            register(0);
            fault(0, START + 1, None);
        },
    ];
    /// A `write()` fills a hole, and a lockless reader looks it up.
    write_and_read: Mode::Bounded(2), "4.4", with_readers, [
        write: write(START + 1, 7),
        read: read(START + 1),
    ];
    /// A lockless reader looks up a hole, and another task registers a userfaultfd and accesses it.
    read_and_observer: Mode::Bounded(2), "4.4", with_readers, [
        read: read(START + 1),
        observer: {
            register(0);
            fault(0, START + 1, None);
        },
    ];
    /// A task reclaims a page to swap, and another one fills a hole.
    reclaim_and_write: Mode::Bounded(2), "4.4", nothing, [
        reclaim: reclaim(START),
        write: write(START + 1, 7),
    ];
}

/// Lockless readers do not notice a failure of any call.
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
