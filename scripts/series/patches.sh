#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Write the postings of patches/postings to build/patches/POSTING in the form in which they are
# mailed: a cover letter, and a patch for each of patches/*.patch with the files that it names. The
# recipients are from get_maintainer.pl. The script needs build/pristine and build/linux, which
# prepare-source.sh makes. The same sources and results give the same patches.
#
# SERIES=NAME writes only that posting. REROLL=2 makes it the second version.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/series.sh"

[ $# -eq 0 ] || usage "[SERIES=NAME] [REROLL=N] patches.sh"
[[ ${REROLL:-1} =~ ^[1-9][0-9]*$ ]] || { echo "error: wrong version number (REROLL=$REROLL); set REROLL to a positive number" >&2; exit 2; }
[ -z "${SERIES:-}" ] || posting >/dev/null
[ -d "$BUILD/pristine/mm" ] && [ -f "$BUILD/linux/Makefile" ] || die "no kernel source (${BUILD#"$TOP"/}/pristine); run 'make patches'"
name=$(git -C "$TOP" config user.name) && email=$(git -C "$TOP" config user.email) ||
	die "git has no name or email for Signed-off-by; run 'git config --global user.name NAME', and the same for user.email"
outside=$(overlay_is_whole | sed -n 's/^< //p; s/^> \(.*\)/\1 (which does not exist)/p' | paste -sd' ') || true
[ -z "$outside" ] || die "files are not in exactly one patch: $outside; fix the 'Overlay:' lines in patches/"

commit=$(git -C "$TOP" describe --always --abbrev=12)
changed=$(git -C "$TOP" status --porcelain -- patches "${OVERLAY_DIRS[@]}" "${NOT_IN_KERNEL[@]/#/:!}" | sed 's/^...//; s/.* -> //' | paste -sd' ')
if [ -n "$changed" ]; then
	warn "the series contains uncommitted changes: $changed"
	commit="$commit with uncommitted changes"
fi

part=$BUILD/patches.part
tree=$part/tree
rm -rf "$part"
trap 'rm -rf "$part"' EXIT
mkdir -p "$tree"

# git needs only the files that the series touches to make patches.
export GIT_AUTHOR_DATE GIT_COMMITTER_DATE GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
GIT_AUTHOR_DATE=$(git -C "$TOP" log -1 --format=%cI)
GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE
our_name() { echo "$name"; }
our_email() { echo "$email"; }

git -C "$tree" init -q -b series
git -C "$tree" config user.name "$name"
git -C "$tree" config user.email "$email"
git -C "$tree" config core.abbrev 12
while read -r file; do
	mkdir -p "$tree/$(dirname "$file")"
	cp "$BUILD/pristine/$file" "$tree/$file"
done < <(for patch in "$TOP"/patches/*.patch; do kernels_own "$patch"; done | sort -u)
cp "$BUILD/linux/Makefile" "$tree/"
git -C "$tree" add -f -A
git -C "$tree" commit -q -m "Linux"
git -C "$tree" tag base
commit_series "$tree" --signoff

linux=$(kernel_version "$BUILD/linux" full)
# The commit on which the patches are based, if the kernel came from a git tree.
read -r _ upstream <"$BUILD/linux/.origin" || true
mapfile -t patches < <(series_patches)
mapfile -t commits < <(git -C "$tree" rev-list --reverse base..series)

# Write the mails of a posting, except the recipients.
#   write_posting NAME
write_posting() {
	local range after=base last=base i number prefix=PATCH reroll=()
	range=$(SERIES=$1 posting)
	for i in "${!patches[@]}"; do
		number=$(number_of "${patches[i]}")
		if ((10#$number < 10#${range% *})); then
			after=${commits[i]}
		elif ((10#$number <= 10#${range#* })); then
			last=${commits[i]}
		fi
	done
	# The extras need the RFC.
	[ "$1" = fixes ] || prefix="RFC PATCH"
	[ "${REROLL:-1}" -eq 1 ] || reroll=("--reroll-count=$REROLL")
	"$TOP/scripts/series/cover-letter.py" "$1" "$linux" "$commit" >"$part/cover-letter"
	git -C "$tree" config branch.series.description "$(cat "$part/cover-letter")"
	git -C "$tree" checkout -q -B series "$last"
	git -C "$tree" format-patch -q -o "$part/$1" --cover-letter --cover-from-description=subject --zero-commit \
		--no-signature --subject-prefix="$prefix" --base=base "${reroll[@]}" "$after..series"
	if [[ ${upstream:-} =~ ^[0-9a-f]{40}$ ]]; then
		sed -i "s/^base-commit: .*/base-commit: $upstream/" "$part/$1"/*.patch
	else
		sed -i "s/^base-commit: .*/base: Linux $linux as Debian ships it/" "$part/$1"/*.patch
	fi
}

# Print the file names of the mails that go to security@kernel.org first.
#   security_mails NAME
security_mails() {
	local number numbers
	[ "$1" = fixes ] || return 0
	read -ra numbers < <(sed -n 's/^security //p' "$TOP/patches/postings")
	for number in "${numbers[@]}"; do
		basename "$part/$1"/*"$number"-*.patch
	done
}

for posting in ${SERIES:-$(postings)}; do
	write_posting "$posting"
	# shellcheck disable=SC2046
	"$TOP/scripts/series/recipients.py" "$part/$posting" "$BUILD/linux" "$BUILD/pristine/MAINTAINERS" $(security_mails "$posting")
	rm -rf "${BUILD:?}/patches/$posting"
	mkdir -p "$BUILD/patches"
	mv "$part/$posting" "$BUILD/patches/$posting"
	count=$(find "$BUILD/patches/$posting" -name '*.patch' | wc -l)
	say "$((count - 1)) patches and a cover letter are in ${BUILD#"$TOP"/}/patches/$posting, signed off by $name <$email>"
done
