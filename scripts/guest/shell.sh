#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The interactive shell of a guest. Without ACPI a guest cannot power off, so it ends
# by a reboot, which QEMU takes for its exit.

top=$PWD
# Those of `make shell`, and not somebody's own.
if [ -e /dev/vdd ]; then
	. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
	echo "disks: /run/ext4, /run/xfs; swap; programs: $(realpath "$bin")"
fi
echo "collapse_file: $(cat /sys/kernel/mm/transparent_hugepage/khugepaged/collapse_file)"
cd "$top" || exit 1
bash -i
sync
/bin/busybox reboot -f
