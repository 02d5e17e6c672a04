#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Install the tools that a build and a boot need: Debian's packages, and bindgen and virtme-ng in
# the cache. An argument installs more: "plot" matplotlib, "mutants" cargo-mutants, "gdb" gdb, and
# "clients" the programs of `make clients`, "docs" Sphinx. ARCH=arm64 installs a cross compiler and an emulator. If
# all tools are installed, the script changes nothing.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"

[[ $# -eq 0 || $* =~ ^(plot|mutants|gdb|clients|docs)$ ]] || usage "setup.sh [plot | mutants | gdb | clients | docs]"

# rustc-web and clang-22 use the same LLVM, so that C helpers can be inlined into Rust. A toolchain
# of rustup is not used, because it has no core sources.
packages=(
	rustc-web rust-web-src rustfmt-web rust-web-clippy cargo-web
	"clang-$LLVM_MAJOR" "lld-$LLVM_MAJOR" "llvm-$LLVM_MAJOR" "libclang-$LLVM_MAJOR-dev"
	gcc libc6-dev liburcu-dev make flex bison bc libelf-dev libssl-dev cpio kmod rsync xz-utils patch ccache perl
	python3 python3-venv git shellcheck udev
	qemu-system-x86 busybox-static e2fsprogs xfsprogs
)

install_packages() {
	local missing=() package
	if ! command -v dpkg-query >/dev/null; then
		warn "not a Debian system; missing tools will only be detected when they are needed"
		return
	fi
	for package in "${packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" -eq 0 ] ||
		die "packages are missing (${#missing[@]}); run 'sudo apt-get install ${missing[*]}'"
	say "installing ${#missing[@]} packages"
	logged apt-update apt-get update
	DEBIAN_FRONTEND=noninteractive logged apt-install \
		apt-get install -y --no-install-recommends "${missing[@]}"
}

# Build a program and install it in the cache.
#   cargo_install CRATE VERSION DIR
cargo_install() {
	local cargo=/usr/bin/cargo
	[ -x $cargo ] || cargo=cargo
	command -v $cargo >/dev/null || die "a tool is missing (cargo, to build $1); install it"
	say "building $1 $2 (some minutes)"
	RUSTC=$RUSTC logged "$1" $cargo install "$1" --version "$2" --locked --root "$3.part"
	mv "$3.part" "$3"
}

install_bindgen() {
	local dir=$CACHE/bindgen-$BINDGEN_VERSION
	# If the user set BINDGEN, that program is used.
	[ "$BINDGEN" = "$dir/bin/bindgen" ] && [ ! -x "$BINDGEN" ] || return 0
	cargo_install bindgen-cli "$BINDGEN_VERSION" "$dir"
}

install_cargo_mutants() {
	[ -x "$CARGO_MUTANTS" ] ||
		cargo_install cargo-mutants "$CARGO_MUTANTS_VERSION" "$CACHE/cargo-mutants-$CARGO_MUTANTS_VERSION"
}

install_virtme_ng() {
	local dir=$CACHE/virtme-ng-$VIRTME_NG_VERSION
	[ ! -x "$dir/bin/vng" ] || return 0
	say "installing virtme-ng $VIRTME_NG_VERSION"
	rm -rf "$dir"
	logged virtme-ng-venv python3 -m venv "$dir"
	logged virtme-ng "$dir/bin/pip" install --disable-pip-version-check "virtme-ng==$VIRTME_NG_VERSION"
}

# The package would create a cluster and start it, so it is only unpacked in the cache.
fetch_postgresql() {
	local dir=$CACHE/postgresql deb
	[ ! -e "$dir" ] || return 0
	say "fetching $postgresql"
	rm -rf "$dir.part" "$dir.debs"
	mkdir -p "$dir.part" "$dir.debs"
	(cd "$dir.debs" && logged fetch-postgresql apt-get download "$postgresql" "${postgresql/-/-client-}")
	for deb in "$dir.debs"/*.deb; do
		dpkg-deb -x "$deb" "$dir.part"
	done
	rm -rf "$dir.debs"
	mv "$dir.part" "$dir"
}

install_matplotlib() {
	local dir=$CACHE/matplotlib-$MATPLOTLIB_VERSION
	[ ! -e "$dir" ] || return 0
	say "installing matplotlib $MATPLOTLIB_VERSION"
	rm -rf "$dir.part"
	logged matplotlib-venv python3 -m venv "$dir.part"
	# The venv is moved afterwards. Its python still works then, but its other programs do not.
	logged matplotlib "$dir.part/bin/python" -m pip install --disable-pip-version-check "matplotlib==$MATPLOTLIB_VERSION"
	mv "$dir.part" "$dir"
}

install_sphinx() {
	local dir=${SPHINX%/bin/*}
	[ ! -x "$SPHINX" ] || return 0
	say "installing Sphinx $SPHINX_VERSION"
	rm -rf "$dir"
	logged sphinx-venv python3 -m venv "$dir"
	logged sphinx "$dir/bin/pip" install --disable-pip-version-check alabaster pyyaml "sphinx==$SPHINX_VERSION"
}

[ "${1:-}" != gdb ] || packages+=(gdb)
if [ "${1:-}" = clients ]; then
	packages+=(fio stress-ng python3-lmdb)
	# The newest version and its libraries. LLVM is left out, because jit is off.
	postgresql=$(apt-cache depends postgresql | awk '/Depends: postgresql-[0-9]+$/ { print $2; exit }')
	[ -n "$postgresql" ] || die "apt has no package postgresql for 'make clients'; run 'apt-get update'"
	mapfile -t -O ${#packages[@]} packages < <(apt-cache depends "$postgresql" |
		awk '/^ *Depends: lib/ && !/libllvm/ { print $2 }')
fi
[ "$ARCH" != arm64 ] || packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-system-arm)
install_packages
install_bindgen
install_virtme_ng
[ "${1:-}" != plot ] || install_matplotlib
[ "${1:-}" != mutants ] || install_cargo_mutants
[ "${1:-}" != clients ] || fetch_postgresql
[ "${1:-}" != docs ] || install_sphinx
