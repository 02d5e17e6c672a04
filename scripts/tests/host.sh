#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# mm/collapse_file.rs and the abstractions below it, on the host.

exec "$(dirname "${BASH_SOURCE[0]}")/../host-test.py"
