#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Test mm/collapse_file.rs and its abstractions on the host.

exec "$(dirname "${BASH_SOURCE[0]}")/../tests/host-test.py"
