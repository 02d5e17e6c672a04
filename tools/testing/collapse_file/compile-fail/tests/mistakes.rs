// SPDX-License-Identifier: GPL-2.0

//! No case compiles, and each gets the expected error message.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

#[test]
#[cfg_attr(
    not(messages_are_known),
    ignore = "cases/ has the messages of another compiler version, see build.rs"
)]
fn mistakes() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}

/// Returns the text of the cases by name.
fn cases() -> BTreeMap<String, String> {
    let files = fs::read_dir("cases").expect("the working directory is that of the package");
    files
        .map(|file| file.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| {
            let name = path.file_stem().expect("it has a name").to_string_lossy();
            let text = fs::read_to_string(&path).expect("it is text");
            (name.into_owned(), text)
        })
        .collect()
}

#[test]
fn each_case_forbids_unsafe_code() {
    for (name, text) in cases() {
        assert!(text.contains("\n#![forbid(unsafe_code)]\n"), "{name}");
    }
}

#[test]
fn the_table_has_each_case() {
    let table: BTreeSet<&str> = include_str!("../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert!(table.iter().copied().eq(cases().keys()));
}
