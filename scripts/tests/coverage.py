#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Print which lines of the Rust code the tests do not cover.

The kernel records with KCOV which lines of mm/collapse_file.rs and of the kernel crate each
collapse executes. scripts/tests/uncovered.txt gives the reason for each line that no test covers. The
run fails if an uncovered line is not listed there, or if a listed line is covered. The sums go to
build/results/coverage.json.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402
import vm  # noqa: E402

CONSOLE = os.path.join(vm.BUILD, "logs", "coverage-console.log")
REASONS = os.path.join(vm.TOP, "scripts", "tests", "uncovered.txt")
OURS = re.compile(r"(mm/collapse_file\.rs|rust/kernel/mm/\w+\.rs|rust/kernel/xarray/state\.rs)$")
LLVM = os.environ.get("LLVM", "-22")


def sites(vmlinux):
    """Returns the addresses that KCOV can record: the instruction after each call of its function.

    Basic blocks that end in a panic are left out. They belong to assertions and overflow checks,
    which must not fail.
    """
    command = [f"llvm-objdump{LLVM}", "-d", "--no-show-raw-insn", "--no-print-imm-hex", vmlinux]
    found, called, block = [], False, None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            address, _, instruction = line.partition(":")
            if not re.fullmatch(" *[0-9a-f]+", address):
                continue
            if called:
                block = int(address, 16)
            called = False
            if "<__sanitizer_cov_trace_pc>" in instruction:
                called = True
            elif block is None or not re.search(r"\b(call|j[a-z]+|ret)q?\b", instruction):
                continue
            if block is not None and not re.search(r"call.*(panic|rust_helper_BUG)", instruction):
                found.append(block)
            block = None
    return found


def lines_of(vmlinux, addresses):
    """Returns our source lines for each address, including those of inlined functions."""
    # The query asks for the call itself. The return address may belong to the next line.
    query = "\n".join(hex(address - 1) for address in addresses) + "\n"
    command = [f"llvm-symbolizer{LLVM}", f"--obj={vmlinux}", "--inlines", "--output-style=JSON"]
    output = subprocess.run(command, input=query, stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = {}
    for answer in output.splitlines():
        answer = json.loads(answer)
        ours = set()
        for frame in answer.get("Symbol", []):
            match = OURS.search(frame["FileName"])
            if match and frame["Line"]:
                ours.add((match.group(1), frame["Line"]))
        lines[int(answer["Address"], 16) + 1] = ours
    return lines


def run_guest(args):
    """Runs the tests in the guest and returns the addresses that KCOV recorded."""
    covered, failures = set(), []

    def on_line(text):
        if text.startswith("pc "):
            covered.add(int(text.split()[1], 16))
        elif text.startswith("not ok") or "Totals" in text:
            print(text, flush=True)
            if text.startswith("not ok"):
                failures.append(text)

    disks = vm.make_disks(os.path.join(vm.BUILD, "disks"))
    image = os.path.join(args.kernel, "arch/x86/boot/bzImage")
    line = vm.command_line(image, vm.accelerator(args.accel, image), args.memory, 2, ["numa=fake=2"], disks,
                           os.path.join(vm.TOP, "scripts/guest/coverage.sh"))
    status = vm.run(line, CONSOLE, on_line)
    if status or failures:
        raise vm.Failed(f"tests failed in the guest; the console is in {os.path.relpath(CONSOLE, vm.TOP)}")
    return covered


def source(path, line):
    """Returns a line of a source file, without its indentation."""
    with open(os.path.join(vm.TOP, path)) as file:
        return file.read().splitlines()[line - 1].strip()


def reasons():
    """Returns the known reasons by file and text of the line."""
    known = {}
    with open(REASONS) as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                path, text, reason = (part.strip() for part in line.split(" | ", 2))
                known[path, text] = reason
    return known


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="build directory of the kernel")
    parser.add_argument("--accel", default="auto")
    parser.add_argument("--memory", default="2G")
    args = parser.parse_args()
    vm.end_with_us()

    try:
        covered = run_guest(args)
    except vm.Failed as failed:
        sys.exit(f"error: {failed}")
    vmlinux = os.path.join(args.kernel, "vmlinux")
    lines = lines_of(vmlinux, sites(vmlinux))
    every = {line for ours in lines.values() for line in ours}
    hit = {line for address in covered for line in lines.get(address, ())}
    if not hit:
        sys.exit(f"error: KCOV recorded no line of our sources ({len(covered)} addresses); "
                 "check that the kernel is built by scripts/build/build-kernel.sh coverage")

    known, used, unexplained = reasons(), set(), 0
    print("\nnot covered:")
    for path, number in sorted(every - hit):
        text = source(path, number)
        key = (path, text) if (path, text) in known else (path, "*")
        reason = known.get(key)
        used.add(key)
        unexplained += reason is None
        print(f"{path}:{number}: {text}\n    {reason or 'FAILED: scripts/tests/uncovered.txt has no reason for it'}")
    stale = sorted(set(known) - used)
    for path, text in stale:
        print(f"FAILED: scripts/tests/uncovered.txt lists a line that is covered or does not exist: {path} | {text}")

    sums = collections.defaultdict(lambda: [0, 0])
    for path, number in every:
        sums[path][0] += 1
        sums[path][1] += (path, number) in hit
    print()
    for path, (total, count) in sorted(sums.items()):
        print(f"{path:<34} {count:>4} of {total:>4} lines")
    results.write("coverage", {
        "files": {path: {"lines": total, "covered": count} for path, (total, count) in sorted(sums.items())},
        "not_covered": [f"{path}:{number}" for path, number in sorted(every - hit)]})
    print(f"{len(hit)} of {len(every)} lines covered, {unexplained} without a reason")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
