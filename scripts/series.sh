# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Functions for the series: patches/*.patch, and the files that the "Overlay:" lines of each patch
# name. Scripts source this file after lib.sh.

# The directories with the files that "Overlay:" lines name.
OVERLAY_DIRS=(Documentation Kconfig mm rust samples tools)

overlay_of() { sed -n 's/^Overlay: //p' "$1"; }

# Print the patches that fix the kernel's own code and do not depend on the rest. They come first.
# The other patches add files, or need a patch that does.
fixes() {
	local patch
	for patch in "$TOP"/patches/*.patch; do
		! grep -q '^Overlay: ' "$patch" || return 0
		echo "$patch"
	done
}

# Print the patches for a kernel release: those of the posting SERIES in patches/postings, or all.
# For another release, patches/ports/RELEASE has patches that replace ours, and the file left-out
# names those that the release does not need.
#   series_patches [RELEASE]
series_patches() {
	local port=$TOP/patches/ports/${1:-none} patch number first=0000 last=9999 other
	if [ -n "${SERIES:-}" ]; then
		read -r first last < <(sed -n "s/^$SERIES //p" "$TOP/patches/postings") ||
			die "there is no such posting (SERIES=$SERIES); patches/postings has their names"
	fi
	for patch in "$TOP"/patches/*.patch; do
		number=${patch##*/}
		number=${number%%-*}
		((10#$number >= 10#$first && 10#$number <= 10#$last)) || continue
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

# Copy the files that PATCH names into the tree DEST.
#   apply_overlay PATCH DEST
apply_overlay() {
	local file to
	for file in $(overlay_of "$1"); do
		to=$2/$(kernel_path "$file")
		mkdir -p "$(dirname "$to")"
		cp "$TOP/$file" "$to"
	done
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

# Check that each file belongs to exactly one patch. Other files do not get into a kernel tree.
overlay_is_whole() {
	diff <(cd "$TOP" && git ls-files -co --exclude-standard -- "${OVERLAY_DIRS[@]}" | sort) \
		<(sed -n 's/^Overlay: //p' "$TOP"/patches/*.patch | sort)
}
