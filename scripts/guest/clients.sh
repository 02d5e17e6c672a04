#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run clients.py in the guest, with Debian's Python, which has Debian's modules.
#
#   clients.sh OPTION... [CLIENT...]

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

/usr/bin/python3 "$here/clients.py" "$@"
status=$?
leaks
exit $status
