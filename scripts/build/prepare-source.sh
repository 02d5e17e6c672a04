#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make build/linux a kernel tree with the series applied, from Debian's tarball or from a copy of
# the tree KSRC. A second run changes only files with new content, so that builds stay incremental.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../series/series.sh"

[ $# -eq 0 ] || usage "prepare-source.sh"

linux=$BUILD/linux
# The kernel's own versions of the files that the series patches.
pristine=$BUILD/pristine
mkdir -p "$BUILD"

if [ -n "${KSRC:-}" ]; then
	check_kernel_tree "$KSRC"
	KSRC=$(cd "$KSRC" && pwd)
	origin="$KSRC $(git -C "$KSRC" rev-parse HEAD 2>/dev/null || true)"
else
	tarball=$("$TOP/scripts/build/fetch-kernel.sh")
	origin=$tarball
fi

if [ "$(cat "$linux/.origin" 2>/dev/null)" != "$origin" ]; then
	need_space "$BUILD" 5 "a kernel tree with its builds"
	rm -rf "$linux" "$linux.part" "$pristine"
	mkdir -p "$linux.part"
	if [ -z "${KSRC:-}" ]; then
		say "unpacking ${tarball##*/}"
		tar -xf "$tarball" -C "$linux.part" --strip-components=1
	elif [ -e "$KSRC/.git" ]; then
		say "copying HEAD of $KSRC"
		git -C "$KSRC" archive HEAD | tar -xf - -C "$linux.part"
	else
		say "copying $KSRC"
		rsync -a --exclude='*.o' --exclude='*.cmd' --exclude=.config --exclude=/include/generated \
			--exclude=/include/config "$KSRC/" "$linux.part/"
	fi
	check_kernel_tree "$linux.part"
	echo "$origin" >"$linux.part/.origin"
	mv "$linux.part" "$linux"
fi

stage=$(mktemp -d "$BUILD/stage.XXXXXX")
trap 'rm -rf "$stage"' EXIT

for patch in "$TOP"/patches/*.patch; do
	for file in $(kernels_own "$patch"); do
		if [ ! -e "$pristine/$file" ]; then
			mkdir -p "$pristine/$(dirname "$file")"
			cp "$linux/$file" "$pristine/$file"
		fi
		mkdir -p "$stage/$(dirname "$file")"
		[ -e "$stage/$file" ] || cp "$pristine/$file" "$stage/$file"
	done
	(cd "$stage" && apply_patch "$patch")
	apply_overlay "$patch" "$stage"
done

# Remove or restore files that only an earlier version of the series added or patched.
(cd "$stage" && find . -type f | sort) >"$BUILD/manifest.new"
if [ -f "$BUILD/manifest" ]; then
	comm -23 "$BUILD/manifest" "$BUILD/manifest.new" | while read -r file; do
		if [ -e "$pristine/$file" ]; then
			cp "$pristine/$file" "$linux/$file"
		else
			rm -f "$linux/$file"
		fi
	done
fi
mv "$BUILD/manifest.new" "$BUILD/manifest"
rsync -rc "$stage/" "$linux/"
