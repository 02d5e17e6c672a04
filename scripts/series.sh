# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The series: patches/*.patch, and the files that each of them brings along, named
# in its "Overlay:" lines. To be sourced after lib.sh.

overlay_of() { sed -n 's/^Overlay: //p' "$1"; }

# Patches that bring nothing along mend the kernel's own code.
fixes() { grep -L '^Overlay: ' "$TOP"/patches/*.patch; }

patched_by() { sed -n 's,^--- a/\([^\t]*\).*,\1,p' "$1"; }

# Where a file of this repository belongs in the kernel tree.
kernel_path() {
	case $1 in
	Kconfig) echo mm/Kconfig.collapse_file ;;
	*) echo "$1" ;;
	esac
}

# Is this a kernel tree, and one of the right series?
#   check_kernel_tree DIR
check_kernel_tree() {
	local version
	[ -d "$1" ] || die "KSRC=$1 is not a directory"
	[ -f "$1/mm/khugepaged.c" ] && [ -f "$1/Makefile" ] ||
		die "KSRC=$1 is not a kernel source tree: mm/khugepaged.c is not there"
	version=$(awk '/^VERSION =/ { v = $3 } /^PATCHLEVEL =/ { p = $3 } END { print v "." p }' "$1/Makefile")
	[ "$version" = "$LINUX_SERIES" ] ||
		die "KSRC=$1 is Linux $version, and the series is for $LINUX_SERIES.y: check out a v$LINUX_SERIES tag"
	if [ -e "$1/.git" ] && [ -n "$(git -C "$1" status --porcelain --untracked-files=no | head -n 1)" ]; then
		die "KSRC=$1 has uncommitted changes: commit or stash them first"
	fi
}

# Apply one patch to the tree in the current directory, or say which hunk does
# not fit and leave the tree alone.
#   apply_patch PATCH
apply_patch() {
	local out
	if ! out=$(patch -p1 -F2 --dry-run --force <"$1" 2>&1); then
		printf '%s\n' "$out" >&2
		out=$(printf '%s\n' "$out" | awk '/^checking file/ { f = $3 } /FAILED|can.t find/ { print f ": " $0; exit }')
		die "${1#"$TOP"/} does not apply ($out): the kernel has changed there, mend the patch"
	fi
	patch -p1 -F2 --no-backup-if-mismatch --force --quiet <"$1"
}

# Copy what PATCH brings along into the tree DEST.
#   apply_overlay PATCH DEST
apply_overlay() {
	local file to
	for file in $(overlay_of "$1"); do
		to=$2/$(kernel_path "$file")
		mkdir -p "$(dirname "$to")"
		cp "$TOP/$file" "$to"
	done
}
