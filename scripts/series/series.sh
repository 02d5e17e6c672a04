# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Functions for the series: patches/*.patch, and the files that the "Overlay:" lines of each patch
# name. Scripts source this file after lib.sh.

# The directories with the files that "Overlay:" lines name, and what of them stays in this
# repository.
OVERLAY_DIRS=(Documentation Kconfig mm rust samples tools)
NOT_IN_KERNEL=(tools/mm/collapse_file_demo.c tools/testing/collapse_file)

overlay_of() { sed -n 's/^Overlay: //p' "$1"; }

# Print first and last number of the posting SERIES in patches/postings.
posting() {
	grep -E "^$SERIES [0-9]{4} [0-9]{4}$" "$TOP/patches/postings" | cut -d' ' -f2- | grep . ||
		die "there is no such posting (SERIES=$SERIES); choose from $(postings | paste -sd' ')"
}

postings() { sed -nE 's/^([a-z]+) [0-9]{4} [0-9]{4}$/\1/p' "$TOP/patches/postings"; }

# Print the number of a patch.
number_of() {
	local number=${1##*/}
	echo "${number%%-*}"
}

# Print the patches for a kernel release: those up to the end of the posting SERIES, or all. For
# another release, patches/ports/RELEASE has patches that replace ours, and the file left-out names
# those that the release does not need.
#   series_patches [RELEASE]
series_patches() {
	local port=$TOP/patches/ports/${1:-none} patch number range=9999 other
	if [ -n "${SERIES:-}" ]; then
		range=$(posting) || return
	fi
	for patch in "$TOP"/patches/*.patch; do
		number=$(number_of "$patch")
		((10#$number <= 10#${range##* })) || break
		if [ -d "$port" ]; then
			! grep -q "^$number " "$port/left-out" || continue
			for other in "$port/$number"-*.patch; do
				[ ! -e "$other" ] || patch=$other
			done
		fi
		echo "$patch"
	done
}

patched_by() { sed -n 's,^--- a/\([^\t]*\).*,\1,p' "$1"; }

subject_of() { sed -n 's/^Subject: \[PATCH\] //p' "$1"; }

# Print the commit message without the lines that are only for this repository.
message_of() { sed -e '/^---$/,$d' -e '/^Overlay: /d' -e 's/^Subject: \[PATCH\] //' "$1"; }

# Print the path of a file of this repository in the kernel tree.
kernel_path() {
	case $1 in
	Kconfig) echo mm/Kconfig.collapse_file ;;
	*) echo "$1" ;;
	esac
}

# Print the name and email of the committer: git's identity, or the user and host name.
our_name() { git -C "$TOP" config user.name || id -un; }
our_email() { git -C "$TOP" config user.email || echo "$(id -un)@$(hostname)"; }

# Print a patch, with that identity in the MAINTAINERS entry.
patch_text() {
	# shellcheck disable=SC2016
	NAME=$(our_name) EMAIL=$(our_email) perl -pe 's/\@NAME\@/$ENV{NAME}/; s/\@EMAIL\@/$ENV{EMAIL}/' "$1"
}

# Check that DIR is a kernel tree.
#   check_is_kernel_tree DIR
check_is_kernel_tree() {
	[ -d "$1" ] || die "no such directory (KSRC=$1); set KSRC to a kernel source tree"
	[ -f "$1/mm/khugepaged.c" ] && [ -f "$1/Makefile" ] ||
		die "not a kernel source tree (KSRC=$1, no Makefile or mm/khugepaged.c); set KSRC to one"
}

# Print version and patch level, or the full version with the argument "full".
#   kernel_version DIR [full]
kernel_version() {
	awk -v full="${2:-}" '/^VERSION =/ { v = $3 } /^PATCHLEVEL =/ { v = v "." $3 }
		/^SUBLEVEL =/ && full { v = v "." $3 } /^EXTRAVERSION =/ && full { v = v $3 } /^NAME =/ { exit }
		END { print v }' "$1/Makefile"
}

# Check that DIR is a kernel tree of the right version, without uncommitted changes.
#   check_kernel_tree DIR
check_kernel_tree() {
	local version
	check_is_kernel_tree "$1"
	version=$(kernel_version "$1")
	[ "$version" = "$LINUX_SERIES" ] || { [ "${SERIES:-}" = fixes ] && [ -d "$TOP/patches/ports/$version" ]; } ||
		die "wrong kernel version (KSRC=$1 is Linux $version); check out a v$LINUX_SERIES tag"
	if [ -e "$1/.git" ] && [ -n "$(git -C "$1" status --porcelain --untracked-files=no | head -n 1)" ]; then
		die "the tree has uncommitted changes (KSRC=$1); commit or stash them first"
	fi
}

# Apply a patch to the tree in the current directory. If a hunk does not fit, print it and do not
# change the tree.
#   apply_patch PATCH
apply_patch() {
	local out
	# Some patches only add files.
	[ -n "$(patched_by "$1")" ] || return 0
	if ! out=$(patch_text "$1" | patch -p1 -F2 --dry-run --force 2>&1); then
		printf '%s\n' "$out" >&2
		out=$(printf '%s\n' "$out" | awk '/^checking file/ { f = $3 } /FAILED|can.t find/ { print f ": " $0; exit }')
		die "${1#"$TOP"/} does not apply ($out); refresh the patch for this kernel"
	fi
	patch_text "$1" | patch -p1 -F2 --no-backup-if-mismatch --force --quiet
}

# Print the part of PATCH that changes FILE of the kernel tree.
part_for() { awk -v file="a/$2" '/^diff --git / { on = $3 == file } on' "$1"; }

# Copy the files that PATCH adds into the tree DEST. This repository has their last versions. If
# later patches change a file, those changes are taken back.
#   apply_overlay PATCH DEST
apply_overlay() {
	local file to patches later
	for file in $(overlay_of "$1"); do
		to=$(kernel_path "$file")
		mkdir -p "$(dirname "$2/$to")"
		cp "$TOP/$file" "$2/$to"
		mapfile -t patches < <(grep -lF "diff --git a/$to b/$to" "$TOP"/patches/*.patch | sort -r)
		for later in "${patches[@]}"; do
			part_for "$later" "$to" | (cd "$2" && patch -R -p1 --no-backup-if-mismatch --force --quiet) ||
				die "${later#"$TOP"/} does not agree with $file; update its part for $to"
		done
	done
}

# Print the files of the kernel that PATCH changes, without those that the series adds.
kernels_own() {
	local patch file
	comm -23 <(patched_by "$1" | sort) <(
		for patch in "$TOP"/patches/*.patch; do overlay_of "$patch"; done |
			while read -r file; do kernel_path "$file"; done | sort
	)
}

# Commit the series, one commit for each patch, in the git tree DIR.
#   commit_series DIR [OPTION OF GIT COMMIT...]
commit_series() {
	local dir=$1 patch patches file
	shift
	patches=$(series_patches "$(kernel_version "$dir")") || exit 1
	for patch in $patches; do
		say "$(subject_of "$patch")"
		(cd "$dir" && apply_patch "$patch")
		apply_overlay "$patch" "$dir"
		# The files are added by name and with -f, because Debian's tree ignores all new files.
		{
			patched_by "$patch"
			for file in $(overlay_of "$patch"); do kernel_path "$file"; done
		} | git -C "$dir" add -f --pathspec-from-file=-
		message_of "$patch" | git -C "$dir" -c user.name="$(our_name)" -c user.email="$(our_email)" \
			commit -q "$@" -F -
	done
}

# Check that each file is added by exactly one patch. Other files do not get into a kernel tree.
overlay_is_whole() {
	diff <(cd "$TOP" && git ls-files -co --exclude-standard -- "${OVERLAY_DIRS[@]}" "${NOT_IN_KERNEL[@]/#/:!}" | sort) \
		<(sed -n 's/^Overlay: //p' "$TOP"/patches/*.patch | sort)
}
