#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compare collapse_file() in C and in Rust on random cases, in guests.

The cases are split over several boots. After each boot the sums go to build/results/fuzz.json.
The run fails and stops after the first boot in which the implementations differ, the kernel
reports a bug or a leak, or the guest does not finish. It prints the seed that repeats the case.
"""

import argparse
import os
import re
import shlex
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import ktap  # noqa: E402
import results  # noqa: E402
import vm  # noqa: E402

CONSOLE = os.path.join(vm.BUILD, "logs", "fuzz-console.log")
# Pages can migrate only if there are two nodes. Without init_on_alloc, memory that a collapse
# forgets to clear is not zero by chance.
BOOT = ["numa=fake=2", "init_on_alloc=0", "oops=panic", "page_owner=on"]
SEED = re.compile(r"collapse_fuzz: (?:seed|round) (\d+)")


class Sums:
    """The sums over all boots."""

    def __init__(self):
        self.cases = self.differences = self.transient = 0
        self.by_result = {}
        self.seeds = []

    def line(self, text):
        """Parses one line of collapse_fuzz's output."""
        result = re.match(r"# fuzz-result: (\S+)=(\d+)$", text)
        if result:
            name = result.group(1)
            self.by_result[name] = self.by_result.get(name, 0) + int(result.group(2))
        sums = re.match(r"# fuzz: cases=(\d+) differences=(\d+) transient=(\d+)$", text)
        if sums:
            self.cases += int(sums.group(1))
            self.differences += int(sums.group(2))
            self.transient += int(sums.group(3))

    def save(self):
        """Writes the sums to the results file."""
        results.write("fuzz", {"cases": self.cases, "differences": self.differences, "transient": self.transient,
                               "by_result": dict(sorted(self.by_result.items())), "seeds": self.seeds})


def last_seed():
    """Returns the last seed in the guest's console, or None."""
    try:
        with open(CONSOLE, errors="replace") as log:
            seeds = SEED.findall(log.read())
    except OSError:
        return None
    return seeds[-1] if seeds else None


def boot(args, cases, seed, sums):
    """Runs cases in one guest and returns a list of problems."""
    wrong, leaks, in_leaks = [], [], False

    def on_line(text):
        nonlocal in_leaks
        print(text, flush=True)
        end = re.match(r"#end (\S+) (\d+)$", text)
        if end and end.group(2) not in ("0", "4"):
            wrong.append(f"{end.group(1)}: status {end.group(2)}")
        if end and end.group(2) == "4":
            wrong.append(f"{end.group(1)}: skipped")
        if text.startswith("#leaks"):
            in_leaks = text == "#leaks"
        elif in_leaks and ktap.is_leak(text):
            leaks.append(text)
        else:
            sums.line(text)

    if os.path.exists(CONSOLE):
        os.remove(CONSOLE)
    command = shlex.join([os.path.join(vm.TOP, "scripts/guest/fuzz.sh"), str(cases), str(seed)])
    try:
        accel = vm.accelerator(args.accel, args.kernel)
        # Each case patches code. An emulated CPU may see a patch of another CPU too late.
        cpus = args.cpus or (2 if accel == "kvm" else 1)
        disks = vm.make_disks(os.path.join(vm.BUILD, "disks-fuzz"))
        line = vm.command_line(args.kernel, accel, args.memory, cpus, BOOT, disks, command)
        status = vm.run(line, CONSOLE, on_line)
        if status:
            wrong.append(f"the guest's script ended with status {status}")
    except vm.Failed as failed:
        sys.stderr.write(vm.tail(CONSOLE))
        wrong.append(f"{failed}; the last case had the seed {last_seed()}")
    said = vm.splats(CONSOLE) if os.path.exists(CONSOLE) else []
    return wrong + ["the kernel said: " + line for line in (said + leaks)[:20]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0].replace("\n", " "))
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--accel", default="auto", help="auto, kvm or tcg")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--cpus", type=int, help="CPUs of a guest (2; 1 if emulated)")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the first case (case N uses SEED + N)")
    parser.add_argument("--ledger", action="store_true", help="record each boot in scripts/tests/fuzz-ledger.tsv")
    parser.add_argument("--boot-cases", type=int, default=5000, help="cases per boot")
    args = parser.parse_args()
    vm.end_with_us()

    sums = Sums()
    for done in range(0, args.cases, args.boot_cases):
        cases, seed = min(args.boot_cases, args.cases - done), args.seed + done
        print(f"==> cases {done + 1} to {done + cases} of {args.cases}, seed {seed}", flush=True)
        sums.seeds.append(seed)
        before = sums.cases, sums.differences, sums.transient
        wrong = boot(args, cases, seed, sums)
        sums.save()
        if args.ledger and sums.cases > before[0]:
            now = sums.cases, sums.differences, sums.transient
            results.record(seed, *(after - number for after, number in zip(now, before)))
        if wrong or sums.differences:
            for line in wrong:
                print(f"FAILED: {line}")
            print(f"FAILED: after {sums.cases} cases, {sums.differences} differences; the console is in "
                  f"{os.path.relpath(CONSOLE, vm.TOP)}")
            return 1
    print(f"\n{sums.cases} cases, no difference, {sums.transient} transient; collapses:")
    for name, number in sorted(sums.by_result.items(), key=lambda item: -item[1]):
        print(f"{number:8} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
