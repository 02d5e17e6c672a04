#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run all tests, benchmarks and checks on the same sources, a part at a time.

It first prints the parts and the time that each takes. It does not repeat a part that passed on a
commit with the same sources, so an interrupted run can be resumed. build/results/test-all.json has
the commit, outcome and time of each part. The output goes to build/logs/test-all-PART.log.
"""

import argparse
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402

PATH = os.path.join(results.RESULTS, "test-all.json")
LOGS = os.path.join(results.TOP, "build", "logs")
FUZZ_PIECES = 5
# Name, arguments of make, and the minutes on two cores without KVM, including the kernel build.
PARTS = [
    ("test", ["test"], 50),
    ("lint", ["lint"], 3),
    ("host-long", ["host-test", "LONG=1"], 30),
    ("litmus", ["litmus"], 1),
    ("mutants-host", ["mutants-host"], 40),
    ("test-kasan", ["test", "DEBUG=kasan"], 90),
    ("test-kcsan", ["test", "DEBUG=kcsan"], 90),
    ("test-two-cpus", ["test", "DEBUG=two-cpus"], 45),
    ("test-up", ["test", "DEBUG=up"], 45),
    ("test-arm64", ["test", "ARCH=arm64"], 120),
    *[(f"fuzz-{piece}", ["fuzz", "CASES=20000", "LEDGER=1"], 90) for piece in range(1, FUZZ_PIECES + 1)],
    ("clients", ["clients"], 40),
    ("bench", ["bench"], 20),
    ("bench-locks", ["bench-locks"], 20),
    ("bench-contention", ["bench-contention"], 45),
    ("coverage", ["coverage"], 30),
    ("mutants-vm", ["mutants-vm"], 240),
    ("patches-check", ["patches-check"], 60),
    ("rustdoc", ["rustdoc"], 10),
    ("htmldocs", ["htmldocs"], 3),
]


def load():
    """Returns the results of earlier runs."""
    try:
        with open(PATH) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def has_passed(before):
    """Returns whether a part has passed with the sources of the tree."""
    return before.get("ok") and results.has_same_sources(before["commit"])


def show(parts, done, commit):
    """Prints the parts that will run and the time that they need."""
    print(f"{'part':18}{'command':38}{'minutes':>8}  state")
    total = 0
    for name, goals, minutes in parts:
        before = done.get(name, {})
        passed = has_passed(before)
        minutes = round(before["seconds"] / 60) if before.get("ok") else minutes
        total += 0 if passed else minutes
        print(f"{name:18}{'make ' + ' '.join(goals):38}{minutes:8}  {'passed on ' + before['commit'] if passed else 'to be run'}")
    print(f"\n{total // 60} h {total % 60} min to go, on commit {commit}\n", flush=True)


def run(name, goals):
    """Runs a part and returns whether it passed, and its time in seconds."""
    os.makedirs(LOGS, exist_ok=True)
    log = os.path.join(LOGS, f"test-all-{name}.log")
    begun = time.monotonic()
    print(f"==> {time.strftime('%H:%M')} make {' '.join(goals)} (log: {os.path.relpath(log, results.TOP)})", flush=True)
    with open(log, "w") as output:
        status = subprocess.call(["make", "-C", results.TOP, *goals], stdin=subprocess.DEVNULL, stdout=output,
                                 stderr=subprocess.STDOUT)
    seconds = round(time.monotonic() - begun)
    print(f"==> {name}: {'passed' if status == 0 else 'FAILED'}, {seconds // 60} min {seconds % 60} s", flush=True)
    return status == 0, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--list", action="store_true", help="print the parts, and exit")
    parser.add_argument("names", nargs="*", metavar="PART", help="run only these parts")
    args = parser.parse_args()
    unknown = set(args.names) - {part[0] for part in PARTS}
    if unknown:
        parser.error(f"unknown part ({', '.join(sorted(unknown))}); run with --list to see all")
    commit, done = results.commit(), load()
    if commit.endswith("-dirty"):
        print("warning: files differ from the commit, so the parts that run now will run again", file=sys.stderr)
    parts = [part for part in PARTS if not args.names or part[0] in args.names]
    show(parts, done, commit)
    if args.list:
        return 0
    failed = []
    for name, goals, _ in parts:
        if has_passed(done.get(name, {})):
            continue
        passed, seconds = run(name, goals)
        failed += [] if passed else [name]
        done = load() | {name: {"commit": commit, "ok": passed, "seconds": seconds}}
        os.makedirs(results.RESULTS, exist_ok=True)
        results.write_json(PATH, done)
    if failed:
        sys.exit(f"error: parts failed ({', '.join(failed)}); see build/logs/test-all-PART.log")
    print("==> all parts passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
