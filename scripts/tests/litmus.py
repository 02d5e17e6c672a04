#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Check the litmus tests of collapse_file() with herd7 and the kernel's memory model.

The comment in each test says whether its outcome is expected Never or Sometimes. The script prints
KTAP and writes build/results/litmus.json. It fails if an observation differs from the expectation.
"""

import glob
import os
import re
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(TOP, "build/linux/tools/memory-model")
TESTS = os.path.join(TOP, "tools/testing/collapse_file/litmus")
SECONDS = 120


def observe(herd, path):
    """Runs herd7 on a test and returns its observation and its whole output."""
    try:
        done = subprocess.run(herd + ["-conf", "linux-kernel.cfg", path], cwd=MODEL, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "nothing", f"herd7 did not end within {SECONDS} s"
    found = re.search(r"^Observation \S+ (\w+)", done.stdout, re.MULTILINE)
    return found.group(1) if found else "nothing", done.stdout


def main():
    if len(sys.argv) > 1:
        print("usage: litmus.py", file=sys.stderr)
        sys.exit(2)
    if not os.path.isdir(MODEL):
        sys.exit(f"error: no kernel source ({os.path.relpath(MODEL, TOP)}); run 'make source'")
    fetched = subprocess.run([os.path.join(TOP, "scripts/tests/fetch-herd.sh")], stdout=subprocess.PIPE, text=True, check=False)
    if fetched.returncode:
        sys.exit(fetched.returncode)
    herd = shlex.split(fetched.stdout)

    paths = sorted(glob.glob(os.path.join(TESTS, "*.litmus")))
    found = []
    print("TAP version 13", f"1..{len(paths)}", sep="\n")
    for number, path in enumerate(paths, 1):
        name = os.path.basename(path).removesuffix(".litmus")
        with open(path) as file:
            told = re.search(r"Expected: (Never|Sometimes)$", file.read(), re.MULTILINE)
        expected = told.group(1) if told else "an 'Expected:' line"
        observation, output = observe(herd, path)
        found.append({"name": name, "observation": observation, "expected": expected})
        if observation != expected:
            print("".join(f"# {line}\n" for line in output.splitlines()), end="")
        print(f"{'ok' if observation == expected else 'not ok'} {number} {name}: {observation}, expected {expected}", flush=True)

    results.write("litmus", found)
    sys.exit(any(result["observation"] != result["expected"] for result in found))


main()
