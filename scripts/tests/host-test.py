#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run mm/collapse_file.rs on the host: tools/testing/collapse_file, in several sizes.

A size is the order of a PMD mapping and the number of index bits that an XArray node resolves.
The tests explore small sizes exhaustively or with bounded preemption, and large sizes at random.
LONG=1 explores more of both. The script also runs the compile-fail tests once.

It prints TAP. build/results/host.json lists the explored tests. The logs are in build/logs.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, "build")
TESTS = os.path.join(TOP, "tools", "testing", "collapse_file")
LONG = os.environ.get("LONG") == "1"

# Name, order, bits of a node, sanitizer, test binaries. In these sizes the range spans two nodes,
# shares a node with its neighbours, or needs sibling entries as well as nodes. Then follow the
# size of a real machine, and AddressSanitizer.
ALL = ["sequential", "dfs", "random"]
CONFIGS = [
    ("4 pages, nodes of 2", 2, 1, None, ALL),
    ("4 pages, nodes of 64", 2, 6, None, ALL),
    ("8 pages, nodes of 4", 3, 2, "undefined", ALL if LONG else ["sequential", "random"]),
    ("512 pages, nodes of 64", 9, 6, "undefined", ["sequential", "random"]),
    ("8 pages, with ASAN", 3, 2, "address", ["sequential", "random"]),
]

PASS = re.compile(r"^\s*PASS \[.*?\] +(?:\(.*?\) +)?\S+ (\S+)|^test (\S+) \.\.\. ok")
FAIL = re.compile(r"^\s*(?:FAIL|SIG\w+|ABORT|TIMEOUT|LEAK-FAIL) \[.*?\] +(?:\(.*?\) +)?\S+ (\S+)"
                  r"|^test (\S+) \.\.\. (?:FAILED|mismatch|error|wip)")
IGNORED = re.compile(r"^test (\S+) \.\.\. ignored, (.*)")


def die(what):
    sys.exit(f"error: {what}")


def kernel_tree():
    """Returns the tree that contains lib/xarray.c."""
    candidates = [os.environ["KSRC"]] if os.environ.get("KSRC") else [os.path.join(BUILD, "linux")]
    for tree in candidates:
        if os.path.exists(os.path.join(tree, "lib", "xarray.c")):
            return os.path.abspath(tree)
    die(f"no kernel source ({candidates[0]}); run 'make source', or set KSRC to a Linux 7.3 tree")


def tools():
    """Returns the paths of the kernel's compiler and of cargo.

    RUSTC must name the compiler, because rustup's cargo uses a different one by default.
    """
    rustc = subprocess.run(["bash", "-c", '. "$0" && echo "$RUSTC"', os.path.join(TOP, "scripts", "lib", "lib.sh")],
                           stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    cargo = shutil.which("/usr/bin/cargo") or shutil.which("cargo")
    for tool, path in ((rustc, shutil.which(rustc)), ("cargo", cargo), ("cc", shutil.which("cc"))):
        if not path:
            die(f"a tool is missing ({tool}); run 'make setup', or set RUSTC to a compiler")
    return rustc, cargo


def has_nextest(cargo):
    """Returns whether cargo-nextest is installed."""
    return subprocess.run([cargo, "nextest", "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def host_triple(rustc):
    """Returns the target triple that the compiler builds for by default."""
    text = subprocess.run([rustc, "-vV"], stdout=subprocess.PIPE, check=True, text=True).stdout
    return re.search(r"^host: (\S+)", text, re.M).group(1)


def asan_runtime():
    """Returns the path of the C compiler's AddressSanitizer runtime, or None."""
    path = subprocess.run(["cc", "-print-file-name=libasan.so"], stdout=subprocess.PIPE, check=True,
                          universal_newlines=True).stdout.strip()
    return os.path.realpath(path) if os.path.isabs(path) else None


def expected_results():
    """Returns the results that the tests can reach: all of enum ScanResult except one.

    The range is not the first of the file. Its node therefore exists, and storing cannot fail.
    """
    with open(os.path.join(TOP, "rust", "kernel", "mm", "collapse", "control.rs")) as source:
        return set(re.findall(r"= bindings::scan_result_(SCAN_\w+)", source.read())) - {"SCAN_STORE_FAILED"}


class Run:
    """The results of all configurations."""

    def __init__(self):
        self.tests, self.passed, self.failed, self.skipped, self.seen = [], 0, 0, 0, set()

    def result(self, what, wrong=None, skip=None):
        """Prints the line of one test."""
        self.passed += not wrong and not skip
        self.failed += bool(wrong)
        self.skipped += bool(skip)
        number = self.passed + self.failed + self.skipped
        print(f"{'not ' if wrong else ''}ok {number} {what}" + (f"; {wrong}" if wrong else "") +
              (f" # SKIP {skip}" if skip else ""), flush=True)

    def cargo(self, name, log, command, environment, reports=None):
        """Runs tests and takes their results from the log and from the directory of reports, if any."""
        log = os.path.join(BUILD, "logs", log)
        begin = time.time()
        with open(log, "w") as output:
            status = subprocess.run(command, cwd=TESTS, env=environment, stdin=subprocess.DEVNULL,
                                    stdout=output, stderr=subprocess.STDOUT).returncode
        with open(log, errors="replace") as output:
            text = output.read()
        passed, failed, ignored = {}, {}, {}
        for line in text.splitlines():
            for kind, found in ((passed, PASS.match(line)), (failed, FAIL.match(line))):
                if found:
                    kind[found.group(1) or found.group(2)] = None
            found = IGNORED.match(line)
            if found:
                ignored[found.group(1)] = found.group(2)
        if status and not failed:
            error = re.search(r"^\s*(error: .*)", text, re.M)
            failed["build, start or end" + (f" ({error.group(1)})" if error else "")] = None
        if not status and not passed and not ignored:
            failed["no test was found"] = None

        passed = [test for test in passed if test not in failed]
        print(f"# {name}: {len(passed)} passed, {len(failed)} failed, {time.time() - begin:.0f} s")
        explored = self.reports(name, reports) if reports else {}
        for test in passed:
            self.result(f"{test}: {name}{explored.get(test, '')}")
        for test, why in ignored.items():
            self.result(f"{test}: {name}", skip=why)
        for test in failed:
            self.result(f"{test}: {name}", wrong=f"the whole log, with a timeline, is {os.path.relpath(log, TOP)}")

    def config(self, number, config, environment, cargo, rustc):
        """Runs the tests in one size."""
        name, order, shift, sanitizer, binaries = config
        if sanitizer == "address" and not asan_runtime():
            self.result(name, skip="the C compiler has no libasan.so")
            return
        reports = os.path.join(BUILD, "host", "reports", str(number))
        shutil.rmtree(reports, ignore_errors=True)
        os.makedirs(reports)
        environment = dict(environment, COLLAPSE_ORDER=str(order), COLLAPSE_XA_SHIFT=str(shift),
                           HOST_TEST_REPORT=reports)
        nextest = has_nextest(cargo)
        command = [cargo] + (["nextest", "run", "--no-fail-fast", "--no-output-indent", "-j1"] if nextest
                             else ["test", "--no-fail-fast"])
        if sanitizer:
            environment["COLLAPSE_SANITIZE"] = sanitizer
        if sanitizer == "address":
            # With an explicit target, cargo does not instrument build scripts and macros. The
            # runtime is that of the C compiler. It is preloaded, because its malloc() must be used.
            triple = host_triple(rustc)
            target = "CARGO_TARGET_" + triple.upper().replace("-", "_")
            environment |= {"ASAN_OPTIONS": "detect_leaks=0", "RUSTC_BOOTSTRAP": "1", "CARGO_BUILD_TARGET": triple,
                            target + "_RUSTFLAGS": "-Zsanitizer=address -Zexternal-clangrt",
                            target + "_RUNNER": f"env LD_PRELOAD={asan_runtime()}"}
        for binary in binaries:
            command += ["--test", binary]
        if not nextest:
            command += ["--", "--test-threads=1"]
        self.cargo(name, f"host-test-{number}.log", command, environment, reports)

    def reports(self, config, directory):
        """Reads the reports of the tests and returns in words what each test explored."""
        explored = {}
        for file in sorted(os.listdir(directory)):
            with open(os.path.join(directory, file)) as report:
                test = json.load(report)
            self.seen.update(test.pop("results"))
            self.tests.append(dict(test, name=f"{config}: {test['name']}"))
            # Some tests explore several times and write one numbered report each time.
            name = re.sub(r"-\d+$", "", test["name"])
            explored[name] = (test["mode"], explored.get(name, ("", 0))[1] + test["schedules"])
        return {name: f", {number} cases" if mode == "sequential" else f", {mode}, {number} schedules"
                for name, (mode, number) in explored.items()}

    def save(self):
        """Writes the results file and returns its path."""
        return results.write("host", {"tests": self.tests, "passed": self.passed, "failed": self.failed,
                                      "skipped": self.skipped})


def main():
    argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0],
                            epilog="LONG=1 in the environment also runs the deep tests").parse_args()
    rustc, cargo = tools()
    environment = dict(os.environ, KSRC=kernel_tree(), RUSTC=rustc, CARGO_TARGET_DIR=os.path.join(BUILD, "host"),
                       CARGO_TERM_COLOR="never", NO_COLOR="1", RUST_BACKTRACE="0")
    # REPLAY and SHORTEST are for a single test. The sizes come from CONFIGS.
    for name in ("REPLAY", "SHORTEST", "SEED", "TRYBUILD", "COLLAPSE_ORDER", "COLLAPSE_XA_SHIFT", "COLLAPSE_SANITIZE"):
        environment.pop(name, None)
    os.makedirs(os.path.join(BUILD, "logs"), exist_ok=True)
    run = Run()
    for number, config in enumerate(CONFIGS):
        run.config(number, config, environment, cargo, rustc)
    # nextest is not used here, because it prints neither the cases nor the reason of an ignored test.
    run.cargo("does not compile", "host-test-compile-fail.log",
              [cargo, "test", "-p", "compile-fail", "--test", "mistakes"], environment)
    missing = expected_results() - run.seen
    run.result("every result was seen", wrong=f"not {', '.join(sorted(missing))}" if missing else None)
    path = run.save()
    print(f"1..{run.passed + run.failed + run.skipped}")
    print(f"# {sum(t['schedules'] for t in run.tests)} executions; {os.path.relpath(path, TOP)}")
    print(f"{run.passed} passed, {run.failed} failed, {run.skipped} skipped")
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    main()
