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
# The order in which the host attaches its images, or where else they are.
read -ra disks <<<"${DISKS:-/dev/vda /dev/vdb /dev/vdc /dev/vdd}"
mkdir -p /run/ext4 /run/xfs /run/xfs-small-blocks /run/tmpfs /run/work
mount -t ext4 "${disks[0]}" /run/ext4 && mount -t xfs "${disks[1]}" /run/xfs && swapon "${disks[2]}" &&
	mount -t xfs "${disks[3]}" /run/xfs-small-blocks ||
	{ echo "error: the disks are not there"; exit 1; }
mount -t tmpfs -o huge=advise none /run/tmpfs
# Some tests make files where they are, and map them to be executed, which not every /run allows.
mount -t tmpfs none /run/work

# Not to have the scheduler's code patched each time that a test begins to trace. QEMU's emulation was
# seen, once in some 60 guests, to deliver a breakpoint of the patching when that was long over.
echo 0 >/sys/kernel/tracing/options/record-cmd
# For collapse_file and collapse_file_results: files on disk.
export COLLAPSE_FILE_DIR=/run/xfs COLLAPSE_FILE_SMALL_BLOCKS_DIR=/run/xfs-small-blocks
# What the tests inject comes and goes with kprobes, which wait for RCU each time.
echo 1 >/sys/kernel/rcu_expedited
cd /run/work || exit 1

kmemleak=/sys/kernel/debug/kmemleak
[ ! -e $kmemleak ] || echo clear >$kmemleak

# What has been lost since, from a line "#leaks" on to "#leaks-end": objects that
# kmemleak finds, and, with the files gone, folios that a collapse has allocated.
leaks() {
	local owners=/sys/kernel/debug/page_owner_stacks/show_stacks
	echo "#leaks"
	if [ -e $kmemleak ]; then
		# Twice: what is on its way between two owners looks like a leak the first time.
		echo scan >$kmemleak
		sleep 6
		echo scan >$kmemleak
		# kunit_attach_mm() has one reference too many to the mm that it makes. What was allocated
		# before there was a process is of no test.
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
