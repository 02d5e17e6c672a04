# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Paths, messages and logged steps for all scripts. Bash scripts source this file.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$TOP/build
LOGS=$BUILD/logs
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rust-collapse-file}
JOBS=${JOBS:-$(nproc)}
# The architecture of kernels and guests.
ARCH=${ARCH:-x86_64}
LINUX_SERIES=7.3
LLVM_MAJOR=22
BINDGEN_VERSION=0.72.1
VIRTME_NG_VERSION=1.42
MATPLOTLIB_VERSION=3.11.2
SPHINX_VERSION=9.0.4
CARGO_MUTANTS_VERSION=27.1.0

say() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# usage TEXT: print the usage after wrong arguments, and exit with 2.
usage() {
	printf 'usage: %s\n' "$*" >&2
	exit 2
}

# Run a command with its output in a log, and print the end of the log if it fails.
#   logged NAME COMMAND...
logged() {
	local log=$LOGS/$1.log
	shift
	mkdir -p "$LOGS"
	if ! "$@" </dev/null >"$log" 2>&1; then
		tail -n 15 "$log" >&2
		die "'$1' failed; see ${log#"$TOP"/}"
	fi
}

# Check that a disk has enough free space. If it fills up during a kernel build, the error looks
# like a compiler bug.
#   need_space DIR GIB WHAT
need_space() {
	local free
	free=$(df --output=avail -B1G "$1" | tail -n 1 | tr -d ' ')
	[ "$free" -ge "$2" ] ||
		die "$3 needs $2 GiB in $1 ($free GiB free); free some space, or move build/ and CACHE to another disk"
}

# The tools of a kernel build. The user can set each of these variables.
LLVM=${LLVM:--$LLVM_MAJOR}
RUSTC=${RUSTC:-/usr/bin/rustc}
BINDGEN=${BINDGEN:-$CACHE/bindgen-$BINDGEN_VERSION/bin/bindgen}
VNG=$CACHE/virtme-ng-$VIRTME_NG_VERSION/bin/vng
# The Python with matplotlib, which draws the results of `make bench`.
PLOT_PYTHON=$CACHE/matplotlib-$MATPLOTLIB_VERSION/bin/python
# Renders the documents.
SPHINX=$CACHE/sphinx-$SPHINX_VERSION/bin/sphinx-build
# cargo-mutants generates the mutants of `make mutants-host` that are not patches.
CARGO_MUTANTS=$CACHE/cargo-mutants-$CARGO_MUTANTS_VERSION/bin/cargo-mutants
