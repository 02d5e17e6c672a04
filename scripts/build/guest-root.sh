#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make a root file system for guests of another architecture, in build/root-ARCH. It has Debian's
# packages, unpacked but not configured, which is enough for the tests. The tests are in
# /opt/collapse_file.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/private-apt.sh"

[ $# -eq 0 ] || usage "guest-root.sh"

suite=trixie
# virtme-ng's init and scripts/guest/ need these. udev names the ports that a guest writes to.
packages=(base-files base-passwd bash coreutils util-linux mount grep sed mawk hostname udev busybox-static python3)

debs=$CACHE/root-$ARCH
root=$BUILD/root-$ARCH

fetch() {
	need_space "$CACHE" 1 "a root file system for $ARCH"
	private_apt "$CACHE" "$suite" "$ARCH" "run guests for $ARCH on a Debian system"
	say "fetching packages for a root file system ($suite, $ARCH)"
	logged guest-root-lists apt-get "${options[@]}" update
	# With an empty status file apt also downloads all dependencies.
	: >"$apt/status"
	logged guest-root apt-get "${options[@]}" -o Dir::State::status="$apt/status" --yes --no-install-recommends \
		--download-only install "${packages[@]}"
	mv "$apt/archives" "$debs"
}

mkdir -p "$CACHE" "$BUILD"
[ -d "$debs" ] || (fetch)

if [ ! -d "$root" ]; then
	say "unpacking a root file system for $ARCH"
	rm -rf "$root.part"
	mkdir "$root.part"
	# base-files comes first, because it has the symlinks that the other packages need.
	for deb in "$debs"/base-files_*.deb "$debs"/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$root.part" --keep-directory-symlink --no-same-owner
	done
	# The scripts of the packages would do this when they are configured.
	ln -sf mawk "$root.part/usr/bin/awk"
	ln -sf bash "$root.part/usr/bin/sh"
	for file in passwd group; do
		cp "$root.part/usr/share/base-passwd/$file.master" "$root.part/etc/$file"
	done
	# An interactive guest calls su.
	for kind in account auth password session; do
		echo "$kind required pam_permit.so" >"$root.part/etc/pam.d/common-$kind"
	done
	touch "$root.part/etc/fstab" "$root.part/etc/hosts" "$root.part/etc/shadow"
	mkdir -p "$root.part"/{proc,sys,dev,run,tmp,root,etc/lvm,var/tmp,var/log}
	mv "$root.part" "$root"
fi

# Copy the tests to the path that the guest uses.
tests=$root/opt/collapse_file
mkdir -p "$tests/scripts" "$tests/build"
rsync -a --delete "$TOP/scripts/guest" "$TOP/scripts/lib" "$tests/scripts/"
rsync -a --delete "$BUILD/bin-$ARCH/" "$tests/build/bin/"
