#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests of the series in the form in which it is mailed. The tests use a copy of this repository,
# and a tree of the files that the series touches. `make patches-check` applies the series to a
# whole kernel tree and builds it.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
. "$TOP/scripts/series/series.sh"
set +e

repo=$tap_dir/repo
tree=$tap_dir/tree
as=(-c user.name=Tester -c user.email=tester@localhost)

copy_of_us() {
	mkdir -p "$repo/build" && ln -s "$BUILD/linux" "$repo/build/linux" &&
		(cd "$TOP" && git ls-files -co --exclude-standard -z) | rsync -a --from0 --files-from=- "$TOP/" "$repo/" &&
		cp -r "$BUILD/pristine" "$repo/build/" &&
		git -C "$repo" init -q && git -C "$repo" config user.name Tester &&
		git -C "$repo" config user.email tester@localhost &&
		git -C "$repo" add -A && git -C "$repo" commit -q -m all
}

pristine_tree() {
	mkdir -p "$tree" && cp -r "$BUILD/pristine/." "$tree/" && cp "$BUILD/linux/Makefile" "$tree/" &&
		git -C "$tree" init -q && git -C "$tree" add -A && git -C "$tree" "${as[@]}" commit -q -m base
}

patches() { "$repo/scripts/series/patches.sh"; }
some_patches() { SERIES=extras patches; }
mails=$repo/build/patches
count() { find "$mails/$1" -name '*.patch' ! -name '*0000-cover-letter.patch' | wc -l; }
all_are_there() { [ $(($(count fixes) + $(count rfc) + $(count extras))) -eq "$n" ]; }
again_the_same() { cp -r "$mails/extras" "$tap_dir/first" && some_patches && diff -r "$tap_dir/first" "$mails/extras"; }
signed_off() { [ "$(grep -rl '^Signed-off-by: Tester <tester@localhost>$' "$mails" | wc -l)" -eq "$n" ]; }
for_us_only() { ! grep -rq '^Overlay: ' "$mails" && ! grep -rqE '@[A-Z]+@' "$mails"; }
cover_has() { grep -qF "$1" "$mails"/extras/*0000-cover-letter.patch; }
# Letter, without the list of patches and files.
short_letter() { [ "$(sed '/^Tester (/,$d' "$mails/$1/0000-cover-letter.patch" | wc -l)" -le 80 ]; }
each_has_recipients() { [ "$(grep -rlE '^(To|Cc): .*@' "$mails" | wc -l)" -eq $((n + 3)) ]; }
# Mails for security@kernel.org go to no list, and are meant for stable kernels.
private() {
	local number mail numbers
	read -ra numbers < <(sed -n 's/^security //p' "$TOP/patches/postings")
	for number in "${numbers[@]}"; do
		mail=$(echo "$mails/fixes/$number"-*)
		sed '/^$/q' "$mail" >"$tap_dir/head"
		grep -q '^To: security@kernel.org' "$tap_dir/head" && ! grep -qE 'vger|linux-mm@' "$tap_dir/head" &&
			grep -q '^Cc: stable@vger.kernel.org' "$mail" || { echo "$mail"; return 1; }
	done
}
says() { fails 0 "$@"; }

n=$(find "$TOP/patches" -maxdepth 1 -name '*.patch' | wc -l)

tap "a copy of this repository" copy_of_us
tap "the patches are made" says 'patches and a cover letter are in' patches
tap "each is in one posting" all_are_there
tap "the RFC has at most 15" test "$(count rfc)" -le 15
tap "each is signed off" signed_off
tap "they have no lines for this repository only" for_us_only
tap "each mail has recipients" each_has_recipients
tap "fixes of leaks and lost data are private, and for stable" private
for posting in fixes rfc extras; do tap "the letter of $posting is short" short_letter $posting; done
tap "the same ones again" again_the_same
tap "the cover letter lists what was not measured" cover_has 'tests cover: not run (make coverage)'
tap "a second version" says 'cover letter' env REROLL=2 SERIES=extras "$repo/scripts/series/patches.sh"
tap "says so" test -e "$mails/extras/v2-0000-cover-letter.patch"
some_patches >/dev/null 2>&1

am() {
	local patch
	for patch in "$mails/$1"/*.patch; do
		[[ $patch == *0000-cover-letter.patch ]] || git -C "$tree" "${as[@]}" am -q "$patch" || return
	done
}
same_tree() { diff -r --exclude=.git "$tree" "$tap_dir/$1"; }
tap "a tree of what the series touches" pristine_tree
tap "make apply takes it" "$repo/scripts/series/apply.sh" "$tree" "$tap_dir/applied"
tap "and a part of it" env SERIES=rfc "$repo/scripts/series/apply.sh" "$tree" "$tap_dir/applied-rfc"
tap "git am takes the fixes" am fixes
tap "git am takes the RFC" am rfc
tap "both trees are the same" same_tree applied-rfc
tap "git am takes the extras" am extras
tap "both trees are still the same" same_tree applied

port="$repo/scripts/series/port-check.sh"
rm -rf "$tree"
pristine_tree
before=$(git -C "$tree" status --porcelain)
tap "all patches fit the tree they are for" says "all $n patches fit Linux $LINUX_SERIES" "$port" "$tree"
sed -i 's/^PATCHLEVEL = .*/PATCHLEVEL = 99/' "$tree/Makefile"
tap "another version may fit as well" says "all $n patches fit Linux [0-9]+\.99" "$port" "$tree"
sed -i '/&alloc_sleep_millisecs_attr.attr,/d' "$tree/mm/khugepaged.c"
tap "a hunk that does not fit is printed" fails 1 '^    mm/khugepaged.c: Hunk #[0-9]+ FAILED' "$port" "$tree"
tap "and the number of patches" fails 1 "^error: 1 of $n patches do not fit Linux .*CONTRIBUTING.md" "$port" "$tree"
touch "$tree/mm/khugepaged.h"
tap "and a file that exists already" fails 1 '^    mm/khugepaged.h: the kernel has a file with this name' "$port" "$tree"
git -C "$tree" checkout -q . && rm "$tree/mm/khugepaged.h"
tap "the tree is unchanged" test "$(git -C "$tree" status --porcelain)" = "$before"

echo '// changed' >>"$repo/mm/collapse_file.rs"
tap "uncommitted changes give a warning" says '^warning: .* uncommitted changes: mm/collapse_file.rs' some_patches
tap "also in the cover letter" cover_has 'with uncommitted changes'
touch "$repo/mm/stray.rs"
tap "a file of no patch is an error" fails 1 '^error: files are not in exactly one patch: mm/stray.rs' some_patches
rm "$repo/mm/stray.rs"
git -C "$repo" mv mm/khugepaged.h mm/gone.h
tap "and a file that is gone" fails 1 "^error: files are not in exactly one patch: mm/gone.h mm/khugepaged.h .which does not exist." some_patches
git -C "$repo" reset -q --hard
sed -i 's/bool "Count what/bool "Count all that/' "$repo/Kconfig"
tap "a file that differs from a patch of it" fails 1 '^error: patches/0044-.* does not agree with Kconfig; update its part' some_patches
git -C "$repo" reset -q --hard

tap "REROLL is not a number" fails 2 '^error: wrong version number .REROLL=x.; set' env REROLL=x "$repo/scripts/series/patches.sh"
tap "SERIES is not a posting" fails 1 '^error: there is no such posting .SERIES=x.; choose from fixes rfc extras' env SERIES=x "$repo/scripts/series/patches.sh"
tap "arguments are not taken" fails 2 '^usage:' "$repo/scripts/series/patches.sh" x
tap "nor by the check" fails 2 '^usage:' "$repo/scripts/series/patches-check.sh" x
tap "BUILDS is not a kernel" fails 2 '^error: unknown kernel .BUILDS=none-such, ' env BUILDS=none-such "$repo/scripts/series/patches-check.sh"
tap "no tree to check a port to" fails 2 '^usage:' "$port"
tap "the tree does not exist" fails 1 '^error: no such directory .KSRC=.*; set' "$port" "$tap_dir/none"
tap "no tree for checkpatch" fails 2 '^usage:' "$repo/scripts/series/checkpatch.sh" "$tap_dir"
rm -rf "$repo/build/patches"
tap "nothing to check" fails 1 "^error: build/patches has no patches .fixes.; run 'make patches'" "$repo/scripts/series/patches-check.sh"
git -C "$repo" config --unset user.name
tap "no name for Signed-off-by" fails 1 "^error: git has no name or email for Signed-off-by; run" env GIT_CONFIG_GLOBAL=/dev/null "$repo/scripts/series/patches.sh"
tap_end
