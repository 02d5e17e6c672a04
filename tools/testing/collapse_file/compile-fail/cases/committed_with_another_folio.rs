// SPDX-License-Identifier: GPL-2.0

//! The new folio has the content of other folios than those it replaces. The file's data is lost.

#![forbid(unsafe_code)]

use kernel::mm::collapse::{NewFolio, SealedRange};

fn replace<'m>(sealed: SealedRange<'_, 'm>, new: NewFolio<'m>) -> bool {
    sealed.commit(new).is_ok()
}

fn main() {}
