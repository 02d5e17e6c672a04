# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Mounts and variables for all guest scripts, which source this file as root in the guest.

set -u
export PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$here/../../build/bin
thp=/sys/kernel/mm/transparent_hugepage
impl=$thp/khugepaged/collapse_file

mount -t tracefs none /sys/kernel/tracing 2>/dev/null
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
# The images, in the order in which the host attaches them. DISKS names different devices.
read -ra disks <<<"${DISKS:-/dev/vda /dev/vdb /dev/vdc /dev/vdd}"
mkdir -p /run/ext4 /run/xfs /run/xfs-small-blocks /run/tmpfs /run/work
mount -t ext4 "${disks[0]}" /run/ext4 && mount -t xfs "${disks[1]}" /run/xfs && swapon "${disks[2]}" &&
	mount -t xfs "${disks[3]}" /run/xfs-small-blocks ||
	{ echo "error: disks cannot be mounted (${disks[*]}); attach the images, or set DISKS"; exit 1; }
mount -t tmpfs -o huge=advise none /run/tmpfs
# Some tests make files in the current directory and map them executable. /run may forbid that.
mount -t tmpfs none /run/work

# record-cmd patches the scheduler's code whenever a test starts tracing. In about one of 60 guests,
# QEMU's emulation delivered a breakpoint after the patching had ended.
echo 0 >/sys/kernel/tracing/options/record-cmd
# collapse_file and collapse_file_results make their files here.
export COLLAPSE_FILE_DIR=/run/xfs COLLAPSE_FILE_SMALL_BLOCKS_DIR=/run/xfs-small-blocks
# Tests inject failures with kprobes. Each change of a kprobe waits for RCU.
echo 1 >/sys/kernel/rcu_expedited
cd /run/work || exit 1

kmemleak=/sys/kernel/debug/kmemleak
[ ! -e $kmemleak ] || echo clear >$kmemleak

# Print leaks between a line "#leaks" and a line "#leaks-end". They are objects that kmemleak finds,
# and folios of collapses that still exist after all files are gone.
leaks() {
	local owners=/sys/kernel/debug/page_owner_stacks/show_stacks
	echo "#leaks"
	if [ -e $kmemleak ]; then
		# An object that moves between two owners looks like a leak in the first scan.
		echo scan >$kmemleak
		sleep 6
		echo scan >$kmemleak
		# kunit_attach_mm() leaks a reference to the mm that it makes. Objects from before the
		# first process do not belong to a test.
		awk 'function tell() { if (object !~ /kunit_attach_mm|comm "swapper\/0", pid 0,/) printf "%s", object; object = "" }
			/^unreferenced/ { tell() }
			{ object = object $0 "\n" }
			END { tell() }' $kmemleak
	fi
	cd /
	umount /run/work /run/tmpfs /run/ext4 /run/xfs /run/xfs-small-blocks
	if [ -e $owners ]; then
		awk -v RS= '/alloc_charge_folio/ { print "pages left: " $NF "\n" $0 }' $owners
	fi
	echo "#leaks-end"
}
