// SPDX-License-Identifier: GPL-2.0

//! Checks whether the compiler is the one whose messages are in `cases/`.

use std::{env, process::Command};

/// The version of the compiler whose messages are in `cases/`.
///
/// After a change of the version, run the test with `TRYBUILD=overwrite` and read the differences.
const MESSAGES_OF: &str = "1.96";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(messages_are_known)");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let output = Command::new(rustc)
        .arg("--version")
        .output()
        .expect("there is a compiler");
    let version = String::from_utf8_lossy(&output.stdout);
    if version.starts_with(&format!("rustc {MESSAGES_OF}.")) {
        println!("cargo:rustc-cfg=messages_are_known");
    }
}
