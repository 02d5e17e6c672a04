// SPDX-License-Identifier: GPL-2.0

//! Linked lists, with a check that an entry is on one list at most.

use crate::world::{check, stop};

/// `struct list_head`.
#[repr(C)]
#[derive(Debug)]
pub struct list_head {
    pub next: *mut list_head,
    pub prev: *mut list_head,
}

/// # Safety
///
/// `entry` must be valid.
unsafe fn check_unlisted(entry: *mut list_head) {
    // SAFETY: By the safety requirements of this function.
    check(
        unsafe { (*entry).next.is_null() },
        "an entry on a list is added to another list",
    );
}

/// # Safety
///
/// `entry` must be valid.
pub unsafe fn INIT_LIST_HEAD(entry: *mut list_head) {
    // SAFETY: By the safety requirements of this function.
    unsafe {
        check_unlisted(entry);
        (*entry).next = entry;
        (*entry).prev = entry;
    }
}

/// # Safety
///
/// As for the C function.
pub unsafe fn list_add_tail(new: *mut list_head, head: *mut list_head) {
    // SAFETY: By the safety requirements of this function.
    unsafe {
        check_unlisted(new);
        let prev = (*head).prev;
        (*new).next = head;
        (*new).prev = prev;
        (*prev).next = new;
        (*head).prev = new;
    }
}

/// # Safety
///
/// As for the C function.
pub unsafe fn list_del(entry: *mut list_head) {
    // SAFETY: By the safety requirements of this function.
    unsafe {
        if (*entry).next.is_null() {
            stop("list_del() of an entry that is on no list");
        }
        (*(*entry).next).prev = (*entry).prev;
        (*(*entry).prev).next = (*entry).next;
        (*entry).next = core::ptr::null_mut();
        (*entry).prev = core::ptr::null_mut();
    }
}
