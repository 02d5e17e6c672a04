// SPDX-License-Identifier: GPL-2.0

//! Sets the kernel configuration, with the debug options.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for option in ["CONFIG_COLLAPSE_FILE_STATS", "CONFIG_DEBUG_VM"] {
        println!("cargo:rustc-check-cfg=cfg({option})");
        println!("cargo:rustc-cfg={option}");
    }
    // CONFIG_SMP is off, because lock_for_commit() checks for a second lock only then.
    println!("cargo:rustc-check-cfg=cfg(CONFIG_SMP)");
    // The simulation injects failures itself.
    println!("cargo:rustc-check-cfg=cfg(CONFIG_COLLAPSE_FILE_INJECT)");
    println!("cargo:rustc-check-cfg=cfg(CONFIG_RUST_COLLAPSE_FILE_ONE_BY_ONE)");
    // The KUnit tests need a kernel.
    println!("cargo:rustc-check-cfg=cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)");
}
