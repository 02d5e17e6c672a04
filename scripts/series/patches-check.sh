#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check whether build/patches can be mailed. The script applies each patch with git am to a pristine
# kernel tree, KSRC or Debian's, and builds the result. The last tree must be equal to the tree of
# `make apply`. checkpatch --strict then checks the patches.
#
#   [SERIES=NAME] [KSRC=DIR] [BUILDS="fast plain"|no] patches-check.sh
#
# With SERIES, only that posting is built and checked. Earlier postings are applied before it.
# BUILDS lists kernels of configs/. Of "plain", which has the option off, only the objects of the
# files that the series changes are built. All files are in build/patches-check, and the result is
# in build/results/series.json.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/series.sh"

[ $# -eq 0 ] || usage "[SERIES=NAME] [KSRC=DIR] [BUILDS='fast plain'|no] patches-check.sh"
read -ra builds <<<"${BUILDS:-fast plain}"
[ "${builds[*]}" != no ] || builds=()
for kernel in "${builds[@]}"; do
	[ -f "$TOP/configs/$kernel.config" ] ||
		{ echo "error: unknown kernel (BUILDS=${builds[*]}, no configs/$kernel.config); name kernels of configs/, or set BUILDS=no" >&2; exit 2; }
done
[ -z "${SERIES:-}" ] || posting >/dev/null
dirs=()
for name in $(postings); do
	compgen -G "$BUILD/patches/$name/*.patch" >/dev/null || die "build/patches has no patches ($name); run 'make patches'"
	dirs+=("$BUILD/patches/$name")
	[ "$name" != "${SERIES:-}" ] || break
done

work=$BUILD/patches-check
tree=$work/linux
mkdir -p "$work" "$LOGS"
if [ -n "${KSRC:-}" ]; then
	check_kernel_tree "$KSRC"
	KSRC=$(cd "$KSRC" && pwd)
	origin="$KSRC $(git -C "$KSRC" rev-parse HEAD 2>/dev/null || stat -c %Y "$KSRC/Makefile")"
else
	tarball=$("$TOP/scripts/build/fetch-kernel.sh")
	origin=$tarball
fi

# It takes minutes to add 95,000 files to git, so the tree is kept.
if [ "$(cat "$work/origin" 2>/dev/null)" != "$origin" ]; then
	need_space "$work" 6 "two git trees of the kernel"
	rm -rf "$tree" "$work/origin"
	if [ -e "${KSRC:-}/.git" ]; then
		say "cloning $KSRC"
		git clone -q --shared --no-tags "$KSRC" "$tree"
		git -C "$tree" checkout -q -b series
	else
		say "making a git tree of ${KSRC:-${tarball##*/}} (some minutes)"
		mkdir -p "$tree"
		if [ -n "${KSRC:-}" ]; then
			rsync -a --exclude='*.o' --exclude='*.cmd' "$KSRC/" "$tree/"
		else
			tar -xf "$tarball" -C "$tree" --strip-components=1
		fi
		git -C "$tree" init -q -b series
		# Debian's tree has a .gitignore rule that ignores every file.
		git -C "$tree" add -A -f
		git -C "$tree" -c user.name=base -c user.email=base@localhost commit -q -m "Linux $(kernel_version "$tree" full)"
	fi
	git -C "$tree" tag -f base >/dev/null
	echo "$origin" >"$work/origin"
fi

git -C "$tree" am --abort 2>/dev/null || true
git -C "$tree" checkout -q -f -B series base
version=$(kernel_version "$tree" full)
git -C "$tree" config user.name "$(our_name)"
git -C "$tree" config user.email "$(our_email)"

build_step() {
	local kernel
	for kernel in "${builds[@]}"; do
		case $kernel in
		plain) KERNEL_TREE=$tree "$TOP/scripts/build/build-kernel.sh" plain mm/khugepaged.o mm/shmem.o ;;
		*) KERNEL_TREE=$tree "$TOP/scripts/build/build-kernel.sh" "$kernel" ;;
		esac || return 1
	done
}

steps=0
for dir in "${dirs[@]}"; do
	for patch in "$dir"/*.patch; do
		[[ $patch != *0000-cover-letter.patch ]] || continue
		say "git am ${patch#"$BUILD/patches/"}"
		if ! git -C "$tree" am -q "$patch" >"$LOGS/patches-check.log" 2>&1; then
			cat "$LOGS/patches-check.log" >&2
			git -C "$tree" am --abort
			die "git am cannot apply ${patch#"$BUILD/patches/"} (Linux $version); run 'make patches' with the same KSRC"
		fi
		[ -z "${SERIES:-}" ] || [ "${dir##*/}" = "$SERIES" ] || continue
		steps=$((steps + 1))
		build_step || die "the tree does not build after ${patch##*/} (in ${tree#"$TOP"/}); fix the patch"
	done
done

say "applying the series with make apply"
rm -rf "$work/applied"
trap 'rm -rf "$work/applied"' EXIT
git -C "$tree" checkout -q -B pristine base
"$TOP/scripts/series/apply.sh" "$tree" "$work/applied" >"$LOGS/patches-apply.log" 2>&1 ||
	{ cat "$LOGS/patches-apply.log" >&2; die "make apply fails, but git am does not (Linux $version); see build/logs/patches-apply.log"; }
git -C "$tree" checkout -q series
git -C "$work/applied" fetch -q "$tree" series:am
if ! git -C "$work/applied" diff --exit-code --stat am rust-collapse-file; then
	die "git am and make apply make different trees (see above); run 'make patches' to update build/patches"
fi
say "git am and make apply make the same tree, of Linux $version"

"$TOP/scripts/series/checkpatch.sh" "$tree"

mkdir -p "$BUILD/results"
python3 - "$BUILD/results/series${SERIES:+-part}.json" "$version" "$steps" "${builds[@]}" <<'PYTHON'
import json
import sys

with open(sys.argv[1], "w") as file:
    json.dump({"linux": sys.argv[2], "patches": int(sys.argv[3]), "builds": sys.argv[4:]}, file, indent=1)
    file.write("\n")
PYTHON
say "$steps patches applied$([ ${#builds[@]} -eq 0 ] || echo ", each step built: ${builds[*]}")"
