#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run Debian's programs in a guest that collapses their memory and files.

The programs run with C, with Rust, and while the implementation is switched. The results go to
build/results/clients.json. The run fails if a program finds wrong data, if no collapse succeeds
while a program runs, or if the kernel reports a bug or a leak.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import ktap  # noqa: E402
import results  # noqa: E402
import vm  # noqa: E402

SCRIPT = os.path.join(vm.TOP, "scripts/guest/clients.sh")
COUNTERS = os.path.join(vm.BUILD, "bin", "counters")
BOOT = ["page_poison=1", "init_on_alloc=0", "oops=panic"]


def clients():
    """Returns the names of all programs."""
    return subprocess.run([sys.executable, os.path.join(vm.TOP, "scripts/guest/clients.py"), "--list"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.split()


def options():
    """Returns the options for the guest's script with the paths of its files."""
    compiler = subprocess.run(["gcc", "-print-prog-name=cc1"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return ["--counters", COUNTERS, "--cc1", compiler, "--postgresql", os.path.join(vm.CACHE, "postgresql")]


def run(name, given, args):
    """Run a program in a guest. Returns its results, faults, and whether the emulation may be at fault."""
    console = os.path.join(vm.BUILD, "logs", f"clients-{name}.log")
    entries, leaks, wrong = [], [], []

    def on_line(text):
        if text.startswith("#client "):
            entries.append(json.loads(text[len("#client "):]))
            print("{client} on {fs} with {impl}: {verdict}, {collapses} collapses, {seconds} s".format(**entries[-1]),
                  flush=True)
        elif ktap.is_leak(text):
            leaks.append(text)
        elif not text.startswith("#leaks"):
            print(text, flush=True)

    try:
        line = vm.command_line(args.kernel, vm.accelerator(args.accel, args.kernel), args.memory, 2, BOOT,
                               vm.make_disks(os.path.join(vm.BUILD, "disks-clients")),
                               shlex.join([SCRIPT, *given, name]))
        status = vm.run(line, console, on_line)
        if status:
            wrong.append(f"{name}: the guest's script ended with status {status}")
    except vm.Failed as failed:
        sys.stderr.write(vm.tail(console))
        wrong.append(f"{name}: {failed}")
    if not os.path.exists(console):
        return entries, wrong, False
    wrong += [f"{name}: the kernel said: {text}" for text in (vm.splats(console) + leaks)[:20]]
    return entries, wrong, vm.emulator_tripped(console)


def show(done):
    """Prints a table with the outcome of each program."""
    cells = {}
    for entry in done:
        cell = f"{entry['collapses']} in {entry['seconds']} s" if entry["verdict"] == "ok" else entry["verdict"]
        cells.setdefault((entry["client"], entry["fs"]), {})[entry["impl"]] = cell
    print(f"\n{'program':14}{'file system':13}{'collapses: C':18}{'Rust':18}switched")
    for (client, where), by_impl in cells.items():
        print(f"{client:14}{where:13}" + "".join(f"{by_impl.get(impl, '-'):18}" for impl in ("c", "rust", "switched")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--accel", default="auto", help="auto, kvm or tcg")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--impl", action="append", choices=["c", "rust", "switched"])
    parser.add_argument("names", nargs="*", metavar="CLIENT", help="run only these programs")
    args = parser.parse_args()
    vm.end_with_us()
    known = clients()
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f"no program is called {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    given = [*options(), *[word for impl in args.impl or [] for word in ("--impl", impl)]]
    done, wrong = [], []
    for name in args.names or known:
        entries, faults, again = run(name, given, args)
        if again:
            print(f"==> QEMU's emulation may have failed: {name} runs once more", flush=True)
            entries, faults, _ = run(name, given, args)
        done += entries
        wrong += faults + [f"{entry['client']} on {entry['fs']} with {entry['impl']}: {entry['verdict']}"
                           for entry in entries if entry["verdict"] != "ok"]
    show(done)
    path = results.write("clients", done, part=bool(args.names or args.impl))
    print(f"\n==> {len(done)} runs, {os.path.relpath(path, vm.TOP)}")
    for text in wrong:
        print("error:", text, file=sys.stderr)
    if wrong:
        print("error: the consoles are build/logs/clients-PROGRAM.log", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
