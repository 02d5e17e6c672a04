#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Print which patches do not fit the kernel tree KSRC, of any version, and which of their hunks
# fail. The script does not change the tree and builds nothing.
#
#   port-check.sh KSRC

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/series.sh"

[ $# -eq 1 ] || usage "port-check.sh KERNEL-TREE"
[ -n "$1" ] || die "KSRC is empty; run 'make port-check KSRC=/path/to/linux'"
check_is_kernel_tree "$1"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
fit=0 misfit=0
patches=$(series_patches "$(kernel_version "$1")") || exit 1
for patch in $patches; do
	for file in $(kernels_own "$patch"); do
		mkdir -p "$stage/$(dirname "$file")"
		[ -e "$stage/$file" ] || [ ! -e "$1/$file" ] || cp "$1/$file" "$stage/$file"
	done
	wrong=$(
		if [ -n "$(patched_by "$patch")" ]; then
			# Hunks that fit are kept, because later patches may depend on them.
			patch_text "$patch" | (cd "$stage" && patch -p1 -F2 --no-backup-if-mismatch --force -r -) |
				awk '/^patching file/ { f = $3 } /^can.t find file/ { print "a file does not exist: " $0 }
					/^Hunk.*FAILED/ { print f ": " $0 }'
		fi
		for file in $(overlay_of "$patch"); do
			[ ! -e "$1/$(kernel_path "$file")" ] || echo "$(kernel_path "$file"): the kernel has a file with this name"
		done
		# Later patches may change these files.
		apply_overlay "$patch" "$stage"
	)
	if [ -z "$wrong" ]; then
		fit=$((fit + 1))
	else
		misfit=$((misfit + 1))
		echo "${patch##*/} does not fit:"
		printf '%s\n' "$wrong" | sed 's/^/    /'
	fi
done
version=$(kernel_version "$1" full)
[ $misfit -eq 0 ] || die "$misfit of $((fit + misfit)) patches do not fit Linux $version; refresh them, see CONTRIBUTING.md"
say "all $fit patches fit Linux $version; nothing was built"
