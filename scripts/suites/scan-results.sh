#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Every result of a collapse has a string in the trace event, and Rust's results are C's. These
# lists have differed before.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

trace=$BUILD/linux/include/trace/events/huge_memory.h
results=$(grep -oE '^	SCAN_[A-Z_]+' "$TOP/mm/khugepaged.h" | tr -d '\t')
in_rust=$(grep -oE 'scan_result_SCAN_[A-Z_]+,' "$TOP/rust/kernel/mm/collapse/control.rs" | sed 's/scan_result_//; s/,//' | sort -u)
in_pristine=$(awk '/^enum scan_result \{/ { on = 1; next } on && /^\};/ { exit } on { print $1 }' \
	"$BUILD/pristine/mm/khugepaged.c" | tr -d ',')
in_fixes=$(grep -hoE '^\+	SCAN_[A-Z_]+,$' "$TOP"/patches/*-errno-for-lack-of-memory-or-space.patch | tr -d '+\t,')

same_list() { diff <(echo "$1") <(echo "$2"); }

has_string() { grep -qE "EMe?\( *$1,[[:space:]]*\"[a-z_]+\" *\)" "$trace"; }

is_result() { echo "$results" | grep -qx "$1"; }

tap "the enum has the kernel's values and then those of the fixes" \
	same_list "$in_pristine
$in_fixes" "$results"
for result in $results; do
	tap "$result has a trace string" has_string "$result"
done
for result in $in_rust; do
	tap "Rust's $result is one of C's" is_result "$result"
done
tap_end
