#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Fetch herd7, which checks litmus tests, into the cache, and print the command that runs it. Only
# one Debian suite has it. Its libc may be newer than this machine's, so it is fetched too.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../build/private-apt.sh"

[ $# -eq 0 ] || usage "fetch-herd.sh"

suite=forky
dir=$CACHE/herd-$suite

fetch() {
	local apt deb tree
	need_space "$CACHE" 1 "herd7"
	private_apt "$CACHE" "$suite" "$(dpkg --print-architecture)" "run the litmus tests on a Debian system"
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

# The subshell removes the temporary directory when it exits.
[ -x "$dir/herd7" ] || (rm -rf "$dir.part" && fetch)
loader=$(find "$dir/lib" -name 'ld-linux-*' | head -n 1)
echo "$loader --library-path $dir/lib $dir/herd7 -set-libdir $dir/cat"
