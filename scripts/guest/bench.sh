#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run collapse_bench in the guest: first for memory, then for files on ext4 and xfs.
#
#   bench.sh OPTION...
#
# The environment variable BENCH names a different program, and BENCH_DIRS different directories.

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Swapping to a RAM disk does not wait for I/O, which would count as time.
swapoff -a
mkswap -q /dev/ram0 && swapon /dev/ram0 || { echo "error: swapping to the RAM disk fails (/dev/ram0); boot a kernel with CONFIG_BLK_DEV_RAM"; exit 1; }
# khugepaged and shmem must not do other work during the measurements.
echo 3600000 >$thp/khugepaged/scan_sleep_millisecs
echo never >$thp/shmem_enabled
sleep 2

"$bin/${BENCH:-collapse_bench}" "$@" || exit
for dir in ${BENCH_DIRS-/run/ext4 /run/xfs}; do
	"$bin/${BENCH:-collapse_bench}" "$@" -d "$dir" || exit
done
