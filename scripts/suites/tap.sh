# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Functions that print KTAP, for the tests on the host. The tests source this file.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
set +e

tap_count=0
tap_failed=0
tap_dir=$(mktemp -d)
trap 'rm -rf "$tap_dir"' EXIT
echo "TAP version 13"

#   tap DESCRIPTION COMMAND...
tap() {
	local what=$1
	shift
	tap_count=$((tap_count + 1))
	if "$@" >"$tap_dir/output" 2>&1; then
		echo "ok $tap_count $what"
	else
		sed 's/^/# /' "$tap_dir/output"
		echo "not ok $tap_count $what"
		tap_failed=1
	fi
}

#   skip DESCRIPTION WHY
skip() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count $1 # SKIP $2"
}

# Run a command without input, and print its output. Succeed if it ends with STATUS and its output
# matches PATTERN.
#   fails STATUS PATTERN COMMAND...
fails() {
	local status=$1 pattern=$2 got
	shift 2
	"$@" >"$tap_dir/out" 2>&1 </dev/null
	got=$?
	cat "$tap_dir/out"
	[ "$got" -eq "$status" ] && grep -qE -- "$pattern" "$tap_dir/out"
}

tap_end() {
	echo "1..$tap_count"
	exit $tap_failed
}
