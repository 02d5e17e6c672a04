#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run every test: the suites in a guest with the debug kernel, for both
implementations, and those on the host.

Prints KTAP as it comes, then a table and the sums, which also go to
build/results/test.json. Fails if a test failed, if the guest did not get to the
end, or if its kernel complained.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys

import vm

RESULTS = os.path.join(vm.BUILD, "results")
CONSOLE = os.path.join(vm.BUILD, "logs", "test-console.log")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
RESULT = re.compile(r"^(not )?ok\b[ \d]*(.*)$")
# khugepaged's tests say ok at the end of a subtest of which an earlier step has failed.
HIDDEN_FAILURE = re.compile(r"\b(Fail|Timeout)\b|corrupted")
HOST_SUITES = ["parser", "scan-results", "variants", "object-code", "stack-frames", "bad-input"]
# Uninitialised memory is not to look like zeroes; and an oops leaves a guest that may hang for ever.
BOOT = ["page_poison=1", "init_on_alloc=0", "oops=panic"]


class Suite:
    """Results of one suite with one implementation."""

    def __init__(self, name, impl):
        self.name, self.impl = name, impl
        self.second_try = False
        self.begin()

    def begin(self):
        """Nothing has been seen yet."""
        self.passed = self.failed = self.skipped = 0
        self.planned = None
        self.failures = []
        self.hidden = None

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)

    def line(self, text):
        """Take in a line of the suite's output."""
        text = ANSI.sub("", text)
        if text == "#again":
            self.begin()
            self.second_try = True
            return
        plan = re.match(r"^1\.\.(\d+)", text)
        result = RESULT.match(text)
        if plan:
            self.planned = int(plan.group(1))
        elif text.startswith("Bail out!"):
            self.fail(text)
        elif result:
            if result.group(1):
                self.fail(result.group(2))
            elif self.hidden:
                self.fail(f"{result.group(2)}: said ok after \"{self.hidden}\"")
            elif re.search(r"# *SKIP", text):
                self.skipped += 1
            else:
                self.passed += 1
            self.hidden = None
        elif HIDDEN_FAILURE.search(text):
            self.hidden = text.strip()

    def end(self, status):
        """The suite has ended with this exit status."""
        seen = self.passed + self.failed + self.skipped
        if self.hidden:
            self.fail(self.hidden)
        elif status == 4 and not self.failed:
            # KSFT_SKIP for the rest, or for all of it.
            self.skipped += 1 if not seen else 0
        elif status and not self.failed:
            self.fail(f"exited with status {status}" + (", which is its time limit" if status == 124 else ""))
        elif not seen:
            # Not every suite speaks KTAP: its exit status is its result.
            self.passed += 1
        elif self.planned and seen < self.planned and not self.failed:
            self.fail(f"only {seen} of {self.planned} tests ran")


def run_guest(args, suites, log):
    """The suites in the guest. Returns what was wrong with its kernel."""
    current = None
    leaks, in_leaks = [], False

    def on_line(text):
        nonlocal current, in_leaks
        print(text, flush=True)
        log.write(text + "\n")
        words = text.split()
        if text.startswith("#suite "):
            current = Suite(words[1], words[2])
            suites.append(current)
        elif text.startswith("#end ") and current:
            current.end(int(words[3]))
            current = None
        elif text.startswith("#leaks"):
            in_leaks = text == "#leaks"
        elif in_leaks and "unreferenced object" in text:
            leaks.append(text)
        elif current:
            current.line(text)

    command = shlex.join([os.path.join(vm.TOP, "scripts/guest/tests.sh")] +
                         (["-i", args.impl] if args.impl else []) + args.suites)
    try:
        disks = vm.make_disks(os.path.join(vm.BUILD, "disks"))
        line = vm.command_line(args.kernel, vm.accelerator(args.accel, args.kernel), args.memory, 2,
                               BOOT, disks, command)
        status = vm.run(line, CONSOLE, on_line)
        wrong = [] if status == 0 else [f"the guest's script ended with status {status}"]
    except vm.Failed as failed:
        wrong = [str(failed)]
        sys.stderr.write(vm.tail(CONSOLE))
    if current:
        current.end(1)
    return wrong, vm.splats(CONSOLE) + leaks


def run_host(names, suites, log):
    """The suites on the host: one script each."""
    for name in names:
        suite = Suite(name, "host")
        suites.append(suite)
        print(f"#suite {name} host", flush=True)
        with subprocess.Popen([os.path.join(vm.TOP, "scripts/tests", name + ".sh")], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for text in process.stdout:
                print(text, end="", flush=True)
                log.write(text)
                suite.line(text.rstrip("\n"))
        suite.end(process.returncode)


def table(suites):
    """Suites down, implementations across."""
    impls = [impl for impl in ("rust", "c", "host") if any(s.impl == impl for s in suites)]
    cells = {(s.name, s.impl): f"{s.passed} ok" + (f", {s.failed} FAILED" if s.failed else "") +
             (f", {s.skipped} skipped" if s.skipped else "") +
             (", 2nd try" if s.second_try else "") for s in suites}
    print(f"\n{'suite':<26}" + "".join(f"{impl:<24}" for impl in impls))
    for name in dict.fromkeys(s.name for s in suites):
        print((f"{name:<26}" + "".join(f"{cells.get((name, impl), '-'):<24}" for impl in impls)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--accel", default="auto")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--impl", choices=["rust", "c"], help="one implementation only")
    parser.add_argument("suites", nargs="*", help="these suites only")
    args = parser.parse_args()

    os.makedirs(RESULTS, exist_ok=True)
    suites = []
    with open(os.path.join(RESULTS, "test.ktap"), "w") as log:
        host = [name for name in HOST_SUITES if not args.suites or name in args.suites]
        if host:
            run_host(host, suites, log)
        wrong, splats = [], []
        if not args.suites or set(args.suites) - set(HOST_SUITES):
            wrong, splats = run_guest(args, suites, log)

    table(suites)
    for suite in suites:
        for failure in suite.failures:
            print(f"FAILED: {suite.name} ({suite.impl}): {failure}")
    for line in wrong:
        print(f"FAILED: {line}; the console is in {os.path.relpath(CONSOLE, vm.TOP)}")
    for line in splats[:20]:
        print(f"FAILED: the kernel said: {line}")

    with open(os.path.join(RESULTS, "test.json"), "w") as file:
        json.dump({"suites": [{"name": s.name, "impl": s.impl, "passed": s.passed, "failed": s.failed,
                               "skipped": s.skipped} for s in suites], "splats": len(splats)}, file, indent=1)
        file.write("\n")
    passed = sum(s.passed for s in suites)
    failed = sum(s.failed for s in suites) + len(wrong) + len(splats)
    skipped = sum(s.skipped for s in suites)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
