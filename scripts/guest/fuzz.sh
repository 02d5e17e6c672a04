#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run collapse_fuzz in the guest. The cases are split equally between files on ext4, on xfs, and on
# xfs with blocks that are smaller than pages:
#
#   fuzz.sh CASES SEED
#   fuzz.sh -- OPTION...	run only collapse_fuzz with these options
#
# The output of a run is between a line "#fuzz FS" and a line "#end FS STATUS". Leaks follow after
# "#leaks".

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

[ "${1:-}" = -- ] || [ $# -eq 2 ] || { echo "usage: fuzz.sh CASES SEED | -- OPTION..." >&2; exit 2; }
if [ "$1" = -- ]; then
	shift
	"$bin/collapse_fuzz" "$@"
	exit
fi

fuzz() {
	local name=$1
	shift
	echo "#fuzz $name"
	"$bin/collapse_fuzz" "$@" 2>&1
	echo "#end $name $?"
}

cases=$1 seed=$2
fuzz self-test -T -s "$seed"
left=3
for fs in ext4 xfs xfs-small-blocks; do
	part=$((cases / left))
	fuzz $fs -d /run/$fs -c $part -s "$seed"
	cases=$((cases - part)) seed=$((seed + part)) left=$((left - 1))
done
fuzz concurrent -m concurrent -d /run/ext4 -c 10 -s "$seed"

leaks
