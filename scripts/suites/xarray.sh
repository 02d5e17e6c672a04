#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run lib/test_xarray.c, with our cases, in the kernel's harness for it, which uses ASAN and UBSAN.
# It needs make's built-in rules, which an outer make may have turned off.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

copy=$BUILD/xarray
log=$LOGS/xarray.log

builds() {
	mkdir -p "$copy"
	(cd "$BUILD/linux" && rsync -aR --delete tools/testing/radix-tree tools/testing/shared tools/scripts tools/include \
		tools/lib tools/arch/x86/include lib include/linux "$copy/") &&
		env -u MAKEFLAGS make -C "$copy/tools/testing/radix-tree" xarray >"$log" 2>&1
}

passes() {
	"$copy/tools/testing/radix-tree/xarray" >>"$log" 2>&1 && return
	tail -n 5 "$log"
	return 1
}

tap "test_xarray builds" builds
tap "test_xarray passes" passes
tap_end
