#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Attach gdb to the guest of `make shell GDB=1`, stopped at the next collapse of a
# file, whichever implementation it is of:
#
#   gdb.sh KERNEL-BUILD SOCKET

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -eq 2 ] || usage "gdb.sh KERNEL-BUILD SOCKET"
[ -f "$1/vmlinux" ] || die "$1/vmlinux is not there: run 'make shell GDB=1' in another terminal, which builds it"
[ -S "$2" ] || die "no guest listens at $2: run 'make shell GDB=1' in another terminal"
command -v gdb >/dev/null || "$TOP/scripts/setup.sh" gdb

# The build is in a directory of its own, and debug information names sources by paths
# from there.
exec gdb -q -iex "directory $(realpath "$1")" "$1/vmlinux" \
	-ex "target remote $2" -ex 'break rust_collapse_file' -ex 'break collapse_file' \
	-ex 'echo Now \"continue\", and collapse something in the guest.\n'
