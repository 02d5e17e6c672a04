// SPDX-License-Identifier: GPL-2.0

//! The kernel is configured for debugging.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for option in ["CONFIG_COLLAPSE_FILE_STATS", "CONFIG_DEBUG_VM"] {
        println!("cargo:rustc-check-cfg=cfg({option})");
        println!("cargo:rustc-cfg={option}");
    }
    // Without SMP, because only then lock_for_commit() checks for a second lock.
    println!("cargo:rustc-check-cfg=cfg(CONFIG_SMP)");
    // Failures are injected in another way.
    println!("cargo:rustc-check-cfg=cfg(CONFIG_COLLAPSE_FILE_INJECT)");
    println!("cargo:rustc-check-cfg=cfg(CONFIG_RUST_COLLAPSE_FILE_ONE_BY_ONE)");
    // KUnit's tests want a kernel.
    println!("cargo:rustc-check-cfg=cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)");
}
