#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Build a kernel in build/linux/build-NAME, configured by configs/base.config,
# configs/ARCH.config and configs/NAME.config:
#
#   build-kernel.sh NAME [FRAGMENT] [TARGET...]
#
# FRAGMENT is another file of options on top. Without a target it is a kernel to
# boot. KERNEL_TREE is another tree than build/linux, which need not have all of the
# series: options of patches that are to come are left out. The compiler's output goes
# to build/logs/, a line of progress to stdout. With ARCH=arm64 it is build-NAME-arm64.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=${1:-}
fragments=("$TOP/configs/base.config" "$TOP/configs/$ARCH.config")
case $ARCH in
x86_64) kernel=bzImage suffix='' kbuild_arch=x86 ;;
*) kernel=Image suffix=-$ARCH kbuild_arch=$ARCH ;;
esac
case $name in
debug | fast | fuzz | gdb | plain | small) fragments+=("$TOP/configs/$name.config") ;;
mutants | coverage) fragments+=("$TOP/configs/debug.config" "$TOP/configs/no-kunit.config") ;;
bench-locks | one-by-one) fragments+=("$TOP/configs/fast.config" "$TOP/configs/$name.config") ;;
kasan | kcsan | lab | two-cpus | up) fragments+=("$TOP/configs/debug.config" "$TOP/configs/$name.config") ;;
*) usage "build-kernel.sh NAME [FRAGMENT] [TARGET...]" ;;
esac
shift
if [ -f "${1:-}" ]; then
	fragments+=("$1")
	shift
fi
targets=("${@:-$kernel}")

linux=${KERNEL_TREE:-$BUILD/linux}
# Within the source tree kbuild uses relative paths, and ccache's entries are good
# for any other clone.
out=$linux/build-$name$suffix
log=$LOGS/kernel-$name$suffix.log
mkdir -p "$out" "$LOGS"
need_space "$out" 3 "a kernel build"
exec 9>"$out/.lock"
flock -n 9 || die "kernel '$name' is being built already: wait for that to end"

tool_version() { "$@" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1; }

# check_tool WHAT COMMAND HOW-TO-MEND
check_tool() {
	local have want
	want=$("$linux/scripts/min-tool-version.sh" "$1")
	command -v "$2" >/dev/null || die "$2 is not here: $3"
	have=$(tool_version "$2")
	[ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
		die "$2 is version ${have:-unknown} and the kernel wants $want at least: $3"
}
check_tool rustc "$RUSTC" "install rustc-web and rust-web-src, or give another with RUSTC="
check_tool bindgen "$BINDGEN" "run 'make setup', or give another with BINDGEN="
check_tool llvm "clang$LLVM" "install clang$LLVM, or give another version with LLVM="

bin=$(dirname "$RUSTC")
export CCACHE_DIR=$CACHE/ccache CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=5G
# Of the examples in the kernel crate's documentation, those of ours become tests; what only others use
# is not missed.
make=(make -C "$linux" O="$out" ARCH="$kbuild_arch" -j"$JOBS" LLVM="$LLVM" CC="ccache clang$LLVM"
	RUSTC="$RUSTC" HOSTRUSTC="$RUSTC" RUSTFMT="$bin/rustfmt" CLIPPY_DRIVER="$bin/clippy-driver" BINDGEN="$BINDGEN"
	RUSTDOC="$bin/rustdoc --test-args 'kernel/mm/ kernel/xarray/ kernel/capability'"
	RUSTFLAGS_doctests_kernel_generated.o=-Adead_code
	CLIPPY=1 KBUILD_BUILD_TIMESTAMP="$(date -u -d @0)" KBUILD_BUILD_USER=kbuild KBUILD_BUILD_HOST=kbuild)
# xarray.h's checks have no option of their own, and come with functions that no
# header declares.
[[ " ${fragments[*]} " != */debug.config* ]] || make+=(KCFLAGS="-DXA_DEBUG -Wno-error=missing-prototypes")
# Of these files, which collapse came by which line is recorded.
[ "$name" != coverage ] || make+=(KRUSTFLAGS=-Cdebuginfo=2 KCOV_INSTRUMENT_kernel.o=y
	KCOV_INSTRUMENT_collapse_file.o=y)
# Inlined into its caller, collapse_file() in C would have no beginning to stop at.
[ "$name" != gdb ] || make+=(CFLAGS_khugepaged.o=-fno-inline-functions)

configure() {
	"${make[@]}" tinyconfig
	(cd "$out" && "$linux/scripts/kconfig/merge_config.sh" -m -Q .config "${fragments[@]}")
	"${make[@]}" olddefconfig
}

# Configuring anew touches what everything depends on, so only if it is needed.
wanted=$(cat "${fragments[@]}" "$linux/.origin" "$linux/mm/Kconfig.collapse_file" "$linux/samples/rust/Kconfig" \
	2>/dev/null | sha256sum) || true
# Whether an option is one that a later patch brings.
to_come() {
	local declared="^[+]?config ${1#CONFIG_}\$"
	grep -qE "$declared" "$TOP/Kconfig" "$TOP"/patches/*.patch &&
		! grep -qsE "$declared" "$linux/mm/Kconfig.collapse_file" "$linux/samples/rust/Kconfig"
}
if [ "$(cat "$out/.wanted" 2>/dev/null)" != "$wanted" ]; then
	say "configuring kernel '$name'"
	logged "config-$name$suffix" configure
	# Options that other options do not allow would vanish without a word.
	while read -r option; do
		! to_come "${option%%=*}" || continue
		case $option in
		*=n) ! grep -q "^${option%=n}=" "$out/.config" ;;
		*) grep -qxF "$option" "$out/.config" ;;
		esac || die "kernel '$name' cannot have $option: see build/logs/config-$name$suffix.log and configs/"
	done < <(cat "${fragments[@]}" | awk -F= '/^CONFIG_/ { last[$1] = $0 } END { for (o in last) print last[o] }')
	echo "$wanted" >"$out/.wanted"
fi

# How many files there are to a build from nothing, to tell how far it is.
declare -A all=([fast]=1317 [debug]=1343)
of=
[ -e "$out/vmlinux" ] || of=${all[$name]:+ of ${all[$name]}}
compiled() { grep -cE '^  (CC|AS|HOSTCC|RUSTC|CLIPPY|HOSTRUSTC|BINDGEN) ' "$log"; }

say "building kernel '$name' (log: ${log#"$TOP"/})"
"${make[@]}" "${targets[@]}" </dev/null >"$log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || true' EXIT
start=$SECONDS
# On a terminal one line that changes, elsewhere a line a minute.
next=0
while kill -0 $pid 2>/dev/null; do
	sleep 1
	spent=$((SECONDS - start))
	[ $spent -ge $next ] || continue
	printf '    %3d min %02d s  %4d%s files  %-50.50s' $((spent / 60)) $((spent % 60)) \
		"$(compiled)" "$of" "$(tail -n 1 "$log")"
	if [ -t 1 ]; then
		printf '\r'
	else
		printf '\n'
		next=$((next + 60))
	fi
done
trap - EXIT
if ! wait $pid; then
	grep -nE '(^|[^a-z])error(\[|:)|\*\*\*' "$log" | head -n 10 >&2 || true
	die "building kernel '$name' failed; the whole log is ${log#"$TOP"/}"
fi
say "kernel '$name' built in $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s"
