// SPDX-License-Identifier: GPL-2.0

//! A page that was written after the holes were counted is not in the new folio. Its data is lost.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{FilledRange, SealedRange};

fn seal<'w, 'm>(filled: FilledRange<'w, 'm>) -> Option<SealedRange<'w, 'm>> {
    filled.check_userfaultfd().ok()
}

fn main() {}
