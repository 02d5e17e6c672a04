# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# What every script here shares: places, messages, logged steps with progress.
# To be sourced; needs bash.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$TOP/build
LOGS=$BUILD/logs
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rust-collapse-file}
JOBS=${JOBS:-$(nproc)}
# The machine that kernels are built for and guests emulate.
ARCH=${ARCH:-x86_64}
LINUX_SERIES=7.3
LLVM_MAJOR=22
BINDGEN_VERSION=0.72.1
VIRTME_NG_VERSION=1.42
MATPLOTLIB_VERSION=3.11.2
CARGO_MUTANTS_VERSION=27.1.0

say() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# usage TEXT: the arguments are wrong.
usage() {
	printf 'usage: %s\n' "$*" >&2
	exit 2
}

# Both ends of a step are worth a line; what lies between goes to a log.
#   logged NAME COMMAND...
logged() {
	local log=$LOGS/$1.log
	shift
	mkdir -p "$LOGS"
	if ! "$@" </dev/null >"$log" 2>&1; then
		tail -n 15 "$log" >&2
		die "'$1' failed; the whole log is ${log#"$TOP"/}"
	fi
}

# Kernel builds want a few GiB; a full disk in the middle of one reads like a
# compiler bug.
#   need_space DIR GIB WHAT
need_space() {
	local free
	free=$(df --output=avail -B1G "$1" | tail -n 1 | tr -d ' ')
	[ "$free" -ge "$2" ] ||
		die "$3 needs $2 GiB in $1, which has $free: free some space or put build/ and CACHE= on another disk"
}

# The tools of a kernel build. Each can be given by the user under this name.
LLVM=${LLVM:--$LLVM_MAJOR}
RUSTC=${RUSTC:-/usr/bin/rustc}
BINDGEN=${BINDGEN:-$CACHE/bindgen-$BINDGEN_VERSION/bin/bindgen}
VNG=$CACHE/virtme-ng-$VIRTME_NG_VERSION/bin/vng
# Draws what `make bench` measures.
PLOT_PYTHON=$CACHE/matplotlib-$MATPLOTLIB_VERSION/bin/python
# Makes the mutants of `make mutants-host` that are not patches.
CARGO_MUTANTS=$CACHE/cargo-mutants-$CARGO_MUTANTS_VERSION/bin/cargo-mutants
