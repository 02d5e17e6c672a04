#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The option builds, without a warning, with the other options it has to do with
# turned off. The debug kernel has them turned on. The sample, which is built into it,
# builds as a module, too: of nothing but what the kernel exports.

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
	"$TOP/scripts/build-kernel.sh" small "${objects[@]}"
tap "that was so" has_none small
tap "the debug kernel has them all, and helpers that are called" has_all debug

# modpost's list of what is exported is made with all modules, of which there are none.
sample_as_module() {
	local module=$BUILD/sample-module
	mkdir -p "$module"
	cp "$TOP/samples/rust/rust_page_cache_map.rs" "$module"
	echo "obj-m := rust_page_cache_map.o" >"$module/Kbuild"
	"$TOP/scripts/build-kernel.sh" debug bzImage modules &&
		"$TOP/scripts/build-kernel.sh" debug "M=$module" && [ -s "$module/rust_page_cache_map.ko" ]
}
tap "the sample builds as a module" sample_as_module
tap_end
