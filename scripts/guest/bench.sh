#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run collapse_bench in the guest: for memory, then for files on ext4 and xfs.
#
#   bench.sh OPTION...
#
# BENCH in the environment is another program, and BENCH_DIRS other directories for files.

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# To swap to memory takes no waiting, which would count as time.
swapoff -a
mkswap -q /dev/ram0 && swapon /dev/ram0 || { echo "error: there is no RAM disk to swap to"; exit 1; }
# Nothing else is to happen meanwhile.
echo 3600000 >$thp/khugepaged/scan_sleep_millisecs
echo never >$thp/shmem_enabled
sleep 2

"$bin/${BENCH:-collapse_bench}" "$@" || exit
for dir in ${BENCH_DIRS-/run/ext4 /run/xfs}; do
	"$bin/${BENCH:-collapse_bench}" "$@" -d "$dir" || exit
done
