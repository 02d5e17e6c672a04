#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Print the size of the code and the depth of the stack of collapse_file(), in bytes, in C and
# in Rust, as they are in a built kernel:
#
#   code-size.sh BUILD-DIRECTORY
#
# The compiler inlines the function in C into its only caller, so that it is compiled once
# more, without that. Functions that both call do not count.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -eq 1 ] || usage "code-size.sh BUILD-DIRECTORY"
out=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
[ -e "$out/mm/collapse_file.o" ] || die "there is no kernel in $out"

sed 's/^static \(enum scan_result collapse_file(\)/static noinline \1/' "$BUILD/linux/mm/khugepaged.c" >"$tmp/khugepaged.c"
command=$(sed -n 's/^savedcmd_mm\/khugepaged.o := //p' "$out/mm/.khugepaged.o.cmd")
command=${command%%;*}
command=${command/-o mm\/khugepaged.o/-o $tmp/khugepaged.o}
command=${command/..\/mm\/khugepaged.c/-iquote ../mm $tmp/khugepaged.c}
export CCACHE_DIR=$CACHE/ccache
(cd "$out" && eval "$command") >&2 || die "mm/khugepaged.c does not compile once more"

# The bytes of all functions of OBJECT that match PATTERN.
text() {
	"llvm-nm$LLVM" -S "$1" | perl -ne '$sum += hex $1 if /^\S+ (\S+) [tT] ('"$2"')(\.cold)?$/; END { print $sum }'
}

# What ENTRY has on the stack, its return address included, and the function of those that match
# PATTERN that has the most.
stack() {
	"llvm-objdump$LLVM" -d --no-show-raw-insn "$1" | perl -ne '
		if (/^[0-9a-f]+ <(.*)>:$/) { $in = $1; $start = 1; $frame{$in} = 8 }
		elsif (/\tpushq?\s/ && $start) { $frame{$in} += 8 }
		elsif (/\tsubq?\s+\$0x([0-9a-f]+), %rsp/ && $start) { $frame{$in} += hex $1; $start = 0 }
		elsif (/\t(call|j|ret)/) { $start = 0 unless /__fentry__/ }
		END {
			for (keys %frame) { $most = $frame{$_} if $_ ne "'"$2"'" && /^('"$3"')$/ && $frame{$_} > $most }
			print $frame{"'"$2"'"} + $most;
		}'
}

echo "code: $(text "$tmp/khugepaged.o" collapse_file) $(text "$out/mm/collapse_file.o" '.*')"
echo "stack: $(stack "$tmp/khugepaged.o" collapse_file xas_next_entry) $(stack "$out/mm/collapse_file.o" rust_collapse_file '.*')"
