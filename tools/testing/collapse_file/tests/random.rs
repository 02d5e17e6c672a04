// SPDX-License-Identifier: GPL-2.0

//! Random interleavings of two collapses and three tasks with random actions on a random file, for
//! every size.

use bindings::{
    rmap::vm_area_struct,
    world::{random, with},
    HPAGE_PMD_NR,
};
use collapse_file_test::{actors::*, explore::*, scenario::*};

/// The number of executions, which takes about the same time for each size.
const EXECUTIONS: usize = if HPAGE_PMD_NR > 64 {
    40
} else {
    16000 / HPAGE_PMD_NR
};

fn random_file() {
    // The random number generator belongs to the world, which `file()` creates.
    file(true, ".");
    let kinds = ["4", "4", "4", ".", ".", "s", "f", "m"];
    let mut pages = String::new();
    for _ in 0..HPAGE_PMD_NR.min(24) {
        pages.push_str(kinds[random(kinds.len())]);
    }
    let state = with(|w| w.random);
    file(true, &pages);
    with(|w| w.random = state);
    vm_area_struct::add(START, 1 + random(HPAGE_PMD_NR));
    vm_area_struct::add(START + HPAGE_PMD_NR, 2);
}

fn index() -> usize {
    // At least half of the indices are among the first pages, because the rest is of one kind.
    let pages = if random(2) == 0 {
        HPAGE_PMD_NR.min(24)
    } else {
        HPAGE_PMD_NR
    };
    START + random(pages)
}

fn something(readers: bool) {
    for _ in 0..1 + random(3) {
        let (i, n) = (index(), random(15));
        match n {
            0 | 1 => write(i, 100 + random(100) as u64),
            2 => fault(0, i, Some(200 + random(100) as u64)),
            3 => punch(i, i + random(3).min(START + HPAGE_PMD_NR - 1 - i)),
            4 => swap_in(i),
            5 => reclaim(i),
            6 => register(random(3)),
            7 => unregister(random(3)),
            8 => fault(1, i.min(START + with(|w| w.vmas[1].nr) - 1), None),
            9 => uffd_copy(i, 300),
            10 => pin(i),
            11 => lock_for_a_while(i),
            12 if HPAGE_PMD_NR > 2 => fill_large(i & !1, 1),
            13 if readers => seek(i, i),
            _ => read(i),
        }
    }
}

fn crowd(readers: bool) -> Vec<Actor> {
    random_file();
    if readers {
        with_readers();
    }
    if random(4) == 0 {
        with(|w| {
            w.fallible = 0;
            w.fail_nth = Some(1 + random_of(w.random, 40));
        });
    }
    let mut actors = vec![
        actor("collapse", || {
            collapse(START, true);
        }),
        actor("second", || {
            collapse(START, false);
        }),
    ];
    for name in ["one", "two", "three"] {
        actors.push(actor(name, move || something(readers)));
    }
    actors
}

fn random_of(state: u64, n: usize) -> usize {
    (state >> 33) as usize % n
}

#[test]
fn crowd_by_priorities() {
    explore("crowd_by_priorities", Mode::Pct(4, EXECUTIONS), || {
        crowd(false)
    });
}

#[test]
fn readers_by_priorities() {
    explore("readers_by_priorities", Mode::Pct(4, EXECUTIONS), || {
        crowd(true)
    });
}

#[test]
fn crowd_at_random() {
    explore("crowd_at_random", Mode::Random(EXECUTIONS), || crowd(true));
}
