#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Attach gdb to the guest of `make shell GDB=1`, with breakpoints at both implementations of
# collapse_file():
#
#   gdb.sh KERNEL-BUILD SOCKET

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"

[ $# -eq 2 ] || usage "gdb.sh KERNEL-BUILD SOCKET"
[ -f "$1/vmlinux" ] || die "the kernel is missing ($1/vmlinux); run 'make shell GDB=1' in another terminal, which builds it"
[ -S "$2" ] || die "no guest listens at the socket ($2); run 'make shell GDB=1' in another terminal"
command -v gdb >/dev/null || "$TOP/scripts/build/setup.sh" gdb

# The debug information names sources by paths relative to the build directory.
exec gdb -q -iex "directory $(realpath "$1")" "$1/vmlinux" \
	-ex "target remote $2" -ex 'break rust_collapse_file' -ex 'break collapse_file' \
	-ex 'echo Now \"continue\", and collapse something in the guest.\n'
