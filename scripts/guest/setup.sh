# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# What every guest script starts with. To be sourced, as root in the guest.

set -u
export PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$here/../../build/bin
thp=/sys/kernel/mm/transparent_hugepage
impl=$thp/khugepaged/collapse_file

mount -t tracefs none /sys/kernel/tracing 2>/dev/null
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
# The order in which the host attaches its images.
mkdir -p /run/ext4 /run/xfs /run/xfs-small-blocks /run/tmpfs
mount -t ext4 /dev/vda /run/ext4 && mount -t xfs /dev/vdb /run/xfs && swapon /dev/vdc &&
	mount -t xfs /dev/vdd /run/xfs-small-blocks ||
	{ echo "error: the disks are not there"; exit 1; }
mount -t tmpfs -o huge=advise none /run/tmpfs
