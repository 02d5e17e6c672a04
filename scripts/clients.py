#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run Debian's programs in a guest that collapses their memory and files.

The programs run with C, with Rust, and while the implementation is switched. The results go to
build/results/clients.json. Fails if a program finds its data wrong, if no collapse happened, or if the kernel
complained.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys

import ktap
import results
import vm

CONSOLE = os.path.join(vm.BUILD, "logs", "clients-console.log")
SCRIPT = os.path.join(vm.TOP, "scripts/guest/clients.sh")
COUNTERS = os.path.join(vm.BUILD, "bin", "counters")
BOOT = ["page_poison=1", "init_on_alloc=0", "oops=panic"]


def build_counters():
    """The kernel of the virtual machines that are migrated."""
    os.makedirs(os.path.dirname(COUNTERS), exist_ok=True)
    subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x100000,--build-id=none",
                    "-o", COUNTERS, os.path.join(vm.TOP, "scripts/guest/counters.S")], check=True)


def options():
    """Where things are."""
    compiler = subprocess.run(["gcc", "-print-prog-name=cc1"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return ["--counters", COUNTERS, "--cc1", compiler, "--postgresql", os.path.join(vm.CACHE, "postgresql")]


def show(done):
    """A table of what came of the programs."""
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
    parser.add_argument("names", nargs="*", metavar="CLIENT", help="these programs only")
    args = parser.parse_args()
    vm.end_with_us()
    done, leaks, wrong = [], [], []

    def on_line(text):
        if text.startswith("#client "):
            done.append(json.loads(text[len("#client "):]))
            print("{client} on {fs} with {impl}: {verdict}, {collapses} collapses, {seconds} s".format(**done[-1]), flush=True)
        elif ktap.is_leak(text):
            leaks.append(text)
        elif not text.startswith("#leaks"):
            print(text, flush=True)

    try:
        build_counters()
        command = shlex.join([SCRIPT, *options(), *[word for impl in args.impl or [] for word in ("--impl", impl)], *args.names])
        line = vm.command_line(args.kernel, vm.accelerator(args.accel, args.kernel), args.memory, 2, BOOT,
                               vm.make_disks(os.path.join(vm.BUILD, "disks-clients")), command)
        status = vm.run(line, CONSOLE, on_line)
        if status:
            wrong.append(f"the guest's script ended with status {status}")
    except vm.Failed as failed:
        sys.stderr.write(vm.tail(CONSOLE))
        wrong.append(str(failed))
    wrong += [f"{entry['client']} on {entry['fs']} with {entry['impl']}: {entry['verdict']}"
              for entry in done if entry["verdict"] != "ok"]
    wrong += ["the kernel said: " + text for text in ((vm.splats(CONSOLE) if os.path.exists(CONSOLE) else []) + leaks)[:20]]
    show(done)
    path = results.write("clients", done, part=bool(args.names or args.impl))
    print(f"\n==> {len(done)} runs, {os.path.relpath(path, vm.TOP)}")
    for text in wrong:
        print("error:", text, file=sys.stderr)
    if wrong:
        print(f"error: the console is in {os.path.relpath(CONSOLE, vm.TOP)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
