#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measure the cost of a collapse in C and in Rust.

collapse_bench runs in the guest and alternates between the implementations. With KVM it measures
time in ns. Without KVM the guest's clock counts instructions, and their number does not depend on
the machine. The floor is the cost of copying and clearing, and the targets are for the cost above
the floor. A second kernel has no batches. It shows how much of the difference is due to batching.

With --locks the kernel counts lock acquisitions and records when interrupts are off, and the
script compares these. Results go to build/results/bench.json or bench_locks.json.
"""

import argparse
import collections
import os
import random
import re
import shlex
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402
import vm  # noqa: E402

LLVM = os.environ.get("LLVM", "-22")
RESAMPLES = 2000
# The largest relative error of QEMU's clock when it counts instructions.
CLOCK_ERROR = 0.001
# The highest cost of Rust relative to C, both without the floor.
TARGETS = {"mapped": 0.45, "mapped-by-4": 0.40, "mapped-by-64": 0.35, "not-mapped": 0.55, "half-holes": 0.45,
           "one-page": 0.50, "order-4": 0.80, "swapped-out": 0.94, "uffd-rollback": 0.60, "filled-rollback": 0.60,
           "ext4-mapped": 0.52, "ext4-not-mapped": 0.80, "xfs-mapped": 0.52, "xfs-not-mapped": 0.80}
# Scenarios with a tighter target for the longest time with interrupts off.
HOLES = ("half-holes", "one-page", "uffd-rollback", "half-holes-30000-vmas")
# The target for the ratio of that time with many VMAs to the time with one VMA.
MANY_VMAS, ONE_VMA, VMAS_TARGET = "half-holes-30000-vmas", "half-holes", 1.1
# The highest number of lock acquisitions relative to C, which takes the lock twice for each page.
LOCK_TARGETS = {name: 0.10 for name in ("mapped", "mapped-by-4", "mapped-by-64", "not-mapped", "half-holes",
                                        "swapped-out", "uffd-rollback", "ext4-mapped", "ext4-not-mapped",
                                        "xfs-mapped", "xfs-not-mapped")}
# If the median is further above the minimum than this, no ratio is printed.
SPREAD = 0.01


class Samples:
    """The samples that collapse_bench printed."""

    def __init__(self):
        self.values = collections.OrderedDict()
        self.causes = collections.defaultdict(collections.Counter)
        self.bystander = []
        self.clocks = []
        self.error = None

    def line(self, text):
        """Parses one line."""
        sample = re.match(r"sample (\S+) (c|rust|floor) (\d+)(?: caller=(\S+))?", text)
        clock = re.match(r"clock (\d+) (\d+)$", text)
        bystander = re.match(r"bystander (touch|read) (c|rust) (\d+) (\d+) (\d+) (\d+)$", text)
        if sample:
            name, impl, value, cause = sample.groups()
            self.values.setdefault(name, collections.defaultdict(list))[impl].append(int(value))
            if cause:
                self.causes[name, impl][cause] += 1
        elif clock:
            self.clocks.append((int(clock.group(1)), int(clock.group(2))))
        elif bystander:
            self.bystander.append((bystander.group(1), bystander.group(2),
                                   [int(number) for number in bystander.groups()[2:]]))
        elif text.startswith("error: "):
            self.error = text[len("error: "):]
        elif text:
            print(text, flush=True)


def boot(args, accel, name, options, cpus=1, environment="", kernel=None):
    """Runs collapse_bench in a guest and returns its samples."""
    samples = Samples()

    def on_line(text):
        before = len(samples.values)
        samples.line(text)
        if len(samples.values) > before:
            print(f"    {next(reversed(samples.values))}", flush=True)

    command = f"{environment} {shlex.join([os.path.join(vm.TOP, 'scripts/guest/bench.sh')] + options)} 2>&1"
    console = os.path.join(vm.BUILD, "logs", f"bench-{name}-console.log")
    # With -icount only one CPU runs at a time, and the clock counts the instructions of all CPUs.
    qemu = "-icount shift=0" if accel == "tcg" else ""
    # All CPUs share one clock, but the kernel would mark the TSC as unstable.
    append = ["tsc=reliable"] if qemu else []
    line = vm.command_line(kernel or args.kernel, accel, args.memory, cpus, append,
                           vm.make_disks(os.path.join(vm.BUILD, "disks")), command.strip(), qemu)
    status = vm.run(line, console, on_line)
    said = vm.splats(console)
    if samples.error or said:
        raise vm.Failed(samples.error or f"the kernel said: {said[0]}")
    if status:
        raise vm.Failed(f"the guest's script ended with status {status}")
    if qemu and cpus == 1 and not (samples.clocks and all(abs(time - steps) <= CLOCK_ERROR * steps for steps, time in samples.clocks)):
        raise vm.Failed(f"the guest's clock does not count instructions ({samples.clocks[:1]})")
    return samples


def interval(c, rust):
    """Returns the 95 % confidence interval of the ratio of the medians, by bootstrap."""
    source = random.Random(0)
    ratios = sorted(statistics.median(source.choices(rust, k=len(rust))) /
                    statistics.median(source.choices(c, k=len(c))) for _ in range(RESAMPLES))
    return [round(ratios[len(ratios) * at // 1000], 4) for at in (25, 975)]


def entry(scenario, unit, c, rust, floor=None):
    """Returns one entry of the results file."""
    return {"scenario": scenario, "unit": unit, "c": c, "rust": rust,
            "ratio": round(rust / c, 4) if c else None, "floor": floor}


def number(value):
    """Formats a number for the table."""
    return "-" if value is None else f"{value:,}"


def verdict(ratio, target):
    """Returns the target and whether it is met, for the table."""
    if target is None or ratio is None:
        return ""
    return f"{target:.2f} {'met' if ratio <= target else 'MISSED'}"


def table(head, rows):
    """Prints a table with the first column aligned left and the others aligned right."""
    rows = [head] + rows
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) if not column else cell.rjust(width)
                        for column, (cell, width) in enumerate(zip(row, widths))).rstrip())


def times(args, accel, unit):
    """Measures the cost of each scenario, prints the table and returns the results."""
    options = ["-n", str(args.rounds or (100 if accel == "kvm" else 7))] + args.scenarios
    samples = boot(args, accel, "time", options)
    single = {}
    if args.one_by_one:
        print("    without batches:", flush=True)
        single = boot(args, accel, "one-by-one", options, kernel=args.one_by_one).values
    results, rows = [], []
    for name, values in samples.values.items():
        floor = min(values["floor"])
        lowest = {impl: min(values[impl]) for impl in ("c", "rust")}
        # The spread is relative to the cost above the floor.
        spread = {impl: (statistics.median(values[impl]) - low) / (low - floor) for impl, low in lowest.items()}
        c, rust = lowest["c"], lowest["rust"]
        result = entry(name, unit, c, rust, floor)
        result["spread"] = {impl: round(value, 4) for impl, value in spread.items()}
        if accel == "kvm":
            result["ratio_interval"] = interval(values["c"], values["rust"])
        without = "-"
        if name in single:
            result["one_by_one"] = {impl: min(single[name][impl]) for impl in ("c", "rust", "floor")}
            rest = {impl: value - result["one_by_one"]["floor"] for impl, value in result["one_by_one"].items()}
            without = f"{rest['rust'] / rest['c']:.3f}"
        results.append(result)
        steady = max(spread.values()) <= SPREAD
        beyond = (rust - floor) / (c - floor)
        rows.append([name, number(floor), number(c - floor), f"{spread['c']:.2%}", number(rust - floor),
                     f"{spread['rust']:.2%}", without, f"{beyond:.3f}" if steady else "-",
                     verdict(beyond if steady else None, TARGETS.get(name))])
    print("The difference between C and Rust is due to batching, which C could also use.")
    table([unit, "floor", "C - floor", "spread", "Rust - floor", "spread", "ratio one by one", "ratio", "target"], rows)
    return results


def bystander(args, accel, unit):
    """Measures the longest access per collapse of another CPU that touches and reads the range."""
    # Some collapses end before the other CPU accesses the range.
    samples = boot(args, accel, "bystander", ["-m", "bystander", "-n", str(max(args.rounds or 0, 50))], 2, "BENCH_DIRS=")
    found = {(action, impl): values for action, impl, values in samples.bystander}
    unit += "" if accel == "kvm" else ", of both CPUs"
    results, rows = [], []
    for action in ("touch", "read"):
        for at, what in enumerate(("p50", "p99", "max")):
            result = entry(f"bystander's {action}, {what}", unit, found[action, "c"][at], found[action, "rust"][at])
            results.append(result)
            rows.append([result["scenario"], number(result["c"]), number(result["rust"]), f"{result['ratio']:.3f}"])
    table([unit, "C", "Rust", "ratio"], rows)
    return results


def locks(args, accel, unit):
    """Counts acquisitions of the page-cache lock and measures the time with interrupts off."""
    options = ["-n", str(args.rounds or 5)]
    clock = "x86-tsc" if accel == "tcg" else "mono"
    counted = boot(args, accel, "locks", ["-m", "locks"] + options + args.scenarios)
    off = boot(args, accel, "irqs-off", ["-m", "irqs-off", "-c", clock] + options + args.scenarios)
    results, rows, longest = [], [], []
    for name, values in counted.values.items():
        result = entry(name, "page-cache locks", *(round(statistics.median(values[impl])) for impl in ("c", "rust")))
        results.append(result)
        rows.append([name, number(result["c"]), number(result["rust"]), f"{result['ratio']:.3f}",
                     verdict(result["ratio"], LOCK_TARGETS.get(name))])
    for name, values in off.values.items():
        result = entry(name, f"{unit} with interrupts off", *(round(statistics.median(values[impl]))
                                                              for impl in ("c", "rust")))
        results.append(result)
        longest.append([name, number(result["c"]), number(result["rust"]), f"{result['ratio']:.3f}",
                        verdict(result["ratio"], 0.30 if name in HOLES else 0.60),
                        *(off.causes[name, impl].most_common(1)[0][0] for impl in ("c", "rust"))])
    medians = {(name, impl): statistics.median(values[impl])
               for name, values in off.values.items() for impl in ("c", "rust")}
    if {(MANY_VMAS, "c"), (ONE_VMA, "c")} <= medians.keys():
        growth = {impl: medians[MANY_VMAS, impl] / medians[ONE_VMA, impl] for impl in ("c", "rust")}
        longest.append([f"{MANY_VMAS} / {ONE_VMA}", f"{growth['c']:.2f}", f"{growth['rust']:.2f}", "",
                        verdict(growth["rust"], VMAS_TARGET), "", ""])
    table(["page-cache locks", "C", "Rust", "ratio", "target"], rows)
    table([f"longest {unit}, interrupts off", "C", "Rust", "ratio", "target", "C: by", "Rust: by"], longest)
    return results


def code(build):
    """Reads code size and stack depth of both implementations from the kernel's objects."""
    output = subprocess.run([os.path.join(vm.TOP, "scripts/bench/code-size.py"), build], stdout=subprocess.PIPE, text=True,
                            check=True).stdout
    results, rows = [], []
    for line in output.splitlines():
        what, c, rust = line.split(": ")[0], *map(int, line.split(": ")[1].split())
        results.append(entry(what, "bytes", c, rust))
        rows.append([what, number(c), number(rust), f"{rust / c:.3f}"])
    table(["bytes", "C", "Rust", "ratio"], rows)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--one-by-one", metavar="KERNEL", help="bzImage of a kernel without batches")
    parser.add_argument("--accel", default="auto")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--rounds", type=int, help="measurements of each scenario")
    parser.add_argument("--locks", action="store_true", help="compare locks and interrupts instead of time")
    parser.add_argument("scenarios", nargs="*", help="run only these scenarios")
    args = parser.parse_args()
    vm.end_with_us()
    for name in args.scenarios:
        if name not in [*TARGETS, MANY_VMAS]:
            sys.exit(f"error: unknown scenario ({name}); choose from {', '.join([*TARGETS, MANY_VMAS])}")

    try:
        accel = vm.accelerator(args.accel, args.kernel)
        unit = "ns" if accel == "kvm" else "instructions"
        if args.locks:
            name, found = "bench_locks", locks(args, accel, unit)
        else:
            name, found = "bench", times(args, accel, unit)
            if not args.scenarios:
                found += bystander(args, accel, unit) + code(args.kernel.split("/arch/")[0])
    except vm.Failed as failed:
        sys.exit(f"error: {failed}; the consoles are in build/logs")
    results.write(name, found, part=bool(args.scenarios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
