#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Each script answers wrong input with one line that says what is wrong and how to fix it, and with a
# non-zero exit status. It does not change the user's files.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

# refuses PATTERN COMMAND...: the command fails with exactly one line of error, and the line matches.
refuses() {
	local pattern=$1 status
	shift
	"$@" >"$tap_dir/out" 2>"$tap_dir/err" </dev/null
	status=$?
	cat "$tap_dir/out" "$tap_dir/err"
	[ "$status" -ne 0 ] && [ "$(grep -c '^error: ' "$tap_dir/err")" -eq 1 ] &&
		grep -qE "^error: .*$pattern" "$tap_dir/err"
}

fake_tool() {
	mkdir -p "$tap_dir/bin"
	printf '#!/bin/sh\necho "%s"\n' "$2" >"$tap_dir/bin/$1"
	chmod +x "$tap_dir/bin/$1"
}

# The part of a kernel tree that the series touches.
#   fake_tree DIR VERSION PATCHLEVEL
fake_tree() {
	rm -rf "$1"
	mkdir -p "$1"
	cp -r "$BUILD/pristine/." "$1/"
	printf 'VERSION = %s\nPATCHLEVEL = %s\n' "$2" "$3" >"$1/Makefile"
}

git_tree() {
	fake_tree "$1" 7 3
	git -C "$1" init -q
	git -C "$1" add -A
	git -C "$1" -c user.name=test -c user.email=test@localhost commit -q -m base
}

unchanged() { [ "$(sums "$1")" = "$2" ]; }
sums() { (cd "$1" && find . -type f -not -path './.git/*' -exec sha256sum {} + | sort); }

kernel="$TOP/scripts/build/build-kernel.sh"
apply="$TOP/scripts/series/apply.sh"
prepare="$TOP/scripts/build/prepare-source.sh"
make=(make -C "$TOP")
debug_kernel=$BUILD/linux/build-debug/arch/x86/boot/bzImage
vm="$TOP/scripts/lib/vm.py"
host_test="$TOP/scripts/tests/host-test.py"

tap "rustc is missing" refuses 'a tool is missing .*/rustc.; install' env RUSTC="$tap_dir/none/rustc" "$kernel" fast
fake_tool rustc 'rustc 1.60.0 (fake)'
tap "rustc is too old" refuses 'too old .version 1.60.0, the kernel needs .*; install' env RUSTC="$tap_dir/bin/rustc" "$kernel" fast
tap "bindgen is missing" refuses 'a tool is missing .*/bindgen.; run' env BINDGEN="$tap_dir/none/bindgen" "$kernel" fast
fake_tool bindgen 'bindgen 0.60.1'
tap "bindgen is too old" refuses 'too old .version 0.60.1, the kernel needs' env BINDGEN="$tap_dir/bin/bindgen" "$kernel" fast
tap "clang is missing" refuses 'a tool is missing .clang-99.; install' env LLVM=-99 "$kernel" fast
fake_tool clang-98 'clang version 9.0.0'
tap "clang is too old" refuses 'clang-98 is too old .version 9.0.0, ' env LLVM=-98 PATH="$tap_dir/bin:$PATH" "$kernel" fast

fake_tool df '0'
tap "the disk is full: build" refuses 'needs 3 GiB in .* free some space' env PATH="$tap_dir/bin:$PATH" "$kernel" fast
tap "the disk is full: copy" refuses 'needs 3 GiB' env PATH="$tap_dir/bin:$PATH" "$apply" "$BUILD/linux" "$tap_dir/full"
rm "$tap_dir/bin/df"

tap "KSRC does not exist" refuses 'no such directory .KSRC=' env KSRC="$tap_dir/none" "$prepare"
mkdir "$tap_dir/empty"
tap "KSRC is not a kernel tree" refuses 'not a kernel source tree' env KSRC="$tap_dir/empty" "$prepare"
fake_tree "$tap_dir/old" 6 12
tap "KSRC is another version" refuses 'is Linux 6.12.; check out a v7.3 tag' env KSRC="$tap_dir/old" "$prepare"
tap "KSRC is not a kernel tree: host tests" refuses 'no kernel source .*; run .make source., or set KSRC' env KSRC="$tap_dir/empty" "$host_test"
tap "rustc is missing: host tests" refuses 'a tool is missing .*rustc.; run .make setup.' env RUSTC="$tap_dir/none/rustc" "$host_test"
tap "KSRC is another version: apply" refuses 'is Linux 6.12' "$apply" "$tap_dir/old" "$tap_dir/dest"
git_tree "$tap_dir/git"
echo '/* mine */' >>"$tap_dir/git/mm/khugepaged.c"
before=$(sums "$tap_dir/git")
tap "KSRC has uncommitted changes" refuses 'has uncommitted changes' "$apply" "$tap_dir/git" "$tap_dir/dest"
tap "and keeps them" unchanged "$tap_dir/git" "$before"
tap "no KSRC to apply to" refuses 'KSRC is empty; run' "${make[@]}" apply KSRC=

fake_tree "$tap_dir/changed" 7 3
sed -i '/^obj-.*khugepaged.o/d' "$tap_dir/changed/mm/Makefile"
before=$(sums "$tap_dir/changed")
tap "a hunk does not apply" refuses '\.patch does not apply .mm/Makefile: Hunk #1 FAILED' "$apply" "$tap_dir/changed" "$tap_dir/dest"
tap "and the tree is as it was" unchanged "$tap_dir/changed" "$before"
tap "and no half-made copy is left" test ! -e "$tap_dir/dest" -a ! -e "$tap_dir/dest.part"

git_tree "$tap_dir/good"
tap "the series applies to a git tree" "$apply" "$tap_dir/good" "$tap_dir/dest"
commits() { git -C "$tap_dir/dest" log --oneline | wc -l; }
tap "as one commit for each patch" test "$(commits)" -eq $(($(find "$TOP/patches" -maxdepth 1 -name '*.patch' | wc -l) + 1))
tap "the destination exists" refuses 'the destination exists .*; remove it' "$apply" "$tap_dir/good" "$tap_dir/dest"

tap "IMPL is neither c nor rust" refuses 'unknown implementation .IMPL=go.; choose' "${make[@]}" shell IMPL=go
tap "ACCEL is unknown" refuses 'unknown accelerator .ACCEL=warp.; choose' "${make[@]}" run ACCEL=warp

tap "DEBUG is unknown" refuses 'unknown debug kernel .DEBUG=more.; choose' "${make[@]}" test DEBUG=more
tap "there is no such mutant" refuses 'unknown mutant .none-such.; run' "$TOP/scripts/mutants/mutants-vm.py" none-such
tap "there is no such mutant for the host" refuses 'unknown mutant .none-such.; run' "$TOP/scripts/mutants/mutants-host.py" none-such
tap "ROUNDS is not a number" refuses 'not a positive number .ROUNDS=many.; set' "${make[@]}" bench ROUNDS=many
tap "there is no such scenario" refuses 'unknown scenario .none-such.; choose from mapped, ' "$TOP/scripts/bench/bench.py" --kernel none none-such
tap "TRIES is not a number" refuses 'not a positive number .TRIES=many.; set' "${make[@]}" bench-contention TRIES=many
tap "CASES is not a number" refuses 'not a number .CASES=many, ' "${make[@]}" fuzz CASES=many

tap "GDB is not 1" refuses 'wrong value .GDB=yes.; set' "${make[@]}" shell GDB=yes
tap "there is no guest to debug" refuses 'run .make shell GDB=1. in another terminal' "$TOP/scripts/guest/gdb.sh" "$tap_dir" "$tap_dir/sock"

# usage_of COMMAND...: the command prints its usage and exits with 2.
usage_of() {
	"$@" >"$tap_dir/out" 2>"$tap_dir/err" </dev/null
	[ $? -eq 2 ] && [ ! -s "$tap_dir/out" ] && grep -q '^usage: ' "$tap_dir/err"
}

if [ ! -e /dev/rust-page-cache-map ]; then
	tap "pcmap: this kernel does not have the sample" refuses 'no /dev/rust-page-cache-map: .*CONFIG_SAMPLE_RUST_PAGE_CACHE_MAP' \
		"$BUILD/bin/pcmap" "$TOP/README.md"
else
	skip "pcmap: this kernel does not have the sample" "this kernel has the sample"
fi
for script in build/{build-kernel,build-userspace,fetch-kernel,guest-root,prepare-source,setup} guest/gdb lint/lint \
	series/{apply,checkpatch,patches,patches-check,port-check}; do
	tap "$script.sh: wrong arguments" usage_of "$TOP/scripts/$script.sh" one two three four five six
done
for script in bench/{bench,bench-contention,code-size,plot-bench,profile} lib/vm lint/layers mutants/mutants-{host,vm} \
	series/{cover-letter,recipients} tests/{clients,coverage,fuzz,host-test,job,report,run-tests,test-all}; do
	tap "$script.py: wrong arguments" usage_of "$TOP/scripts/$script.py" --no-such-option
done
tap "collapse_bench: wrong arguments" usage_of "$BUILD/bin/collapse_bench" -m nothing
tap "collapse_contention: wrong arguments" usage_of "$BUILD/bin/collapse_contention" none-such
tap "bench-contention.py: there is no such mode" usage_of "$TOP/scripts/bench/bench-contention.py" --kernel none none-such
tap "collapse_fuzz: wrong arguments" usage_of "$BUILD/bin/collapse_fuzz" -c many
tap "pcmap: wrong arguments" usage_of "$BUILD/bin/pcmap" --list --svg "$TOP/README.md"
tap "demo: wrong arguments" usage_of "$BUILD/bin/collapse_file_demo"

tap "there is no kernel to boot" refuses 'the kernel is missing .*; run .make kernel.$' "$vm" --kernel "$tap_dir/none" --accel tcg true
tap "the guest does not come up in time" refuses 'did not come up in 2 s; the console is in' \
	"$vm" --kernel "$debug_kernel" --accel tcg --boot-seconds 2 --console "$tap_dir/console" true
tap "the guest's kernel panics" refuses 'Kernel panic' \
	"$vm" --kernel "$debug_kernel" --accel tcg --console "$tap_dir/console" -- bash -c 'echo c >/proc/sysrq-trigger'
tap_end
