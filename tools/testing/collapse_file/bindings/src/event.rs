// SPDX-License-Identifier: GPL-2.0

//! The events of an execution, in order. The properties are checked on them, and a failure prints
//! them.

use crate::{khugepaged::SCAN_RESULTS, world::Task};
use std::fmt;

/// The content of a slot of the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nothing.
    Hole,
    /// `XA_RETRY_ENTRY`.
    Retry,
    /// A swap entry or a shadow.
    Value(usize),
    /// The folio with this number.
    Folio(usize),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Hole => write!(f, "hole"),
            Slot::Retry => write!(f, "RETRY"),
            Slot::Value(value) => write!(f, "value {value}"),
            Slot::Folio(id) => write!(f, "folio {id}"),
        }
    }
}

/// The observation of a task at an index of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No page.
    Hole,
    /// A page, in memory or not.
    Data,
    /// A page with this content.
    Content(u64),
}

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The page-cache lock was taken.
    Lock,
    /// The page-cache lock was released.
    Unlock,
    /// A store to `1 << order` slots from an index on begins.
    Store(usize, u32, Slot),
    /// The store is complete.
    ///
    /// Before, other tasks may see the old content.
    Stored,
    /// A folio was locked.
    FolioLock(usize),
    /// Another task had the folio locked.
    FolioLockFailed(usize),
    /// A lookup took a reference to a folio.
    Get(usize),
    /// A folio was unlocked.
    FolioUnlock(usize),
    /// A folio of this order was allocated.
    Alloc(usize, u32),
    /// A folio was freed.
    Free(usize),
    /// A folio was isolated from the LRU, or could not be.
    Isolate(usize, bool),
    /// A folio was put back on the LRU.
    Putback(usize),
    /// A folio was unmapped.
    Unmap(usize),
    /// The TLBs were flushed for all unmapped folios.
    Flush,
    /// The file was charged for pages, or could not be.
    Charge(usize, bool),
    /// The file was uncharged for pages.
    Uncharge(usize),
    /// Page `.1` of a folio was written.
    Content(usize, usize, u64),
    /// The page at an index of the file was written by its user.
    Write(usize, u64),
    /// A folio was marked uptodate.
    Uptodate(usize),
    /// Page tables of the range were retracted.
    Retract,
    /// `i_mmap_rwsem` was taken for reading.
    IMmapRead,
    /// `i_mmap_rwsem` was released.
    IMmapUnlock,
    /// A VMA was checked for a userfaultfd.
    CheckVma(usize, bool),
    /// The flag of a VMA is set, for a registration that has not returned yet.
    Registering(usize),
    /// A userfaultfd was registered for missing pages of a VMA.
    Register(usize),
    /// A userfaultfd was unregistered from a VMA.
    Unregister(usize),
    /// A VMA was unmapped.
    Munmap(usize),
    /// A task that began its lookup after `.0` events saw this at an index.
    Saw(usize, usize, Seen),
    /// A userfaultfd got an event for a missing page: VMA, index.
    Missing(usize, usize),
    /// A test made this call fail.
    Injected(&'static str),
    /// A test made the allocation of a node fail.
    NodeRefused,
    /// A collapse begins.
    Begin,
    /// A collapse ended: result, traced index.
    End(u32, usize),
    /// A remark for the timeline.
    Note(&'static str),
}

/// Formats `1 << order` indices.
pub fn place(index: usize, order: u32) -> String {
    match order {
        0 => format!("[{index}]"),
        _ => format!("[{index}..{}]", index + (1 << order)),
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            What::Lock => write!(f, "lock page cache"),
            What::Unlock => write!(f, "unlock page cache"),
            What::Store(index, order, slot) => write!(f, "store {} = {slot}", place(index, order)),
            What::Stored => write!(f, "... stored"),
            What::FolioLock(id) => write!(f, "lock folio {id}"),
            What::FolioLockFailed(id) => write!(f, "folio {id} is locked"),
            What::Get(id) => write!(f, "look up folio {id}"),
            What::FolioUnlock(id) => write!(f, "unlock folio {id}"),
            What::Alloc(id, order) => write!(f, "alloc folio {id} order {order}"),
            What::Free(id) => write!(f, "free folio {id}"),
            What::Isolate(id, true) => write!(f, "isolate folio {id}"),
            What::Isolate(id, false) => write!(f, "folio {id} not on LRU"),
            What::Putback(id) => write!(f, "put back folio {id}"),
            What::Unmap(id) => write!(f, "unmap folio {id}"),
            What::Flush => write!(f, "flush TLB"),
            What::Charge(pages, true) => write!(f, "charge {pages}"),
            What::Charge(pages, false) => write!(f, "no room for {pages}"),
            What::Uncharge(pages) => write!(f, "uncharge {pages}"),
            What::Content(id, page, value) => write!(f, "folio {id}[{page}] := {value}"),
            What::Write(index, value) => write!(f, "write [{index}] := {value}"),
            What::Uptodate(id) => write!(f, "folio {id} uptodate"),
            What::Retract => write!(f, "retract page tables"),
            What::IMmapRead => write!(f, "lock i_mmap"),
            What::IMmapUnlock => write!(f, "unlock i_mmap"),
            What::CheckVma(vma, false) => write!(f, "vma {vma}: no uffd"),
            What::CheckVma(vma, true) => write!(f, "vma {vma}: uffd"),
            What::Registering(vma) => write!(f, "set the flag of vma {vma}"),
            What::Register(vma) => write!(f, "register vma {vma}"),
            What::Unregister(vma) => write!(f, "unregister vma {vma}"),
            What::Munmap(vma) => write!(f, "munmap vma {vma}"),
            What::Saw(_, index, Seen::Hole) => write!(f, "sees hole at {index}"),
            What::Saw(_, index, Seen::Data) => write!(f, "sees page at {index}"),
            What::Saw(_, index, Seen::Content(value)) => write!(f, "reads {value} at {index}"),
            What::Missing(_, index) => write!(f, "uffd event for {index}"),
            What::Injected(call) => write!(f, "{call}() fails"),
            What::NodeRefused => write!(f, "no node"),
            What::Begin => write!(f, "collapse"),
            What::End(result, index) => {
                let name = SCAN_RESULTS[result as usize].trim_start_matches("scan_result_");
                write!(f, "= {name} at {index}")
            }
            What::Note(note) => write!(f, "{note}"),
        }
    }
}

/// An event of a task.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The task.
    pub task: Task,
    /// The event.
    pub what: What,
}
