#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Write the series to build/patches in the form in which it is mailed: a cover letter, and a patch
# for each of patches/*.patch with the files that it names. The script needs build/pristine, which
# prepare-source.sh makes. The same sources and results give the same patches.
#
# REROLL=2 makes it the second version.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/series.sh"

[ $# -eq 0 ] || usage "[REROLL=N] patches.sh"
[[ ${REROLL:-1} =~ ^[1-9][0-9]*$ ]] || { echo "error: wrong version number (REROLL=$REROLL); set REROLL to a positive number" >&2; exit 2; }
[ -d "$BUILD/pristine/mm" ] && [ -f "$BUILD/linux/Makefile" ] || die "no kernel source (${BUILD#"$TOP"/}/pristine); run 'make patches'"
name=$(git -C "$TOP" config user.name) && email=$(git -C "$TOP" config user.email) ||
	die "git has no name or email for Signed-off-by; run 'git config --global user.name NAME', and the same for user.email"
outside=$(overlay_is_whole | sed -n 's/^< //p; s/^> \(.*\)/\1 (which does not exist)/p' | paste -sd' ') || true
[ -z "$outside" ] || die "files are not in exactly one patch: $outside; fix the 'Overlay:' lines in patches/"

commit=$(git -C "$TOP" describe --always --abbrev=12)
changed=$(git -C "$TOP" status --porcelain -- patches "${OVERLAY_DIRS[@]}" | sed 's/^...//; s/.* -> //' | paste -sd' ')
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
done < <(for patch in "$TOP"/patches/*.patch; do patched_by "$patch"; done | sort -u)
git -C "$tree" add -f -A
git -C "$tree" commit -q -m "Linux"
git -C "$tree" tag base
commit_series "$tree" --signoff

"$TOP/scripts/cover-letter.py" "$(kernel_version "$BUILD/linux" full)" "$commit" >"$part/cover-letter"
git -C "$tree" config branch.series.description "$(cat "$part/cover-letter")"
reroll=()
[ "${REROLL:-1}" -eq 1 ] || reroll=("--reroll-count=$REROLL")
git -C "$tree" format-patch -q -o "$part/patches" --cover-letter --cover-from-description=subject --zero-commit \
	--no-signature --to=linux-mm@kvack.org --cc=rust-for-linux@vger.kernel.org --cc=linux-kernel@vger.kernel.org \
	"${reroll[@]}" base..series

rm -rf "$BUILD/patches"
mv "$part/patches" "$BUILD/patches"
count=$(find "$BUILD/patches" -name '*.patch' | wc -l)
say "$((count - 1)) patches and a cover letter are in ${BUILD#"$TOP"/}/patches, signed off by $name <$email>"
