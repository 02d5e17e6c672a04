#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Bring the newest linux-source-7.3 that Debian's backports hold into the cache
# and print the path of its tarball.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/private-apt.sh"

[ $# -eq 0 ] || usage "fetch-kernel.sh"

suite=trixie-backports
package=linux-source-$LINUX_SERIES
dir=$CACHE/linux
mkdir -p "$dir"

# Once a week is often enough to ask for a newer point release.
tarball=$(find "$dir" -name 'linux-source-*.tar.xz' -mtime -7 | sort -V | tail -n 1)
if [ -n "$tarball" ]; then
	echo "$tarball"
	exit 0
fi

fetch() {
	local apt deb version
	need_space "$dir" 1 "the kernel source"
	private_apt "$dir" "$suite" amd64 "give a Linux $LINUX_SERIES.y tree with KSRC="

	say "fetching $package ($suite)" >&2
	logged fetch-kernel-lists apt-get "${options[@]}" update
	cd "$apt"
	logged fetch-kernel apt-get "${options[@]}" download "$package"
	deb=$(find "$apt" -maxdepth 1 -name "$package*.deb")
	[ -n "$deb" ] || die "apt-get downloaded no $package: see build/logs/fetch-kernel.log"
	version=$(dpkg-deb -f "$deb" Version)
	dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$apt" --strip-components=3 "./usr/src/$package.tar.xz" ||
		die "$deb holds no $package.tar.xz"
	# Older point releases would only be found by mistake.
	rm -f "$dir"/linux-source-*.tar.xz
	mv "$apt/$package.tar.xz" "$dir/linux-source-${version%%-*}.tar.xz"
	touch "$dir/linux-source-${version%%-*}.tar.xz"
}

# In a process of its own, for its end to clean up.
if ! (fetch); then
	ls "$dir"/linux-source-*.tar.xz >/dev/null 2>&1 || exit 1
	warn "using the kernel source that is there, which is older than a week"
fi
find "$dir" -name 'linux-source-*.tar.xz' | sort -V | tail -n 1
