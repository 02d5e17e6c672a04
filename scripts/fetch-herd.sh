#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Have herd7, which checks litmus tests, in the cache, and print the command that runs it.
# Debian has it in one suite, with a libc that may be newer than this machine's, so the libc is
# taken from there too.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/private-apt.sh"

[ $# -eq 0 ] || usage "fetch-herd.sh"

suite=forky
dir=$CACHE/herd-$suite

fetch() {
	local apt deb tree
	need_space "$CACHE" 1 "herd7"
	private_apt "$CACHE" "$suite" "$(dpkg --print-architecture)" "the litmus tests need herd7"
	tree=$apt/tree

	say "fetching herdtools7 ($suite)" >&2
	logged fetch-herd-lists apt-get "${options[@]}" update
	cd "$apt"
	logged fetch-herd apt-get "${options[@]}" download herdtools7 libc6 libgmp10
	for deb in ./*.deb; do
		dpkg-deb -x "$deb" "$tree"
	done
	mkdir -p "$dir.part/lib"
	cp "$tree/usr/bin/herd7" "$dir.part/"
	cp -r "$tree/usr/share/herdtools7/herd" "$dir.part/cat"
	find "$tree" \( -name 'ld-linux-*' -o -name 'libc.so.*' -o -name 'libm.so.*' -o -name 'libgmp.so.*' \) \
		-exec cp -L {} "$dir.part/lib/" \;
	mv "$dir.part" "$dir"
}

# In a process of its own, for its end to clean up.
[ -x "$dir/herd7" ] || (rm -rf "$dir.part" && fetch)
loader=$(find "$dir/lib" -name 'ld-linux-*' | head -n 1)
echo "$loader --library-path $dir/lib $dir/herd7 -set-libdir $dir/cat"
