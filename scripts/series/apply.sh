#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Apply the series to a copy of a kernel tree, which is not changed:
#
#   apply.sh KSRC DEST
#
# If KSRC is a git tree, DEST becomes a clone that shares its objects. The clone has a branch
# rust-collapse-file with one commit for each patch. Otherwise DEST becomes a plain copy.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/series.sh"

[ $# -eq 2 ] || usage "apply.sh KSRC DEST"
[ -n "$1" ] || die "KSRC is empty; run 'make apply KSRC=/path/to/linux-$LINUX_SERIES'"
ksrc=$1
dest=$2
check_kernel_tree "$ksrc"
ksrc=$(cd "$ksrc" && pwd)
[ ! -e "$dest" ] || die "the destination exists ($dest); remove it, or set DEST to another path"
mkdir -p "$(dirname "$dest")"
need_space "$(dirname "$dest")" 3 "a copy of a kernel tree"

part=$dest.part
rm -rf "$part"
trap 'rm -rf "$part"' EXIT

if [ -e "$ksrc/.git" ]; then
	say "cloning $ksrc"
	git clone -q --shared --no-tags "$ksrc" "$part" 2>/dev/null || die "git cannot clone the tree (KSRC=$ksrc); use a complete clone"
	git -C "$part" checkout -q -b rust-collapse-file
else
	say "copying $ksrc"
	rsync -a "$ksrc/" "$part/"
fi

if [ -e "$part/.git" ]; then
	commit_series "$part"
else
	patches=$(series_patches "$(kernel_version "$part")") || exit 1
	for patch in $patches; do
		say "$(subject_of "$patch")"
		(cd "$part" && apply_patch "$patch")
		apply_overlay "$patch" "$part"
	done
fi

mv "$part" "$dest"
trap - EXIT
say "the series is in $dest$([ ! -e "$dest/.git" ] || echo ", on branch rust-collapse-file")"
