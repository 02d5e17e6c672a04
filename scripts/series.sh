# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The series: patches/*.patch, and the files that each of them brings along, named
# in its "Overlay:" lines. To be sourced after lib.sh.

# Where the files are that patches bring along.
OVERLAY_DIRS=(Documentation Kconfig mm rust samples tools)

overlay_of() { sed -n 's/^Overlay: //p' "$1"; }

# Patches that fix the kernel's own code and are right without the rest. They come first: the
# others bring files along, or need one that does.
fixes() {
	local patch
	for patch in "$TOP"/patches/*.patch; do
		! grep -q '^Overlay: ' "$patch" || return 0
		echo "$patch"
	done
}

patched_by() { sed -n 's,^--- a/\([^\t]*\).*,\1,p' "$1"; }

subject_of() { sed -n 's/^Subject: \[PATCH\] //p' "$1"; }

# The commit message, without what is only for us.
message_of() { sed -e '/^---$/,$d' -e '/^Overlay: /d' -e 's/^Subject: \[PATCH\] //' "$1"; }

# Where a file of this repository belongs in the kernel tree.
kernel_path() {
	case $1 in
	Kconfig) echo mm/Kconfig.collapse_file ;;
	*) echo "$1" ;;
	esac
}

# Who has applied or mails the series: git's identity, or what the machine knows.
our_name() { git -C "$TOP" config user.name || id -un; }
our_email() { git -C "$TOP" config user.email || echo "$(id -un)@$(hostname)"; }

# A patch, with that identity where MAINTAINERS wants a person.
patch_text() {
	# shellcheck disable=SC2016
	NAME=$(our_name) EMAIL=$(our_email) perl -pe 's/\@NAME\@/$ENV{NAME}/; s/\@EMAIL\@/$ENV{EMAIL}/' "$1"
}

# Is this a kernel tree?
#   check_is_kernel_tree DIR
check_is_kernel_tree() {
	[ -d "$1" ] || die "KSRC=$1 is not a directory"
	[ -f "$1/mm/khugepaged.c" ] && [ -f "$1/Makefile" ] ||
		die "KSRC=$1 is not a kernel source tree: mm/khugepaged.c is not there"
}

# Version and patch level, or all of it with the argument "full".
#   kernel_version DIR [full]
kernel_version() {
	awk -v full="${2:-}" '/^VERSION =/ { v = $3 } /^PATCHLEVEL =/ { v = v "." $3 }
		/^SUBLEVEL =/ && full { v = v "." $3 } /^EXTRAVERSION =/ && full { v = v $3 } /^NAME =/ { exit }
		END { print v }' "$1/Makefile"
}

# And one of the right series?
#   check_kernel_tree DIR
check_kernel_tree() {
	local version
	check_is_kernel_tree "$1"
	version=$(kernel_version "$1")
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
	# Some only bring files along.
	[ -n "$(patched_by "$1")" ] || return 0
	if ! out=$(patch_text "$1" | patch -p1 -F2 --dry-run --force 2>&1); then
		printf '%s\n' "$out" >&2
		out=$(printf '%s\n' "$out" | awk '/^checking file/ { f = $3 } /FAILED|can.t find/ { print f ": " $0; exit }')
		die "${1#"$TOP"/} does not apply ($out): the kernel has changed there, fix the patch"
	fi
	patch_text "$1" | patch -p1 -F2 --no-backup-if-mismatch --force --quiet
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

# Make the series commits in the git tree DIR.
#   commit_series DIR [OPTION OF GIT COMMIT...]
commit_series() {
	local dir=$1 patch file
	shift
	for patch in "$TOP"/patches/*.patch; do
		say "$(subject_of "$patch")"
		(cd "$dir" && apply_patch "$patch")
		apply_overlay "$patch" "$dir"
		# By name, as trees have rules that would have git overlook new files: Debian's ignores all.
		{
			patched_by "$patch"
			for file in $(overlay_of "$patch"); do kernel_path "$file"; done
		} | git -C "$dir" add -f --pathspec-from-file=-
		message_of "$patch" | git -C "$dir" -c user.name="$(our_name)" -c user.email="$(our_email)" \
			commit -q "$@" -F -
	done
}

# What no patch names never gets into a kernel tree.
overlay_is_whole() {
	diff <(cd "$TOP" && git ls-files -co --exclude-standard -- "${OVERLAY_DIRS[@]}" | sort) \
		<(sed -n 's/^Overlay: //p' "$TOP"/patches/*.patch | sort)
}
