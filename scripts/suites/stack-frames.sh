#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Rust's largest stack frame is at most 512 bytes larger than C's. The compiler's warning about
# large frames covers only C, so the test reads the frame sizes from the object code.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

out=$BUILD/linux/build-debug

# largest_frame OBJECT PATTERN: print the largest frame, in bytes, of the functions in OBJECT whose
# name matches PATTERN.
largest_frame() {
	objdump -d "$1" | perl -ne '
		$in = $1 =~ /'"$2"'/ if /^[0-9a-f]+ <(.*)>:$/;
		$max = hex $1 if $in && /sub +\$0x([0-9a-f]+),%rsp/ && hex $1 > $max;
		END { print $max + 0 }'
}

c=$(largest_frame "$out/mm/khugepaged.o" 'collapse_(scan_)?file|collapse_single_pmd')
rust=$(largest_frame "$out/mm/collapse_file.o" '.')
echo "# largest frame: C $c bytes, Rust $rust bytes"

tap "the frames of C were found" test "$c" -gt 0
tap "the frames of Rust were found" test "$rust" -gt 0
tap "Rust's largest frame is within 512 bytes of C's" test "$rust" -le $((c + 512))
tap_end
