#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Bring the newest linux-source-7.3 that Debian's backports hold into the cache
# and print the path of its tarball. The mirror is the one this machine's apt
# already uses and apt checks the signatures, but with lists and a cache of our
# own: the machine's configuration stays as it is.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=trixie-backports
package=linux-source-$LINUX_SERIES
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
dir=$CACHE/linux
mkdir -p "$dir"

# Once a week is often enough to ask for a newer point release.
tarball=$(find "$dir" -name 'linux-source-*.tar.xz' -mtime -7 | sort -V | tail -n 1)
if [ -n "$tarball" ]; then
	echo "$tarball"
	exit 0
fi

fetch() {
	local apt mirror deb version
	command -v apt-get >/dev/null ||
		die "apt-get is not here, so the kernel source cannot be fetched: give a Linux $LINUX_SERIES.y tree with KSRC="
	[ -r "$keyring" ] ||
		die "$keyring is missing: install the package debian-archive-keyring or give a tree with KSRC="
	need_space "$dir" 1 "the kernel source"

	apt=$(mktemp -d "$dir/apt.XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$apt'" EXIT
	mkdir -p "$apt/lists/partial" "$apt/archives/partial"

	# A machine with fresh sources and no downloaded lists knows no origin yet: then
	# the address has to do.
	# shellcheck disable=SC2016
	mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(CODENAME)' |
		awk -F'|' '$1 !~ /security/ && ($2 == "Debian" || ($2 == "" && $1 ~ /\/debian\/?$/)) { print $1; exit }')
	[ -n "$mirror" ] ||
		die "apt's configuration names no Debian mirror to fetch $package from: give a Linux $LINUX_SERIES.y tree with KSRC="

	echo "deb [signed-by=$keyring] $mirror $suite main" >"$apt/sources.list"
	options=(-o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" -o APT::Sandbox::User=root
		-o Acquire::Languages=none -o Acquire::Retries=3)

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
