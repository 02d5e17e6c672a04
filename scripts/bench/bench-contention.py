#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measure how often a collapse succeeds while the range is in use, in C and in Rust.

collapse_contention runs in a guest with two CPUs. It alternates between the implementations in
small blocks of tries. A mode is the way in which another thread uses the range. The table has a
line for each mode. p is the p value of Fisher's exact test, two-sided: the chance of such a
difference if both succeed equally often. Results go to build/results/contention.json.
"""

import argparse
import collections
import math
import os
import shlex
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import bench  # noqa: E402
import results  # noqa: E402
import vm  # noqa: E402

# collapse_contention.c describes the modes.
MODES = ["alone", "pread", "pread-rests", "two-preaders", "pwrite", "pwrite-rests", "touch", "read-fault",
         "read-fault-rests", "write-fault", "write-fault-rests", "second-collapser", "vmsplice", "pageout"]
# This mode runs only on request, because its 256 processes make it slow.
WAIT_MODE = "wait-i-mmap"
# If the kernel detects a hypervisor, it uses unfair spinlocks, and an emulated CPU may wait for
# seconds. If the CPU has fast strings, QEMU copies byte by byte, and copying dominates the time.
CPU = "-cpu max,-hypervisor,-erms,-fsrm"
# With fewer tries the result is not significant.
FEWEST_TRIES = 200
BEYOND_CHANCE = 0.01


def fisher(ok_a, tries_a, ok_b, tries_b):
    """Returns the p value of Fisher's exact test, two-sided."""
    total, ok = tries_a + tries_b, ok_a + ok_b

    def choices(n, k):
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    def chance(at):
        return math.exp(choices(tries_a, at) + choices(tries_b, ok - at) - choices(total, ok))

    # Outcomes that are as unlikely as this one count too. The factor allows for rounding errors.
    seen = chance(ok_a) * (1 + 1e-7)
    chances = [chance(at) for at in range(max(0, ok - tries_b), min(ok, tries_a) + 1)]
    return min(1.0, sum(one for one in chances if one <= seen))


def microseconds(nanoseconds):
    """Converts nanoseconds to the unit of the results."""
    return round(nanoseconds / 1000, 1)


class Results:
    """The output of collapse_contention."""

    def __init__(self, count):
        self.entries = collections.OrderedDict()
        self.count, self.begun = count, 0
        self.started = time.monotonic()
        self.error = None

    def line(self, text):
        """Parses one line."""
        word, *rest = text.split() or [""]
        if word == "begin":
            self.begun += 1
            spent = int(time.monotonic() - self.started)
            print(f"    {spent // 60:3} min {spent % 60:02} s  {rest[0]} ({self.begun} of {self.count})", flush=True)
        elif word == "tries":
            tries, ok, spent = map(int, rest[2:])
            self.entries[tuple(rest[:2])] = {"mode": rest[0], "impl": rest[1], "tries": tries, "ok": ok,
                                             "us_per_try": microseconds(spent / tries), "times": {}, "results": {}}
        elif word == "time":
            median, p99, longest, count = map(int, rest[3:])
            self.entries[tuple(rest[:2])]["times"][rest[2]] = {
                "us_median": microseconds(median), "us_p99": microseconds(p99), "us_max": microseconds(longest),
                "count": count}
        elif word == "result":
            self.entries[tuple(rest[:2])]["results"][rest[2]] = int(rest[3])
        elif text.startswith("error: "):
            self.error = text[len("error: "):]
        elif text:
            print(text, flush=True)

    def pairs(self):
        """Yields each mode with its results for C and for Rust."""
        for mode, impl in self.entries:
            if impl == "c":
                yield mode, self.entries[mode, "c"], self.entries[mode, "rust"]


def boot(args, accel, options):
    """Runs collapse_contention in a guest and returns its results."""
    results = Results(len(args.modes))
    command = shlex.join([os.path.join(vm.TOP, "scripts/guest/bench.sh")] + options + args.modes)
    console = os.path.join(vm.BUILD, "logs", "bench-contention-console.log")
    line = vm.command_line(args.kernel, accel, args.memory, 2, [], vm.make_disks(os.path.join(vm.BUILD, "disks")),
                           f"BENCH=collapse_contention BENCH_DIRS= {command} 2>&1", CPU if accel == "tcg" else "")
    status = vm.run(line, console, results.line)
    said = vm.splats(console)
    if results.error or said:
        raise vm.Failed(results.error or f"the kernel said: {said[0]}")
    if status:
        raise vm.Failed(f"the guest's script ended with status {status}")
    return results


def add_comparison(c, rust):
    """Adds the ratio of the rates and p to both, if there are enough tries, and returns the verdict."""
    rates = [impl["ok"] / impl["tries"] for impl in (c, rust)]
    if min(c["tries"], rust["tries"]) < FEWEST_TRIES:
        return f"too few tries (minimum {FEWEST_TRIES})"
    p = fisher(c["ok"], c["tries"], rust["ok"], rust["tries"])
    for impl in (c, rust):
        impl["p"] = p
        impl["ratio"] = round(rates[1] / rates[0], 4) if rates[0] else None
    if p >= BEYOND_CHANCE:
        return "no significant difference"
    return "Rust BELOW C" if rates[1] < rates[0] else "Rust above C"


def pair_of(value):
    """Formats the median and the 99th percentile for the table."""
    return f"{value['us_median']:,.0f} / {value['us_p99']:,.0f}" if value else "-"


def print_tables(results):
    """Prints a line for each mode, and the waits for the lock in a separate table."""
    rows, waits, refused = [], [], []
    for mode, c, rust in results.pairs():
        if mode == WAIT_MODE:
            for what, ours in c["times"].items():
                theirs = rust["times"].get(what)
                if theirs:
                    waits.append([what] + [f"{side[key]:,.0f}" for key in ("us_median", "us_p99", "us_max")
                                           for side in (ours, theirs)] +
                                 [f"{theirs['us_median'] / ours['us_median']:.2f}"])
            continue
        verdict = add_comparison(c, rust)
        ratio = c.get("ratio")
        rows.append([mode] + [f"{side['ok']}/{side['tries']}" for side in (c, rust)] +
                    ["-" if ratio is None else f"{ratio:.3f}", f"{c['p']:.2g}" if "p" in c else "-"] +
                    [f"{side['us_per_try']:,.0f}" for side in (c, rust)] +
                    [pair_of(side["times"].get(what)) for what in ("success", mode) for side in (c, rust)] + [verdict])
        refused += [f"{mode}, {side['impl']}: " + ", ".join(f"{count} {word}" for word, count in
                                                           sorted(side["results"].items(), key=lambda item: -item[1]))
                    for side in (c, rust) if side["results"]]
    if rows:
        bench.table(["", "C: ok", "Rust: ok", "ratio", "p", "C: us/try", "Rust: us/try", "C: success", "Rust: success",
                     "C: wait", "Rust: wait", ""], rows)
        print("success, wait: us, the median and the 99th percentile of the tries that succeeded, and of the other "
              "thread's longest operation during each of these")
    if waits:
        bench.table(["us", "C: median", "Rust: median", "C: p99", "Rust: p99", "C: max", "Rust: max", "ratio"], waits)
    if refused:
        print("\n" + "\n".join(refused))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--accel", default="auto")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--tries", type=int, help="number of tries in each mode with each implementation")
    parser.add_argument("--trace", action="store_true", help="also count the results in the trace events")
    parser.add_argument("modes", nargs="*", metavar="MODE", help="run only these modes: " + ", ".join(MODES + [WAIT_MODE]))
    args = parser.parse_args()
    vm.end_with_us()
    for name in args.modes:
        if name not in MODES + [WAIT_MODE]:
            parser.error(f"unknown mode ({name}); choose from {', '.join(MODES + [WAIT_MODE])}")
    if args.tries is not None and args.tries < 1:
        parser.error(f"--tries is less than 1 ({args.tries}); give a positive number")
    args.modes = args.modes or MODES

    try:
        accel = vm.accelerator(args.accel, args.kernel)
        found = boot(args, accel, (["-n", str(args.tries)] if args.tries else []) + (["-t"] if args.trace else []))
    except vm.Failed as failed:
        sys.exit(f"error: {failed}; the console is in build/logs")
    print_tables(found)
    results.write("contention", list(found.entries.values()), part=args.modes != MODES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
