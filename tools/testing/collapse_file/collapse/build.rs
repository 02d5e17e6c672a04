// SPDX-License-Identifier: GPL-2.0

//! The kernel is configured for debugging.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(CONFIG_DEBUG_VM)");
    println!("cargo:rustc-cfg=CONFIG_DEBUG_VM");
}
