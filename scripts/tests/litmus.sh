#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's memory model guarantees the order that collapse_file() needs, and each barrier is
# needed: without it, the model allows the fault.

exec "$(dirname "${BASH_SOURCE[0]}")/../litmus.py"
