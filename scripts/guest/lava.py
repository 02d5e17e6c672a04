#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run the suites on a lab machine, as root, and report each test to LAVA.

    lava.py [-i IMPL] [SUITE...]

The suites use images in a directory of this machine ($WORK, default /var/tmp) as disks. If LAVA's
programs are not installed, the script only prints the output of tests.sh and the sums. The exit
status is 0 if all tests pass and the kernel reports no bug or leak.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
# pylint: disable=wrong-import-position
import ktap  # noqa: E402
import vm  # noqa: E402

OUTCOMES = {"passed": "pass", "failed": "fail", "skipped": "skip"}


def tell(program, *args):
    """Calls one of LAVA's programs, if it is installed."""
    if shutil.which(program):
        subprocess.run([program, *args], check=False)


def tell_suite(suite):
    """Reports all tests of a suite to LAVA. A name in LAVA must not have blanks."""
    def name(text):
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")[:120] or "test"
    tell("lava-test-set", "start", name(f"{suite.name}-{suite.impl}"))
    for case, outcome, _ in suite.cases:
        tell("lava-test-case", name(case), "--result", OUTCOMES[outcome])
    tell("lava-test-set", "stop")


def kernel_log():
    """Returns the lines of the kernel's log."""
    return subprocess.run([vm.tool("dmesg")], check=True, stdout=subprocess.PIPE, text=True,
                          errors="replace").stdout.splitlines(keepends=True)


def complaints(before, directory):
    """Returns the lines in the kernel's log after `before` that report a bug."""
    said = kernel_log()
    # The log is a ring buffer, and may have overwritten the last old line.
    if before and before[-1] in said:
        said = said[said.index(before[-1]) + 1:]
    path = os.path.join(directory, "dmesg")
    with open(path, "w") as file:
        file.writelines(said)
    return vm.splats(path)


def run(arguments, environment, directory):
    """Runs the suites, reports them to LAVA, and returns the exit status."""
    log = ktap.Run()
    before = kernel_log()
    with subprocess.Popen([os.path.join(HERE, "tests.sh")] + arguments, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            suite = log.current
            log.line(line.rstrip("\n"))
            if suite and not log.current:
                tell_suite(suite)
    if log.current:
        suite = log.current
        log.ended()
        tell_suite(suite)
    wrong = log.leaks + ([f"tests.sh ended with status {process.returncode}"] if process.returncode else [])
    tell("lava-test-case", "nothing-is-lost", "--result", "fail" if wrong else "pass")
    complained = complaints(before, directory)
    for line in complained:
        print("the kernel complained: " + line)
    tell("lava-test-case", "kernel-complains-of-nothing", "--result", "fail" if complained else "pass")
    wrong += complained
    failed = sum(suite.failed for suite in log.suites)
    print(f"\n{sum(suite.passed for suite in log.suites)} passed, {failed + len(wrong)} failed, "
          f"{sum(suite.skipped for suite in log.suites)} skipped")
    return 1 if failed or wrong or not log.suites else 0


def main():
    if "-h" in sys.argv[1:] or "--help" in sys.argv[1:]:
        print(__doc__)
        return 0
    loops = []
    try:
        with tempfile.TemporaryDirectory(prefix="collapse-file-", dir=os.environ.get("WORK", "/var/tmp")) as directory:
            try:
                for image in vm.make_disks(directory):
                    loops.append(subprocess.run([vm.tool("losetup"), "--find", "--show", image], check=True,
                                                stdout=subprocess.PIPE, text=True).stdout.strip())
                return run(sys.argv[1:], dict(os.environ, DISKS=" ".join(loops)), directory)
            finally:
                for loop in loops:
                    # One of the devices is in use as swap.
                    subprocess.run([vm.tool("swapoff"), loop], check=False, stderr=subprocess.DEVNULL)
                    subprocess.run([vm.tool("losetup"), "--detach", loop], check=False)
    except (vm.Failed, OSError, subprocess.CalledProcessError) as failed:
        sys.exit(f"error: the suites cannot run ({failed}); set WORK to a directory with space for the disks")


if __name__ == "__main__":
    sys.exit(main())
