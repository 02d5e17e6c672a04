#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check that the kernel's memory model guarantees the order that collapse_file() needs. Each barrier
# is needed: without it, the model allows the fault.

exec "$(dirname "${BASH_SOURCE[0]}")/../tests/litmus.py"
