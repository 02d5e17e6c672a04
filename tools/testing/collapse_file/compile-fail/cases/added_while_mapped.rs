// SPDX-License-Identifier: GPL-2.0

//! A task that maps a folio may write to it after the copy.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    folio::FolioList,
};

fn add(old: &mut OldFolios<'_, Gathering<'_>>, list: FolioList) {
    old.list = list;
}

fn main() {}
