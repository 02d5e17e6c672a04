#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run mm/collapse_file.rs on the host: tools/testing/collapse_file, in several sizes.

The sizes are the order of what a PMD maps and the number of bits that a node of
the XArray resolves. The small ones are explored in every order of the tasks that
matters, the large ones at random. LONG=1 explores more of both.

build/results/host.json has what was explored, the logs are in build/logs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")
TESTS = os.path.join(TOP, "tools", "testing", "collapse_file")
RESULTS = os.path.join(BUILD, "results", "host.json")
LONG = os.environ.get("LONG") == "1"

# Name, order, bits of a node, sanitizer, test binaries. What is in one node with the neighbours, what
# spans nodes, what takes sibling entries and nodes at once as on a real machine, and that machine.
ALL = ["sequential", "dfs", "random"]
CONFIGS = [
    ("4 pages, nodes of 2", 2, 1, None, ALL),
    ("4 pages, nodes of 64", 2, 6, None, ALL),
    ("8 pages, nodes of 4", 3, 2, "undefined", ALL if LONG else ["sequential", "random"]),
    ("512 pages, nodes of 64", 9, 6, "undefined", ["sequential", "random"]),
    ("8 pages, with ASAN", 3, 2, "address", ["sequential", "random"]),
]

PASS = re.compile(r"^\s*PASS \[.*?\] +(?:\(.*?\) +)?\S+ (\S+)|^test (\S+) \.\.\. ok")
FAIL = re.compile(r"^\s*(?:FAIL|SIG\w+|ABORT|TIMEOUT|LEAK-FAIL) \[.*?\] +(?:\(.*?\) +)?\S+ (\S+)|^test (\S+) \.\.\. FAILED")


def die(what):
    sys.exit(f"error: {what}")


def kernel_tree():
    """The tree that lib/xarray.c is compiled from."""
    candidates = [os.environ["KSRC"]] if os.environ.get("KSRC") else [os.path.join(BUILD, "linux")]
    for tree in candidates:
        if os.path.exists(os.path.join(tree, "lib", "xarray.c")):
            return os.path.abspath(tree)
    die("no kernel source: run `make source`, or set KSRC to a Linux 7.3 tree")


def check_tools():
    """Whether all that it takes is there. Returns whether nextest is."""
    for tool, mend in (("cargo", "install Rust, from the distribution or by rustup"),
                       ("cc", "install gcc or clang")):
        if not shutil.which(tool):
            die(f"{tool} is missing: {mend}")
    return subprocess.run(["cargo", "nextest", "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def host_triple():
    """What the compiler builds for."""
    text = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout
    return re.search(r"^host: (\S+)", text, re.M).group(1)


def asan_runtime():
    """The library, or None."""
    path = subprocess.run(["cc", "-print-file-name=libasan.so"], stdout=subprocess.PIPE, check=True,
                          universal_newlines=True).stdout.strip()
    return os.path.realpath(path) if os.path.isabs(path) else None


def expected_results():
    """The values of enum ScanResult: all that collapse_file() can return."""
    with open(os.path.join(TOP, "rust", "kernel", "mm", "khugepaged.rs")) as source:
        return set(re.findall(r"= bindings::scan_result_(SCAN_\w+)", source.read()))


class Run:
    """What has been found in all configurations."""

    def __init__(self):
        self.tests, self.passed, self.failed, self.seen = [], 0, 0, set()

    def config(self, number, config, environment, nextest):
        """Run the tests in one size."""
        name, order, shift, sanitizer, binaries = config
        reports = os.path.join(BUILD, "host", "reports", str(number))
        shutil.rmtree(reports, ignore_errors=True)
        os.makedirs(reports)
        environment = dict(environment, COLLAPSE_ORDER=str(order), COLLAPSE_XA_SHIFT=str(shift),
                           HOST_TEST_REPORT=reports)
        environment.pop("COLLAPSE_SANITIZE", None)
        command = ["cargo"] + (["nextest", "run", "--no-fail-fast", "--no-output-indent", "-j1"] if nextest
                               else ["test", "--no-fail-fast"])
        if sanitizer:
            environment["COLLAPSE_SANITIZE"] = sanitizer
        if sanitizer == "address":
            # The runtime comes first, for its malloc() to be the one.
            triple = host_triple().upper().replace("-", "_")
            environment["ASAN_OPTIONS"] = "detect_leaks=0"
            environment[f"CARGO_TARGET_{triple}_RUNNER"] = f"env LD_PRELOAD={asan_runtime()}"
        for binary in binaries:
            command += ["--test", binary]
        if not nextest:
            command += ["--", "--test-threads=1"]

        log = os.path.join(BUILD, "logs", f"host-test-{number}.log")
        begin = time.time()
        with open(log, "w") as output:
            status = subprocess.run(command, cwd=TESTS, env=environment, stdin=subprocess.DEVNULL,
                                    stdout=output, stderr=subprocess.STDOUT).returncode
        with open(log, errors="replace") as output:
            text = output.read()
        passed, failed = set(), set()
        for line in text.splitlines():
            for kind, found in ((passed, PASS.match(line)), (failed, FAIL.match(line))):
                if found:
                    kind.add(found.group(1) or found.group(2))
        if status and not failed:
            failed.add("build or start")
        if not status and not passed:
            failed.add("no test was found")
        print(f"\n{name}: {len(passed)} passed, {len(failed)} failed, {time.time() - begin:.0f} s")
        self.reports(name, reports)
        for test in sorted(failed):
            print(f"  {test}: FAILED")
        if failed:
            error = re.search(r"^\s*error: .*", text, re.M)
            if error and not passed:
                print(f"  {error.group(0).strip()}")
            print(f"  the whole log, with a timeline, is {os.path.relpath(log, TOP)}")
        self.passed += len(passed - failed)
        self.failed += len(failed)
        sys.stdout.flush()

    def reports(self, config, directory):
        """Take in what the tests tell."""
        for file in sorted(os.listdir(directory)):
            with open(os.path.join(directory, file)) as report:
                test = json.load(report)
            self.seen.update(test.pop("results"))
            unit = "cases" if test["mode"] == "sequential" else "schedules"
            print(f"  {test['name']:32} {test['mode']:34} {test['schedules']:8} {unit}")
            self.tests.append(dict(test, name=f"{config}: {test['name']}"))

    def save(self):
        """Write it down."""
        os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
        with open(RESULTS, "w") as file:
            json.dump({"tests": self.tests, "failed": self.failed}, file, indent=1)
            file.write("\n")


def main():
    nextest = check_tools()
    environment = dict(os.environ, KSRC=kernel_tree(), CARGO_TARGET_DIR=os.path.join(BUILD, "host"),
                       CARGO_TERM_COLOR="never", RUST_BACKTRACE="0")
    # One execution alone, or the shortest failure, are for whoever looks at one test.
    for name in ("REPLAY", "SHORTEST", "SEED"):
        environment.pop(name, None)
    os.makedirs(os.path.join(BUILD, "logs"), exist_ok=True)
    run = Run()
    for number, config in enumerate(CONFIGS):
        if config[3] == "address" and not asan_runtime():
            print(f"\n{config[0]}: left out, the C compiler has no libasan.so")
            continue
        run.config(number, config, environment, nextest)
    missing = expected_results() - run.seen
    if missing:
        run.failed += 1
        print(f"\nnever seen: {', '.join(sorted(missing))}: FAILED")
    else:
        run.passed += 1
        print(f"\nall {len(run.seen)} results were seen")
    run.save()
    print(f"{sum(t['schedules'] for t in run.tests)} executions; {os.path.relpath(RESULTS, TOP)}")
    print(f"{run.passed} passed, {run.failed} failed")
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    main()
