// SPDX-License-Identifier: GPL-2.0

//! Sets the kernel configuration, with the debug options.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(CONFIG_DEBUG_VM)");
    println!("cargo:rustc-cfg=CONFIG_DEBUG_VM");
}
