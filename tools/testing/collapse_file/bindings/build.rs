// SPDX-License-Identifier: GPL-2.0

//! Compiles the kernel's own XArray, and writes the sizes as constants.

use std::{env, fs, path::PathBuf, process::exit};

/// Prints an error in one line. The line makes cargo fail, so the exit status is 0.
fn die(what: String) -> ! {
    println!("cargo::error={what}");
    exit(0)
}

fn number(name: &str, default: u32) -> u32 {
    println!("cargo:rerun-if-env-changed={name}");
    match env::var(name) {
        Err(_) => default,
        Ok(value) => value
            .parse()
            .unwrap_or_else(|_| die(format!("{name} is not a number ({value}); set a number"))),
    }
}

fn main() {
    println!("cargo:rerun-if-env-changed=KSRC");
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-changed=../../../../rust/helpers/xa_state.c");

    let Some(ksrc) = env::var_os("KSRC").map(PathBuf::from) else {
        die(
            "KSRC is not set; set it to a Linux 7.3 tree, which has lib/xarray.c, or run \
             `make host-test` at the top, which fetches a tree"
                .into(),
        );
    };
    let xarray = ksrc.join("lib/xarray.c");
    if !xarray.exists() {
        die(format!(
            "there is no lib/xarray.c (KSRC={}); set KSRC to a Linux 7.3 tree",
            ksrc.display()
        ));
    }
    println!("cargo:rerun-if-changed={}", xarray.display());

    let order = number("COLLAPSE_ORDER", 2);
    let shift = number("COLLAPSE_XA_SHIFT", 1);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(
        out.join("sizes.rs"),
        format!(
            "pub const HPAGE_PMD_ORDER: u32 = {order};\npub const XA_CHUNK_SHIFT: u32 = {shift};\n"
        ),
    )
    .expect("OUT_DIR can be written to");

    let mut build = cc::Build::new();
    build
        .file("csrc/xarray.c")
        .file(ksrc.join("tools/lib/bitmap.c"))
        .file(ksrc.join("tools/lib/find_bit.c"))
        .include("csrc")
        .include(ksrc.join("tools/include"))
        // The headers that tools/include lacks, above all linux/xarray.h.
        .flag("-idirafter")
        .flag(ksrc.join("include"))
        .flag("-fexceptions")
        .flag("-fno-strict-aliasing")
        .flag("-Wno-unused-function")
        .flag("-Wno-pointer-sign")
        .flag("-Wno-unused-parameter")
        .define(
            "COLLAPSE_XARRAY_C",
            format!("\"{}\"", xarray.display()).as_str(),
        )
        .define("XA_CHUNK_SHIFT", shift.to_string().as_str())
        .define("CONFIG_XARRAY_MULTI", "1")
        .define("__KERNEL__", None)
        .extra_warnings(false)
        .debug(true)
        .opt_level(1);
    println!("cargo:rerun-if-env-changed=COLLAPSE_SANITIZE");
    match env::var("COLLAPSE_SANITIZE").as_deref() {
        Err(_) => (),
        // Undefined behaviour traps, so no runtime has to be linked.
        Ok("undefined") => {
            build
                .flag("-fsanitize=undefined")
                .flag("-fsanitize-undefined-trap-on-error");
        }
        // The runtime must be loaded before all other libraries, so that its malloc() is used.
        Ok("address") => {
            build.flag("-fsanitize=address");
            println!("cargo:rustc-link-lib=dylib=asan");
        }
        Ok(other) => die(format!(
            "COLLAPSE_SANITIZE is unknown ({other}); set undefined or address"
        )),
    }
    build.compile("collapse_xarray");
}
