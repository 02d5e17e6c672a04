// SPDX-License-Identifier: GPL-2.0

//! The kernel is configured for debugging.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(CONFIG_DEBUG_VM)");
    // KUnit's tests want a kernel.
    println!("cargo:rustc-check-cfg=cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)");
    println!("cargo:rustc-cfg=CONFIG_DEBUG_VM");
}
