#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run one scenario of collapse_bench with C and with Rust, for scripts/profile.py.
#
#   profile.sh SCENARIO

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

echo 3600000 >$thp/khugepaged/scan_sleep_millisecs
echo never >$thp/shmem_enabled
echo "profile: begin"
# Wait until profile.py has sent its commands to QEMU's monitor.
sleep 10
"$bin/collapse_bench" -n 1 "$@"
status=$?
echo "profile: end"
sleep 2
exit $status
