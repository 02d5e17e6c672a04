#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests of the series in the form in which it is mailed. The tests use a copy of this repository,
# and a tree of the files that the series touches. `make patches-check` applies the series to a
# whole kernel tree and builds it.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
. "$TOP/scripts/series.sh"
set +e

repo=$tap_dir/repo
tree=$tap_dir/tree
as=(-c user.name=Tester -c user.email=tester@localhost)

copy_of_us() {
	mkdir -p "$repo/build/linux" &&
		(cd "$TOP" && git ls-files -co --exclude-standard -z) | rsync -a --from0 --files-from=- "$TOP/" "$repo/" &&
		cp -r "$BUILD/pristine" "$repo/build/" && cp "$BUILD/linux/Makefile" "$repo/build/linux/" &&
		git -C "$repo" init -q && git -C "$repo" config user.name Tester &&
		git -C "$repo" config user.email tester@localhost &&
		git -C "$repo" add -A && git -C "$repo" commit -q -m all
}

pristine_tree() {
	mkdir -p "$tree" && cp -r "$BUILD/pristine/." "$tree/" && cp "$BUILD/linux/Makefile" "$tree/" &&
		git -C "$tree" init -q && git -C "$tree" add -A && git -C "$tree" "${as[@]}" commit -q -m base
}

patches() { "$repo/scripts/patches.sh"; }
count() { find "$repo/build/patches" -name '*.patch' | wc -l; }
again_the_same() {
	cp -r "$repo/build/patches" "$tap_dir/first" && patches && diff -r "$tap_dir/first" "$repo/build/patches"
}
signed_off() { [ "$(grep -l '^Signed-off-by: Tester <tester@localhost>$' "$repo"/build/patches/*.patch | wc -l)" -eq "$n" ]; }
for_us_only() { ! grep -rq '^Overlay: ' "$repo/build/patches" && ! grep -rqE '@[A-Z]+@' "$repo/build/patches"; }
cover_has() { grep -qF "$1" "$repo"/build/patches/*0000-cover-letter.patch; }

fails() {
	local status=$1 pattern=$2 got
	shift 2
	"$@" >"$tap_dir/out" 2>&1 </dev/null
	got=$?
	cat "$tap_dir/out"
	[ "$got" -eq "$status" ] && grep -qE "$pattern" "$tap_dir/out"
}
says() { fails 0 "$@"; }

n=$(find "$TOP/patches" -maxdepth 1 -name '*.patch' | wc -l)

tap "a copy of this repository" copy_of_us
tap "the patches are made" says 'patches and a cover letter are in' patches
tap "one for each, and a cover letter" test "$(count)" -eq $((n + 1))
tap "the same ones again" again_the_same
tap "each is signed off" signed_off
tap "they have no lines for this repository only" for_us_only
tap "the cover letter lists what was not measured" cover_has 'random histories with C and with Rust: not run (make fuzz)'
tap "a second version" says 'cover letter' env REROLL=2 "$repo/scripts/patches.sh"
tap "says so" test -e "$repo/build/patches/v2-0000-cover-letter.patch"
patches >/dev/null 2>&1

am() {
	local patch
	for patch in "$repo"/build/patches/*.patch; do
		[[ $patch == *0000-cover-letter.patch ]] || git -C "$tree" "${as[@]}" am -q "$patch" || return
	done
}
tap "a tree of what the series touches" pristine_tree
tap "make apply takes it" "$repo/scripts/apply.sh" "$tree" "$tap_dir/applied"
tap "git am takes them" am
tap "both trees are the same" diff -r --exclude=.git "$tree" "$tap_dir/applied"

port="$repo/scripts/port-check.sh"
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
tap "uncommitted changes give a warning" says '^warning: .* uncommitted changes: mm/collapse_file.rs' patches
tap "also in the cover letter" cover_has 'with uncommitted changes'
touch "$repo/mm/stray.rs"
tap "a file of no patch is an error" fails 1 '^error: files are not in exactly one patch: mm/stray.rs' patches
rm "$repo/mm/stray.rs"
git -C "$repo" mv mm/khugepaged.h mm/gone.h
tap "and a file that is gone" fails 1 "^error: files are not in exactly one patch: mm/gone.h mm/khugepaged.h .which does not exist." patches
git -C "$repo" reset -q --hard

tap "REROLL is not a number" fails 2 '^error: wrong version number .REROLL=x.; set' env REROLL=x "$repo/scripts/patches.sh"
tap "arguments are not taken" fails 2 '^usage:' "$repo/scripts/patches.sh" x
tap "nor by the check" fails 2 '^usage:' "$repo/scripts/patches-check.sh" x
tap "BUILDS is not a kernel" fails 2 '^error: unknown kernel .BUILDS=none-such, ' env BUILDS=none-such "$repo/scripts/patches-check.sh"
tap "no tree to check a port to" fails 2 '^usage:' "$port"
tap "the tree does not exist" fails 1 '^error: no such directory .KSRC=.*; set' "$port" "$tap_dir/none"
tap "no tree for checkpatch" fails 2 '^usage:' "$repo/scripts/checkpatch.sh" "$tap_dir"
rm -rf "$repo/build/patches"
tap "nothing to check" fails 1 "^error: build/patches has no patches; run 'make patches'" "$repo/scripts/patches-check.sh"
git -C "$repo" config --unset user.name
tap "no name for Signed-off-by" fails 1 "^error: git has no name or email for Signed-off-by; run" env GIT_CONFIG_GLOBAL=/dev/null "$repo/scripts/patches.sh"
tap_end
