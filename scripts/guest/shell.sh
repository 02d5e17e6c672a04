#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run the interactive shell of a guest. Without ACPI a guest cannot power off. It reboots at the
# end, and QEMU exits on a reboot.

top=$PWD
# `make shell` attaches its disks. Other callers of vng may not attach any.
if [ -e /dev/vdd ]; then
	. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
	echo "disks: /run/ext4, /run/xfs; swap; programs: $(realpath "$bin")"
fi
echo "collapse_file: $(cat /sys/kernel/mm/transparent_hugepage/khugepaged/collapse_file)"
cd "$top" || exit 1
bash -i
sync
/bin/busybox reboot -f
