#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# With CONFIG_RUST_COLLAPSE_FILE off, mm/khugepaged.o has the same instructions as an object that is
# compiled from the kernel's own mm/khugepaged.c with the fixes applied.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
. "$TOP/scripts/series/series.sh"

out=$BUILD/linux/build-plain

fix_pristine() {
	local patch
	cp -r "$BUILD/pristine/." "$tap_dir/"
	for patch in $(SERIES=fixes series_patches); do
		(cd "$tap_dir" && apply_patch "$patch") || return
	done
}

# Compile the kernel's own file with the command that compiled ours.
compile_pristine() {
	local command
	command=$(sed -n 's/^savedcmd_mm\/khugepaged.o := //p' "$out/mm/.khugepaged.o.cmd")
	command=${command%%;*}
	command=${command/-o mm\/khugepaged.o/-o $tap_dir/pristine.o}
	command=${command/..\/mm\/khugepaged.c/-iquote ../mm $tap_dir/mm/khugepaged.c}
	(cd "$out" && eval "$command")
}

# Warnings contain the path of the file, so the offsets of strings depend on its length.
code() {
	"llvm-objdump$LLVM" -dr --no-show-raw-insn --no-leading-addr "$1" |
		sed -e 1,3d -e 's/\.rodata\.str[.0-9]*+0x[0-9a-f]*/a string/'
}

same_code() {
	[ -s "$tap_dir/pristine.o" ] && [ "$(code "$1" | wc -l)" -gt 1000 ] &&
		diff <(code "$1") <(code "$tap_dir/pristine.o") | head -n 20 && [ "${PIPESTATUS[0]}" -eq 0 ]
}

tap "mm/khugepaged.o builds with the option off" "$TOP/scripts/build/build-kernel.sh" plain mm/khugepaged.o
tap "the fixes apply to the kernel's own files" fix_pristine
tap "the kernel's own mm/khugepaged.c builds the same way" compile_pristine
tap "both have the same instructions and relocations" same_code "$out/mm/khugepaged.o"
tap_end
