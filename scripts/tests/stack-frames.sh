#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Rust uses no more than 512 bytes of stack in one frame beyond what C does, by the
# measure of the kernel's own checkstack.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

out=$BUILD/linux/build-debug

# The largest frame of the functions whose name matches.
largest_frame() {
	"llvm-objdump$LLVM" -d "$1" | perl "$BUILD/linux/scripts/checkstack.pl" x86_64 0 2>/dev/null |
		awk -v name="$2" '$0 ~ name && $NF > max { max = $NF } END { print max + 0 }'
}

c=$(largest_frame "$out/mm/khugepaged.o" 'collapse_(scan_)?file|collapse_single_pmd')
rust=$(largest_frame "$out/mm/collapse_file.o" '.')
echo "# largest frame: C $c bytes, Rust $rust bytes"

tap "the frames of C were found" test "$c" -gt 0
tap "the frames of Rust were found" test "$rust" -gt 0
tap "Rust's largest frame is within 512 bytes of C's" test "$rust" -le $((c + 512))
tap_end
