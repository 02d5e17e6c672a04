#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Fetch the newest linux-source-7.3 from Debian's backports into the cache and print the path of its
# tarball.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/private-apt.sh"

[ $# -eq 0 ] || usage "fetch-kernel.sh"

suite=trixie-backports
package=linux-source-$LINUX_SERIES
dir=$CACHE/linux
mkdir -p "$dir"

# Check for a newer point release only once a week.
tarball=$(find "$dir" -name 'linux-source-*.tar.xz' -mtime -7 | sort -V | tail -n 1)
if [ -n "$tarball" ]; then
	echo "$tarball"
	exit 0
fi

fetch() {
	local apt deb version
	need_space "$dir" 1 "the kernel source"
	private_apt "$dir" "$suite" amd64 "set KSRC to a Linux $LINUX_SERIES.y tree"

	say "fetching $package ($suite)" >&2
	logged fetch-kernel-lists apt-get "${options[@]}" update
	cd "$apt"
	logged fetch-kernel apt-get "${options[@]}" download "$package"
	deb=$(find "$apt" -maxdepth 1 -name "$package*.deb")
	[ -n "$deb" ] || die "apt-get did not download $package; see build/logs/fetch-kernel.log"
	version=$(dpkg-deb -f "$deb" Version)
	dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$apt" --strip-components=3 "./usr/src/$package.tar.xz" ||
		die "a package lacks $package.tar.xz ($deb); set KSRC to a Linux $LINUX_SERIES.y tree"
	# Remove older point releases, so that no script uses them by mistake.
	rm -f "$dir"/linux-source-*.tar.xz
	mv "$apt/$package.tar.xz" "$dir/linux-source-${version%%-*}.tar.xz"
	touch "$dir/linux-source-${version%%-*}.tar.xz"
}

# The subshell removes the temporary directory when it exits.
if ! (fetch); then
	ls "$dir"/linux-source-*.tar.xz >/dev/null 2>&1 || exit 1
	warn "using the kernel source in the cache, which is older than a week"
fi
find "$dir" -name 'linux-source-*.tar.xz' | sort -V | tail -n 1
