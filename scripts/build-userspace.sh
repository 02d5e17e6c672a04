#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Build what runs in the guest into build/bin: the demo, pcmap and, with an argument
# "tests", the kernel's selftests. All static, so that the guest's libraries do not
# matter.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bin=$BUILD/bin
linux=$BUILD/linux
mkdir -p "$bin"

for tool in collapse_file_demo pcmap; do
	[ -n "$(find "$TOP/tools/mm" "$TOP/include" -type f -newer "$bin/$tool" 2>&1)" ] || continue
	say "building $tool"
	# The compiler's headers come first: those of the kernel are for what they lack.
	logged $tool gcc -O2 -Wall -Wextra -Werror -static -pthread -idirafter "$TOP/include/uapi" \
		-o "$bin/$tool" "$TOP/tools/mm/$tool.c"
done
[ "${1:-}" = tests ] || exit 0

selftests=(collapse_bench collapse_file collapse_file_results collapse_file_stats collapse_fuzz khugepaged uffd-unit-tests uffd-stress split_huge_page_test folio_split_race_test guard-regions)
if [ "$(cat "$bin/.origin" 2>/dev/null)" = "$(cat "$linux/.origin")" ] && [ -e "$bin/collapse_fuzz" ] &&
	[ -z "$(find "$TOP/tools/testing/selftests/mm" -newer "$bin/collapse_fuzz")" ]; then
	exit 0
fi
say "building the kernel's selftests"
# Their Makefile writes where the sources are.
copy=$BUILD/selftests
mkdir -p "$copy/tools/testing"
for dir in tools/testing/selftests tools/include tools/arch/x86 scripts mm; do
	mkdir -p "$copy/$dir"
	rsync -a "$linux/$dir/" "$copy/$dir/"
done
logged selftests make -C "$copy/tools/testing/selftests/mm" -j"$JOBS" LLVM= CC=gcc \
	EXTRA_CFLAGS=-static OUTPUT="$bin" "${selftests[@]/#/$bin/}"
cp "$linux/.origin" "$bin/.origin"
