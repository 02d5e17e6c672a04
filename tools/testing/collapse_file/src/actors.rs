// SPDX-License-Identifier: GPL-2.0

//! The tasks that disturb a collapse.
//!
//! Each function accesses the page cache as the C code of its kind does, with the same locks in the
//! same order.

use bindings::{
    drain,
    event::{Seen, Slot, What},
    filemap::{lock_folio, new_folio},
    folio, folio_lock, folio_mark_uptodate, folio_of, folio_put, folio_unlock,
    page_cache::{self, lookup, remove_folio, remove_value},
    rmap, shmem,
    world::{self, log, point, with, Wait},
    xa::mk_value,
    xa_store::Cursor,
    Lru,
};

pub use bindings::khugepaged::collapse;

/// The kind of an access.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// A system call.
    Call,
    /// A page fault in this VMA.
    Fault(usize),
}

fn this<'a>(folio: *mut folio) -> &'a folio {
    // SAFETY: Folios stay allocated until the next world.
    unsafe { &*folio }
}

fn unlock_and_put(folio: *mut folio) {
    // SAFETY: The callers hold the folio lock and a reference.
    unsafe {
        folio_unlock(folio);
        folio_put(folio);
    }
}

/// Returns the folio at an index, locked and with a reference.
///
/// Fills a hole with a new page.
///
/// Returns `None` if a userfaultfd gets an event for the hole.
fn get_page(index: usize, by: By) -> Option<*mut folio> {
    loop {
        match lookup(index) {
            Slot::Folio(id) => {
                let found = folio_of(id);
                // SAFETY: A folio of this world, with the reference that `lookup()` took.
                unsafe { folio_lock(found) };
                if !this(found).cached.get() {
                    unlock_and_put(found);
                    continue;
                }
                if !this(found).uptodate.get() {
                    for page in 0..this(found).nr() {
                        this(found).write(page, 0);
                    }
                    // SAFETY: `found` is a folio of this world.
                    unsafe { folio_mark_uptodate(found) };
                }
                return Some(found);
            }
            Slot::Value(_) => {
                if let Ok(found) = shmem::get_folio(index) {
                    return Some(found);
                }
            }
            Slot::Hole | Slot::Retry => {
                if let By::Fault(vma) = by {
                    if with(|w| w.vmas[vma].uffd_missing.get()) {
                        log(What::Missing(vma, index));
                        return None;
                    }
                }
                if let Some(new) = new_folio(index, 0) {
                    point();
                    this(new).write(0, 0);
                    this(new).dirty.set(true);
                    // SAFETY: `new` is a folio of this world.
                    unsafe { folio_mark_uptodate(new) };
                    return Some(new);
                }
            }
        }
    }
}

fn write_page(folio: *mut folio, index: usize, content: u64) {
    let page = index - this(folio).index.get();
    this(folio).pages[page].content.set(content);
    this(folio).dirty.set(true);
    log(What::Write(index, content));
}

/// Writes a page, as `write()` does.
pub fn write(index: usize, content: u64) {
    if let Some(folio) = get_page(index, By::Call) {
        write_page(folio, index, content);
        unlock_and_put(folio);
    }
}

/// Takes a page fault in a VMA, for a write if there is a `content`.
///
/// After a write, the CPU of the task has a translation through which it can write again.
pub fn fault(vma: usize, index: usize, content: Option<u64>) {
    with(|w| w.faults += 1);
    if let Some(folio) = get_page(index, By::Fault(vma)) {
        // SAFETY: `folio` is a folio of this world.
        unsafe { rmap::map(vma, index, folio) };
        if let Some(content) = content {
            write_page(folio, index, content);
            this(folio).pte_dirty.set(true);
            with(|w| {
                let me = w.current;
                w.tlb.push((me, index, folio));
            });
        }
        unlock_and_put(folio);
    }
    with(|w| w.faults -= 1);
}

/// Writes through a mapping, several times.
///
/// Takes a page fault only if there is no translation.
pub fn write_mapped(vma: usize, index: usize, contents: &[u64]) {
    for &content in contents {
        point();
        if !rmap::write_by_tlb(index, content) {
            fault(vma, index, Some(content));
        }
    }
}

/// Swaps a page in.
pub fn swap_in(index: usize) {
    if let Ok(folio) = shmem::get_folio(index) {
        unlock_and_put(folio);
    }
}

/// Reads a page without a lock.
pub fn read(index: usize) {
    let from = with(|w| w.events.len());
    match lookup(index) {
        Slot::Hole => log(What::Saw(from, index, Seen::Hole)),
        Slot::Value(_) => log(What::Saw(from, index, Seen::Data)),
        Slot::Retry => (),
        Slot::Folio(id) => {
            let found = folio_of(id);
            if this(found).uptodate.get() {
                let page = index - this(found).index.get();
                let content = this(found).pages[page].content.get();
                log(What::Saw(from, index, Seen::Content(content)));
            }
            // SAFETY: A folio of this world, with the reference that `lookup()` took.
            unsafe { folio_put(found) };
        }
    }
}

/// Checks which pages of a range exist, as `SEEK_DATA`, `SEEK_HOLE` and `mincore()` do.
pub fn seek(first: usize, last: usize) {
    for index in first..=last {
        let from = with(|w| w.events.len());
        match lookup(index) {
            Slot::Hole => log(What::Saw(from, index, Seen::Hole)),
            Slot::Value(_) => log(What::Saw(from, index, Seen::Data)),
            Slot::Retry => (),
            Slot::Folio(id) => {
                log(What::Saw(from, index, Seen::Data));
                // SAFETY: A folio of this world, with the reference that `lookup()` took.
                unsafe { folio_put(folio_of(id)) };
            }
        }
    }
}

/// Registers a userfaultfd for missing pages of a VMA.
pub fn register(vma: usize) {
    world::wait_until(Wait::NoFaults);
    with(|w| w.vmas[vma].uffd_missing.set(true));
    log(What::Registering(vma));
    world::point();
    with(|w| w.registrations += 1);
    log(What::Register(vma));
}

/// Unregisters the userfaultfd of a VMA.
pub fn unregister(vma: usize) {
    world::wait_until(Wait::NoFaults);
    with(|w| w.vmas[vma].uffd_missing.set(false));
    log(What::Unregister(vma));
}

/// Fills a hole, as `UFFDIO_COPY` does.
///
/// Does nothing if there is a page.
pub fn uffd_copy(index: usize, content: u64) {
    if let Some(new) = new_folio(index, 0) {
        this(new).write(0, content);
        this(new).dirty.set(true);
        // SAFETY: `new` is a folio of this world.
        unsafe { folio_mark_uptodate(new) };
        log(What::Write(index, content));
        unlock_and_put(new);
    }
}

/// Unmaps a VMA.
pub fn munmap(vma: usize) {
    rmap::i_mmap_write(|| with(|w| w.vmas[vma].gone.set(true)));
    log(What::Munmap(vma));
    rmap::unmap(|v, _, _| v == vma);
}

/// Punches a hole, or truncates the file without a change of its size.
pub fn punch(first: usize, last: usize) {
    let mut index = first;
    while index <= last {
        match lookup(index) {
            Slot::Hole | Slot::Retry => index += 1,
            Slot::Value(value) => {
                if remove_value(index, value) {
                    with(|w| w.inode.swapped -= 1);
                    shmem::account(0);
                    index += 1;
                }
            }
            Slot::Folio(id) => {
                let found = folio_of(id);
                // SAFETY: A folio of this world, with the reference that `lookup()` took.
                unsafe { folio_lock(found) };
                let folio = this(found);
                if folio.cached.get() {
                    let start = folio.index.get();
                    let end = start + folio.nr();
                    rmap::unmap(|_, _, f| core::ptr::eq(f, found));
                    if start >= first && end - 1 <= last {
                        remove_folio(found, Slot::Hole);
                        if with(|w| w.mapping.is_shmem) {
                            shmem::account(0);
                        }
                    } else {
                        for i in start.max(first)..end.min(last + 1) {
                            write_page(found, i, 0);
                        }
                    }
                    index = end;
                }
                unlock_and_put(found);
            }
        }
    }
}

/// Reclaims a page to swap, unless it has other references.
pub fn reclaim(index: usize) {
    let Slot::Folio(id) = lookup(index) else {
        return;
    };
    let found = folio_of(id);
    let folio = this(found);
    let me = with(|w| w.current);
    if folio.lru_state.get() == Lru::Listed && folio.order == 0 {
        folio.lru_state.set(Lru::Isolated(me));
        folio.take_off_list();
        page_cache::get(found);
        log(What::Isolate(id, true));
        point();
        // SAFETY: `found` is a folio of this world, with the references of this function.
        if unsafe { bindings::folio_trylock(found) } {
            if folio.cached.get() && folio.uptodate.get() {
                rmap::unmap(|_, _, f| core::ptr::eq(f, found));
                let removed = Cursor::new(index, 0).locked(|cursor| {
                    // The references are those of the lookup, the isolation and the page cache.
                    if folio.refs.get() != 3 {
                        return false;
                    }
                    let value = with(|w| {
                        w.swap.push(folio.pages[0].content.get());
                        w.inode.swapped += 1;
                        w.swap.len() - 1
                    });
                    cursor.store(mk_value(value));
                    page_cache::uncount(folio);
                    true
                });
                if removed {
                    folio.mapping.set(core::ptr::null_mut());
                    folio.lru_state.set(Lru::Unborn);
                    folio.active.set(false);
                    folio.unevictable.set(false);
                    // SAFETY: The references are those of the page cache and the isolation.
                    unsafe { bindings::folio_put_refs(found, 2) };
                    shmem::account(0);
                }
            }
            // SAFETY: `found` was locked above.
            unsafe { folio_unlock(found) };
        }
        if folio.lru_state.get() == Lru::Isolated(me) {
            // SAFETY: `found` was isolated above.
            unsafe { bindings::folio_putback_lru(found) };
            drain(me);
        }
    }
    // SAFETY: A folio of this world, with the reference that `lookup()` took.
    unsafe { folio_put(found) };
}

/// Fills an aligned range with one folio.
///
/// Does nothing if a page of it is no hole.
pub fn fill_large(index: usize, order: u32) {
    if let Some(new) = new_folio(index, order) {
        point();
        for page in 0..1 << order {
            this(new).write(page, 0);
        }
        this(new).dirty.set(true);
        // SAFETY: `new` is a folio of this world.
        unsafe { folio_mark_uptodate(new) };
        unlock_and_put(new);
    }
}

/// Holds a reference to a page for a moment, as `splice()` and `get_user_pages()` do.
pub fn pin(index: usize) {
    if let Slot::Folio(id) = lookup(index) {
        point();
        // SAFETY: A folio of this world, with the reference that `lookup()` took.
        unsafe { folio_put(folio_of(id)) };
    }
}

/// Writes to a mapped page through a reference, as a device does after `pin_user_pages()`.
pub fn write_pinned(vma: usize, index: usize, content: u64) {
    point();
    if let Some(folio) = rmap::mapped(vma, index) {
        page_cache::get(folio);
        log(What::Get(this(folio).id));
        point();
        write_page(folio, index, content);
        // SAFETY: The reference was taken above.
        unsafe { folio_put(folio) };
    }
}

/// Holds the lock of a page for a moment.
pub fn lock_for_a_while(index: usize) {
    if let Some(folio) = lock_folio(index) {
        point();
        unlock_and_put(folio);
    }
}
