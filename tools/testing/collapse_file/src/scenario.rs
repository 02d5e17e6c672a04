// SPDX-License-Identifier: GPL-2.0

//! The file at the beginning of a scenario.

use crate::scheduler;
use bindings::{
    event::What,
    filemap::new_folio,
    folio_mark_uptodate, folio_put, folio_unlock,
    page_cache::add_value,
    rmap::{self, vm_area_struct},
    world::{log, with, World},
    HPAGE_PMD_NR,
};

/// The first index of the range to collapse.
///
/// The file has other ranges before and after it.
pub const START: usize = HPAGE_PMD_NR;

/// Returns the content of a page at the beginning.
pub fn content(index: usize) -> u64 {
    1000 + index as u64
}

/// Creates a world with a file.
///
/// Each character of `pages` is for one page of the range. The last one is also for the rest of the
/// range:
///
/// - `4`: a small page
/// - `m`: a page that VMA 0 maps
/// - `l`: a page that VMA 0 maps, and that is mlocked
/// - `.`: a hole
/// - `s`: a page that is swapped out; in a regular file, the shadow of a reclaimed page
/// - `f`: a page that was allocated and not written
/// - `2`: a folio of order 1, together with the next page
///
/// The last page of the previous range and the first page of the next range are present.
pub fn file(is_shmem: bool, pages: &str) {
    World::reset(is_shmem, scheduler::seed());
    with(|w| {
        w.tasks[0].name = "test";
        w.disk = (0..w.inode.size).map(content).collect();
    });
    vm_area_struct::add(START, HPAGE_PMD_NR);
    let mut kinds: Vec<char> = pages.chars().collect();
    let last = *kinds.last().expect("at least one page");
    kinds.resize(HPAGE_PMD_NR, last);
    page(START - 1, '4');
    page(START + HPAGE_PMD_NR, '4');
    let mut index = 0;
    while index < HPAGE_PMD_NR {
        page(START + index, kinds[index]);
        index += if kinds[index] == '2' { 2 } else { 1 };
    }
    bindings::drain(0);
}

fn page(index: usize, kind: char) {
    match kind {
        '.' => (),
        's' => {
            let value = with(|w| {
                w.swap.push(content(index));
                if w.mapping.is_shmem {
                    w.inode.swapped += 1;
                    w.inode.blocks += 1;
                }
                w.swap.len() - 1
            });
            add_value(index, value);
            log(What::Write(index, content(index)));
        }
        kind => {
            let order = u32::from(kind == '2');
            let new = new_folio(index, order).expect("nothing is there yet");
            // SAFETY: `new_folio()` returned `new` locked and with a reference.
            unsafe {
                if kind != 'f' {
                    for page in 0..1 << order {
                        (*new).write(page, content(index + page));
                        log(What::Write(index + page, content(index + page)));
                    }
                    folio_mark_uptodate(new);
                }
                (*new).dirty.set(with(|w| w.mapping.is_shmem));
                if kind == 'm' || kind == 'l' {
                    rmap::map(0, index, new);
                }
                (*new).active.set(index % 2 == 1);
                (*new).mlocked.set(kind == 'l');
                (*new).unevictable.set(kind == 'l');
                folio_unlock(new);
                folio_put(new);
            }
        }
    }
}

/// Lets other tasks run at each step that only lockless readers can notice.
pub fn with_readers() {
    with(|w| w.lockless = true);
}

/// Lets other tasks run before each TLB flush and before the copy of each page.
pub fn with_stale_writers() {
    with(|w| w.stale_writers = true);
}
