#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Migrate a virtual machine by post-copy, with C and with Rust, while its memory is collapsed.

The argument is the kernel of the virtual machine. It counts in all its memory, and stops if a count
is lost.
"""

import argparse
import sys

import clients

clients.prepare()
print("\nmigration of a virtual machine (QEMU, post-copy) whose memory is collapsed:")
failed = False
for impl, name in (("c", "C"), ("rust", "Rust")):
    outcome = clients.run("qemu-postcopy", impl, "memfd", argparse.Namespace(counters=sys.argv[1]))
    failed |= outcome["verdict"] != "ok"
    print("  {name:5}{collapses} collapses in {seconds} s; ".format(name=name, **outcome) +
          ("nothing was lost" if outcome["verdict"] == "ok" else outcome["verdict"]), flush=True)
sys.exit(failed)
