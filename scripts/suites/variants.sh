#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The option builds without warnings if the options that affect it are off. The debug kernel has
# them on. The sample is built into that kernel. It also builds as a module, and so uses only
# symbols that the kernel exports.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

objects=(mm/collapse_file.o mm/collapse_file_scan.o mm/collapse_file_switch.o mm/khugepaged.o)

has() { grep -qx "CONFIG_$1=y" "$BUILD/linux/build-$2/.config"; }

has_all() {
	local option
	for option in SMP NUMA MEMCG USERFAULTFD DEBUG_VM; do
		has "$option" "$1" || return 1
	done
	! has RUST_INLINE_HELPERS "$1"
}

has_none() {
	local option
	for option in SMP NUMA MEMCG USERFAULTFD DEBUG_VM; do
		! has "$option" "$1" || return 1
	done
	has RUST_INLINE_HELPERS "$1"
}

tap "builds without SMP, NUMA, MEMCG, USERFAULTFD and DEBUG_VM, helpers inlined, C by default" \
	"$TOP/scripts/build/build-kernel.sh" small "${objects[@]}"
tap "the configuration is as expected" has_none small
tap "the debug kernel has all of them, and helpers are not inlined" has_all debug

# modpost writes the list of exported symbols when all modules are built. The kernel has none.
sample_as_module() {
	local module=$BUILD/sample-module
	mkdir -p "$module"
	cp "$TOP/samples/rust/rust_page_cache_map.rs" "$module"
	echo "obj-m := rust_page_cache_map.o" >"$module/Kbuild"
	"$TOP/scripts/build/build-kernel.sh" debug bzImage modules &&
		"$TOP/scripts/build/build-kernel.sh" debug "M=$module" && [ -s "$module/rust_page_cache_map.ko" ]
}
tap "the sample builds as a module" sample_as_module
tap_end
