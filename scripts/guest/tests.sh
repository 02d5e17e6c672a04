#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run the test suites in the guest, with Rust and with C:
#
#   tests.sh [-i IMPL] [SUITE...]
#   tests.sh -l		list the suites and their time limits, also outside a guest
#
# The output of a suite is between a line "#suite NAME IMPL" and a line "#end NAME IMPL STATUS".
# Leaks follow after "#leaks".

if [ "${1:-}" = -l ]; then
	here=. bin=.
else
	. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
fi

impls=(rust c)
if [ "${1:-}" = -i ]; then
	impls=("$2")
	shift 2
fi

# Name, time limit in seconds, command. Functions of this file limit their commands themselves.
# setarch -R disables address space randomization, because khugepaged maps at a fixed address, which
# the heap could occupy.
suites() {
	cat <<-EOT
		sysfs 60 sysfs_test
		sample 300 "$here/sample_test.py"
		collapse_file_results 300 "$bin/collapse_file_results"
		collapse_file 900 "$bin/collapse_file"
		collapse_file_fs 300 "$bin/collapse_file_fs"
		collapse_file_fs-ext4 300 env COLLAPSE_FILE_DIR=/run/ext4 "$bin/collapse_file_fs"
		collapse_file_promises 300 "$bin/collapse_file_promises"
		collapse_file_promises-ext4 300 env COLLAPSE_FILE_DIR=/run/ext4 "$bin/collapse_file_promises"
		collapse_file_results-classic-lru 900 classic_lru "$bin/collapse_file_results"
		collapse_file-classic-lru 900 classic_lru "$bin/collapse_file"
		stats 300 "$bin/collapse_file_stats"
		collapse_fuzz 900 fuzz
		demo 300 demo
		khugepaged-shmem 300 setarch -R "$bin/khugepaged" all:shmem
		khugepaged-shmem-order4 300 setarch -R "$bin/khugepaged" -s 4 all:shmem
		khugepaged-file-tmpfs 1300 khugepaged_again all:file /run/tmpfs
		khugepaged-file-ext4 1300 khugepaged_again all:file /run/ext4
		khugepaged-file-xfs 1300 khugepaged_again all:file /run/xfs
		uffd-unit-tests 3600 "$bin/uffd-unit-tests"
		split_huge_page_test 1300 without_khugepaged "$bin/split_huge_page_test" /run/xfs
		guard-regions 600 "$bin/guard-regions"
		folio_split_race_test 1200 "$bin/folio_split_race_test"
		uffd-stress-shmem 300 shmem_always "$bin/uffd-stress" shmem 20 16
	EOT
}

# Run a command with huge pages for all of shmem.
shmem_always() {
	local before status
	before=$(sed 's/.*\[\(.*\)\].*/\1/' "$thp/shmem_enabled")
	echo always >"$thp/shmem_enabled"
	timeout -k 10 300 "$@"
	status=$?
	echo "$before" >"$thp/shmem_enabled"
	return $status
}

# Run a command with the classic LRU, if the kernel uses the multi-gen LRU.
classic_lru() {
	local lru=/sys/kernel/mm/lru_gen/enabled before status
	before=$(cat $lru 2>/dev/null)
	((${before:-0} & 1)) || { echo "1..0 # SKIP the kernel already uses the classic LRU"; return 4; }
	echo 0 >$lru || return
	timeout -k 10 900 "$@"
	status=$?
	echo "$before" >$lru
	return $status
}

# Run a command while khugepaged does not scan. It would collapse what split_huge_page_test has
# split, before the test looks at it.
without_khugepaged() {
	local setting=$thp/khugepaged/scan_sleep_millisecs before status
	before=$(cat "$setting")
	echo 4294967295 >"$setting" || return
	timeout -k 10 1200 "$@"
	status=$?
	echo "$before" >"$setting"
	return $status
}

# Run khugepaged's tests of files up to three times until they succeed. "#again" marks each further
# try. The tests exit with 0 and print ok at the end even if a step has failed, so the output of each
# step counts.
khugepaged_again() {
	local try status
	for try in 1 2 3; do
		[ $try = 1 ] || echo "#again"
		timeout -k 10 400 setarch -R "$bin/khugepaged" "$@" 2>&1 | tee said
		status=${PIPESTATUS[0]}
		[ "$status" != 0 ] || grep -qE '\b(Fail|Timeout)\b|corrupted' said || return 0
		[ "$status" != 4 ] || return 4
	done
	return "$status"
}

# Run collapse_fuzz. Its output is KTAP, so it is printed as comments.
fuzz_once() {
	timeout -k 10 400 "$bin/collapse_fuzz" "$@" 2>&1 | sed 's/^/# /'
	return "${PIPESTATUS[0]}"
}

# Compare both implementations on random histories, some of which are the same each time. The suite
# runs only with the first implementation.
fuzz() {
	local n=1 bad=0 fresh=$((RANDOM * 32768 + RANDOM))
	[ "$i" = "${impls[0]}" ] || { echo "1..0 # SKIP the first run compares both implementations"; return 4; }
	echo "TAP version 13"
	echo "1..3"
	tap "fixed histories: seed 1" "fuzz_once -c 200 -s 1 -d /run/ext4"
	tap "fresh histories: seed $fresh" "fuzz_once -c 100 -s $fresh -d /run/xfs"
	tap "several threads at one file" "fuzz_once -m concurrent -s $fresh -c 10 -t 30"
	return $bad
}

# Run the demo, which prints maps of the page cache for the report, with both implementations.
demo() {
	[ "$i" = "${impls[0]}" ] || { echo "1..0 # SKIP the first run shows both implementations"; return 4; }
	timeout -k 10 300 "$bin/collapse_file_demo" /run/ext4
}

tap() {
	if eval "$2"; then echo "ok $n $1"; else echo "not ok $n $1"; bad=1; fi
	n=$((n + 1))
}

chooses() { echo "$1" >"$impl" && grep -qF "[$1]" "$impl"; }

refuses() {
	local message before
	before=$(cat "$impl")
	message=$( (printf '%s\n' "$1" >"$impl") 2>&1) && return 1
	[[ $message == *"Invalid argument"* && $(cat "$impl") == "$before" ]]
}

collapses_while_switched() {
	local switcher status
	while sleep 0.05; do
		echo c >"$impl"
		sleep 0.05
		echo rust >"$impl"
	done &
	switcher=$!
	# Switching waits for each CPU, so the first of these tests, which stalls one, is left out. The
	# other tests are left out because they pass only with Rust.
	timeout 600 "$bin/collapse_file" -T uffd_registered_too_late_sees_no_holes \
		-T uffd_registered_after_the_walk_is_noticed -T scan_drains_lru_batches \
		-T swap_is_read_ahead 2>&1 | sed 's/^/# /'
	status=${PIPESTATUS[0]}
	kill $switcher
	wait $switcher 2>/dev/null
	return "$status"
}

# Test the sysfs attribute that selects the implementation, and switching during collapses.
sysfs_test() {
	local n=1 bad=0
	echo "TAP version 13"
	echo "1..7"
	tap "c can be chosen" "chooses c"
	tap "rust can be chosen" "chooses rust"
	tap "an empty word is EINVAL" "refuses ''"
	tap "RUST is EINVAL" "refuses RUST"
	tap "two words are EINVAL" "refuses 'c rust'"
	tap "a number is EINVAL" "refuses 1"
	tap "collapses go well while the implementation is switched" collapses_while_switched
	return $bad
}

# Kill the remaining tests of a suite that timed out. Each test has its own process group, so the
# timeout did not kill them.
end_all() {
	local exe
	for exe in /proc/[0-9]*/exe; do
		[[ $(readlink "$exe") != "$(realpath "$bin")"/* ]] || kill -KILL "$(basename "${exe%/exe}")"
	done 2>/dev/null
	echo off >/sys/kernel/debug/collapse_file_inject
}

if [ "${1:-}" = -l ]; then
	suites | cut -d ' ' -f 1,2
	exit 0
fi

for i in "${impls[@]}"; do
	echo "$i" >"$impl" || exit 1
	while read -r name limit command; do
		[ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
		echo "$i" >"$impl"
		echo "#suite $name $i"
		echo "collapse_file test: suite $name, $i" >/dev/kmsg
		case $command in
		sysfs_test | fuzz | demo | shmem_always* | classic_lru* | without_khugepaged* | khugepaged_again*) eval "$command" 2>&1 ;;
		*) eval "timeout -k 10 $limit $command" 2>&1 ;;
		esac
		status=$?
		[ $status != 124 ] || end_all
		echo "#end $name $i $status"
	done < <(suites)
done

leaks
