#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Build a kernel in build/linux/build-NAME, configured by configs/base.config,
# configs/ARCH.config and configs/NAME.config:
#
#   build-kernel.sh NAME [FRAGMENT] [TARGET...]
#
# FRAGMENT is a file of further options. The default target is the bootable image. KERNEL_TREE names
# a tree to use instead of build/linux. It may lack the last patches of the series, and the script
# then leaves out their options. The compiler's output goes to build/logs/, and progress to stdout.
# With ARCH=arm64 the directory is build-NAME-arm64.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"

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
# If the build directory is inside the source tree, kbuild uses relative paths, and other clones can
# share ccache's entries.
out=$linux/build-$name$suffix
log=$LOGS/kernel-$name$suffix.log
mkdir -p "$out" "$LOGS"
need_space "$out" 3 "a kernel build"
exec 9>"$out/.lock"
flock -n 9 || die "another process builds kernel '$name' (lock $out/.lock); wait until it ends"

tool_version() { "$@" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1; }

# check_tool TOOL COMMAND HOW-TO-FIX
check_tool() {
	local have want
	want=$("$linux/scripts/min-tool-version.sh" "$1")
	command -v "$2" >/dev/null || die "a tool is missing ($2); $3"
	have=$(tool_version "$2")
	[ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
		die "$2 is too old (version ${have:-unknown}, the kernel needs $want); $3"
}
check_tool rustc "$RUSTC" "install rustc-web and rust-web-src, or set RUSTC to another rustc"
check_tool bindgen "$BINDGEN" "run 'make setup', or set BINDGEN to another bindgen"
check_tool llvm "clang$LLVM" "install clang$LLVM, or set LLVM to another version"

bin=$(dirname "$RUSTC")
export CCACHE_DIR=$CACHE/ccache CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=5G
# Only our own examples in the kernel crate's documentation become tests. Code that only the other
# examples use is then dead code.
make=(make -C "$linux" O="$out" ARCH="$kbuild_arch" -j"$JOBS" LLVM="$LLVM" CC="ccache clang$LLVM"
	RUSTC="$RUSTC" HOSTRUSTC="$RUSTC" RUSTFMT="$bin/rustfmt" CLIPPY_DRIVER="$bin/clippy-driver" BINDGEN="$BINDGEN"
	RUSTDOC="$bin/rustdoc --test-args 'kernel/mm/ kernel/xarray/ kernel/capability'"
	RUSTFLAGS_doctests_kernel_generated.o=-Adead_code
	CLIPPY=1 KBUILD_BUILD_TIMESTAMP="$(date -u -d @0)" KBUILD_BUILD_USER=kbuild KBUILD_BUILD_HOST=kbuild)
# No option turns on xarray.h's checks. They come with functions that no header declares.
[[ " ${fragments[*]} " != */debug.config* ]] || make+=(KCFLAGS="-DXA_DEBUG -Wno-error=missing-prototypes")
# KCOV records which lines of these files a collapse executes.
[ "$name" != coverage ] || make+=(KRUSTFLAGS=-Cdebuginfo=2 KCOV_INSTRUMENT_kernel.o=y
	KCOV_INSTRUMENT_collapse_file.o=y)
# If collapse_file() in C were inlined into its caller, gdb could not set a breakpoint on it.
[ "$name" != gdb ] || make+=(CFLAGS_khugepaged.o=-fno-inline-functions)

configure() {
	"${make[@]}" tinyconfig
	(cd "$out" && "$linux/scripts/kconfig/merge_config.sh" -m -Q .config "${fragments[@]}")
	"${make[@]}" olddefconfig
}

# A new configuration rebuilds everything, so the kernel is only configured if an input changed.
wanted=$(cat "${fragments[@]}" "$linux/.origin" "$linux/mm/Kconfig.collapse_file" "$linux/samples/rust/Kconfig" \
	2>/dev/null | sha256sum) || true
# to_come OPTION: a patch that is not in the tree declares the option.
to_come() {
	local declared="^[+]?config ${1#CONFIG_}\$"
	grep -qE "$declared" "$TOP/Kconfig" "$TOP"/patches/*.patch &&
		! grep -qsE "$declared" "$linux/mm/Kconfig.collapse_file" "$linux/samples/rust/Kconfig"
}
if [ "$(cat "$out/.wanted" 2>/dev/null)" != "$wanted" ]; then
	say "configuring kernel '$name'"
	logged "config-$name$suffix" configure
	# kconfig silently drops options whose dependencies are not met.
	while read -r option; do
		! to_come "${option%%=*}" || continue
		case $option in
		*=n) ! grep -q "^${option%=n}=" "$out/.config" ;;
		*) grep -qxF "$option" "$out/.config" ;;
		esac || die "kernel '$name' cannot have $option; see build/logs/config-$name$suffix.log, and fix configs/"
	done < <(cat "${fragments[@]}" | awk -F= '/^CONFIG_/ { last[$1] = $0 } END { for (o in last) print last[o] }')
	echo "$wanted" >"$out/.wanted"
fi

# The number of files in a full build, to show the progress.
declare -A all=([fast]=1317 [debug]=1343)
of=
[ -e "$out/vmlinux" ] || of=${all[$name]:+ of ${all[$name]}}
compiled() { grep -cE '^  (CC|AS|HOSTCC|RUSTC|CLIPPY|HOSTRUSTC|BINDGEN) ' "$log"; }

say "building kernel '$name' (log: ${log#"$TOP"/})"
"${make[@]}" "${targets[@]}" </dev/null >"$log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || true' EXIT
start=$SECONDS
# A terminal gets one line that changes. Otherwise a line is printed each minute.
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
	die "building kernel '$name' failed; see ${log#"$TOP"/}"
fi
say "kernel '$name' built in $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s"
