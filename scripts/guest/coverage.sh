#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run the tests of collapse_file() in Rust, and print the kernel addresses that they reached as
# lines "pc ADDRESS".

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The file is on disk, because on tmpfs it would count as shmem.
export KCOV_OUT=/run/ext4/kcov

echo rust >"$impl" || exit 1
status=0
for lru in multi-gen classic; do
	[ $lru = multi-gen ] || echo 0 >/sys/kernel/mm/lru_gen/enabled
	for program in collapse_file collapse_file_results; do
		timeout -k 10 900 "$bin/$program" || status=1
	done
done
sort -u $KCOV_OUT | sed 's/^/pc /'
exit $status
