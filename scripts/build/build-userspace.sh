#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Build the programs of the guest in build/bin: the demo, pcmap, the kernel of the virtual machines
# that are migrated and, with the argument "tests", the kernel's selftests. They are linked
# statically and do not need the guest's libraries. With ARCH=arm64 the directory is
# build/bin-arm64, the guest's root file system gets a copy, and no virtual machine is migrated.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"

[[ $# -eq 0 || $* == tests ]] || usage "build-userspace.sh [tests]"
linux=$BUILD/linux
bin=$BUILD/bin
copy=$BUILD/selftests
cross=
if [ "$ARCH" = arm64 ]; then
	bin+=-$ARCH copy+=-$ARCH cross=aarch64-linux-gnu-
fi
command -v "${cross}gcc" >/dev/null || die "a tool is missing (${cross}gcc); run 'make setup ARCH=$ARCH'"
mkdir -p "$bin"

tools() {
	local tool
	for tool in collapse_file_demo pcmap; do
		[ -n "$(find "$TOP/tools/mm" "$TOP/samples" -type f -newer "$bin/$tool" 2>&1)" ] || continue
		say "building $tool"
		logged $tool "${cross}gcc" -O2 -Wall -Wextra -Werror -static -pthread -o "$bin/$tool" "$TOP/tools/mm/$tool.c"
	done
}

# The multiboot protocol starts a kernel in 32-bit mode.
counters() {
	local source=$TOP/scripts/guest/counters.S
	[ ! "$bin/counters" -nt "$source" ] || return 0
	say "building counters"
	logged counters gcc -m32 -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--build-id=none -o "$bin/counters" "$source"
}

selftests() {
	local dir names=(collapse_bench collapse_contention collapse_file collapse_file_fs collapse_file_promises collapse_file_results collapse_file_stats
		collapse_fuzz khugepaged uffd-unit-tests uffd-stress split_huge_page_test folio_split_race_test guard-regions)
	if [ "$(cat "$bin/.origin" 2>/dev/null)" = "$(cat "$linux/.origin")" ] && [ -e "$bin/collapse_fuzz" ] &&
		[ -z "$(find "$TOP/tools/testing/selftests/mm" -newer "$bin/collapse_fuzz")" ]; then
		return
	fi
	say "building the kernel's selftests"
	# Their Makefile writes to the source directory, so it works on a copy.
	mkdir -p "$copy/tools/testing"
	for dir in tools/testing/selftests tools/include tools/arch/x86 tools/arch/arm64 scripts mm; do
		mkdir -p "$copy/$dir"
		rsync -a "$linux/$dir/" "$copy/$dir/"
	done
	mkdir -p "$copy/lib"
	cp "$linux/lib/test_hmm_uapi.h" "$copy/lib/"
	logged selftests make -C "$copy/tools/testing/selftests/mm" -j"$JOBS" LLVM= ARCH="$ARCH" CROSS_COMPILE="$cross" \
		CC="${cross}gcc" EXTRA_CFLAGS=-static OUTPUT="$bin" "${names[@]/#/$bin/}"
	cp "$linux/.origin" "$bin/.origin"
}

tools
[ "$ARCH" != x86_64 ] || counters
[ "${1:-}" != tests ] || selftests
[ "$ARCH" = x86_64 ] || "$TOP/scripts/build/guest-root.sh"
