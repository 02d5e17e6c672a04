// SPDX-License-Identifier: GPL-2.0

//! Pages that a userfaultfd would deliver turn up as zeroes. The virtual machine that is being
//! restored has lost them.

#![forbid(unsafe_code)]

use kernel::mm::collapse::CountedRange;

fn replace(counted: CountedRange<'_, '_>) -> bool {
    counted.commit().is_ok()
}

fn main() {}
