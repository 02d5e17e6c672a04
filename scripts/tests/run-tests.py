#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run all tests: the suites in a guest with a debug kernel and both
implementations, the KUnit tests while that kernel boots, and the suites on the host.

The script prints KTAP while the tests run, and then a table and the sums. The sums also go to
build/results/test.json. results.json lists which test reached each result of collapse_file(). At
the end report.py writes the HTML page and the XML files. The run fails if a test fails, if the
guest does not finish, or if its kernel reports a bug or a leak.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import ktap  # noqa: E402
import report  # noqa: E402
import results  # noqa: E402
import vm  # noqa: E402

HOST_SUITES = ["parser", "report", "scan-results", "host", "litmus", "xarray", "variants", "object-code",
               "stack-frames", "series", "job", "bad-input"]
# KUnit runs in this guest only. The filter selects our suites, rust_kernel_*, and our examples,
# rust_doctests_kernel. Some of the kernel's own KUnit tests are always built.
KUNIT_BOOT = ["kunit.autorun=1", "kunit.filter_glob=rust_*kernel*"]
# The number of lines before a failure that are repeated at the end.
TOLD = 12
KUNIT_WORD = {"PASS": "ok", "SKIP": "ok"}


def run_guest(args, console, log):
    """Runs the suites in the guest.

    Returns the suites, a list of problems, the kernel's reports, and whether to try again.
    """
    run = ktap.Run()
    again = False
    begin = 0

    def on_line(text):
        nonlocal begin
        print(text, flush=True)
        log.write(text + "\n")
        suite = run.current
        run.line(text)
        if run.current is not suite:
            if suite:
                suite.seconds = time.monotonic() - begin
            begin = time.monotonic()

    command = shlex.join([vm.in_guest("scripts/guest/tests.sh")] +
                         (["-i", args.impl] if args.impl else []) + args.suites)
    # The console of an earlier guest is emptied, because this guest may not start at all.
    open(console, "w").close()
    try:
        disks = vm.make_disks(os.path.join(vm.BUILD, "disks"))
        args.used_accel = accel = vm.accelerator(args.accel, args.kernel)
        line = vm.command_line(args.kernel, accel, args.memory, args.cpus,
                               vm.TEST_BOOT + (KUNIT_BOOT if wants_kunit(args) else []), disks, command)
        status = vm.run(line, console, on_line)
        wrong = [] if status == 0 else [f"the guest's script ended with status {status}"]
    except vm.Failed as failed:
        wrong = [str(failed)]
        again = vm.emulator_tripped(console)
        sys.stderr.write(vm.tail(console))
    run.ended()
    return run.suites, wrong, vm.splats(console) + run.leaks, again


def wants_kunit(args):
    """Returns whether the KUnit tests should run."""
    return not args.suites or "kunit" in args.suites


def kunit_cases(group, name):
    """Yields the cases below a group of kunit.py's JSON in order, with their status."""
    for sub_group in group["sub_groups"]:
        yield from kunit_cases(sub_group, sub_group["name"])
    for case in group["test_cases"]:
        yield name, case["name"], case["status"]


def kunit_results(console):
    """Yields the KUnit results in a console as KTAP.

    The kernel's kunit.py parses the console. Its output precedes each result as comments.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "kunit.json")
        said = subprocess.run([sys.executable, "-B", os.path.join(vm.BUILD, "linux/tools/testing/kunit/kunit.py"), "parse",
                               "--json=" + path, console], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False).stdout
        try:
            with open(path) as file:
                told = json.load(file)
        except (OSError, ValueError):
            told = {"sub_groups": [], "test_cases": [], "misc": {"errors": 0}}
    cases = list(kunit_cases(told, "kunit"))
    lines = [f"{KUNIT_WORD.get(status, 'not ok')} {number} {suite}: {case or 'a test that did not end'}" +
             (" # SKIP" if status == "SKIP" else "")
             for number, (suite, case, status) in enumerate(cases, 1)]
    names = [case for _, case, _ in cases]

    for text in said.splitlines():
        text = re.sub(r"^\[[\d:]+\] ", "", text)
        yield "# " + text
        ended = re.fullmatch(r"\[[A-Z_]+\] (.*)", text)
        if ended and names and ended.group(1) == names[0]:
            names.pop(0)
            yield lines.pop(0)
    yield from lines
    if not cases:
        yield "not ok 1 the console has no KUnit results; check that the kernel has CONFIG_KUNIT and that it booted"
    elif told["misc"]["errors"] and all(status in KUNIT_WORD for *_, status in cases):
        yield f"not ok {len(cases) + 1} the console's KTAP is malformed or incomplete; see the lines with ERROR"


def run_kunit(console, suites, log):
    """Adds the KUnit tests that the guest's kernel ran while it booted."""
    suite = ktap.Suite("kunit", "host")
    suites.append(suite)
    for text in ["#suite kunit host", *kunit_results(console)]:
        print(text, flush=True)
        log.write(text + "\n")
        suite.line(text)
    suite.end(0)
    log.write("#end kunit host 0\n")


def run_host(names, suites, log):
    """Runs the suites on the host. Each suite is a script."""
    for name in names:
        suite = ktap.Suite(name, "host")
        suites.append(suite)
        print(f"#suite {name} host", flush=True)
        log.write(f"#suite {name} host\n")
        begin = time.monotonic()
        with subprocess.Popen([os.path.join(vm.TOP, "scripts/suites", name + ".sh")], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for text in process.stdout:
                print(text, end="", flush=True)
                log.write(text)
                suite.line(text.rstrip("\n"))
        suite.end(process.returncode)
        suite.seconds = time.monotonic() - begin
        log.write(f"#end {name} host {process.returncode}\n")


def table(suites):
    """Prints a table with a row for each suite and a column for each implementation."""
    impls, rows = results.suite_table(suites)
    print()
    rows.insert(0, ["suite", *impls])
    width = max(len(row[0]) for row in rows) + 2
    for name, *cells in rows:
        print((f"{name:<{width}}" + "".join(f"{cell:<24}" for cell in cells)).rstrip())


def told(suites, wrong, splats, run):
    """Returns the content of test.json."""
    return {"suites": [{"name": s.name, "impl": s.impl, "passed": s.passed, "failed": s.failed, "skipped": s.skipped,
                        "tries": s.tries, "seconds": round(s.seconds, 1)} for s in suites],
            "wrong": wrong, "splats": len(splats), "said": splats[:20], "run": run}


def about(args):
    """Returns a description of the tested kernel and its guest."""
    def said(*command):
        return subprocess.run(command, cwd=vm.TOP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False).stdout.strip()
    return {"arch": vm.ARCH, "commit": said("git", "describe", "--always", "--abbrev=12", "--dirty"),
            "linux": said("bash", "-c", '. scripts/lib/lib.sh && . scripts/series/series.sh && kernel_version "$BUILD/linux" full'),
            "kernel": os.path.relpath(args.kernel, vm.TOP).split("/build-")[-1].split("/")[0],
            "accel": args.used_accel, "memory": args.memory, "cpus": args.cpus}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--name", default="test", help="name of the log and of the results file")
    parser.add_argument("--accel", default="auto")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs of the guest")
    parser.add_argument("--impl", choices=["rust", "c"], help="test only this implementation")
    parser.add_argument("--guest-only", action="store_true", help="leave out the suites on the host")
    parser.add_argument("suites", nargs="*", help="run only these suites")
    args = parser.parse_args()
    args.used_accel = None
    # A run of some tests does not replace the results of a full one.
    if args.suites or args.impl or args.guest_only:
        args.name += "-part"
    vm.end_with_us()

    os.makedirs(results.RESULTS, exist_ok=True)
    console = os.path.join(vm.BUILD, "logs", args.name + "-console.log")
    suites = []
    with open(os.path.join(results.RESULTS, args.name + ".ktap"), "w") as log:
        host = [name for name in HOST_SUITES if not args.guest_only and (not args.suites or name in args.suites)]
        if host:
            run_host(host, suites, log)
        wrong, splats = [], []
        if not args.suites or set(args.suites) - set(HOST_SUITES):
            in_guest, wrong, splats, again = run_guest(args, console, log)
            if again:
                kept = console.replace("-console", "-console-1")
                os.rename(console, kept)
                log.write(ktap.BOOTED_AGAIN + "\n")
                print(f"==> the emulator delivered a stale breakpoint ({os.path.relpath(kept, vm.TOP)}); trying again")
                in_guest, wrong, splats, _ = run_guest(args, console, log)
            suites += in_guest
            if wants_kunit(args):
                run_kunit(console, suites, log)

    for name in sorted(set(args.suites) - {suite.name for suite in suites}):
        wrong.append(f"the suite {name} does not exist or did not run")
    content = told(suites, wrong, splats, about(args))
    table(content["suites"])
    for suite in suites:
        for name, outcome, detail in suite.cases:
            if outcome == "failed":
                print(f"FAILED: {suite.name} ({suite.impl}): {name}")
                # The end of the output repeats the details of each failure.
                print("".join(f"    {text}\n" for text in detail.splitlines()[-TOLD:]), end="")
    for line in wrong:
        print(f"FAILED: {line}; the console is in {os.path.relpath(console, vm.TOP)}")
    for line in splats[:20]:
        print(f"FAILED: the kernel said: {line}")

    results.write(args.name, content)
    reached = {s.impl: s.reached for s in suites if s.reached}
    if reached:
        results.write("results", reached, part=args.name.endswith("-part"))
    passed = sum(s.passed for s in suites)
    failed = sum(s.failed for s in suites) + len(wrong) + len(splats)
    skipped = sum(s.skipped for s in suites)
    try:
        print()
        report.write()
    except Exception as error:  # pylint: disable=broad-exception-caught
        # An error in the report must not hide the results of the tests.
        print(f"FAILED: the report cannot be written: {error!r}")
        failed += 1
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
