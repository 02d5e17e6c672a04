#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run the demo in the guest.

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

echo "Linux $(uname -r), $thp/khugepaged/collapse_file: $(cat "$impl")"
"$bin/collapse_file_demo" /run/ext4
# A guest of another architecture has no QEMU.
[ ! -x "$bin/counters" ] || /usr/bin/python3 "$here/demo_migration.py" "$bin/counters"
