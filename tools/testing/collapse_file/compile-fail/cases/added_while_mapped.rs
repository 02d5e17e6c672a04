// SPDX-License-Identifier: GPL-2.0

//! A task that maps a folio may write to it after the copy.

#![forbid(unsafe_code)]

use kernel::mm::{
    collapse::{Gathering, OldFolios},
    folio::FolioList,
};

fn add(old: &mut OldFolios<'_, Gathering>, list: FolioList) {
    old.collapse.list = list;
}

fn main() {}
