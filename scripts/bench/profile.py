#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Count the instructions of a collapse by function, in C and in Rust.

QEMU emulates a guest and logs every instruction of the kernel while collapse_bench runs once
per scenario. The script counts the instructions of madvise(MADV_COLLAPSE) by function. An inlined
function counts for its caller. This applies to collapse_file() in C. Interrupts are too rare to
matter.

The script also counts atomic read-modify-write instructions and lock acquisitions, because on
hardware they cost more than other instructions. The former are those with a lock prefix, and
xchg with memory. The latter are calls of spinlock, rwlock, mutex and rwsem functions.

The script prints tables and writes them to build/results/profile.json.
"""

import argparse
import bisect
import collections
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402
import vm  # noqa: E402

WORK = os.path.join(vm.BUILD, "profile")
ENTRY, RETURN = "madvise_collapse", "do_syscall_64"
# The called functions show what was collapsed: anonymous memory is collapsed without these.
RUST = "rust_collapse_file"
FILE = "xas_create_range"
LOCK = re.compile(r"(_raw_(spin|read|write)_lock|mutex_lock|down_read|down_write)(_\w+)?$")
ATOMIC = re.compile(r"\s*([0-9a-f]+):\s+(?:lock\b|xchg[bwlq]\s.*\()")
LLVM = os.environ.get("LLVM", "-22")
LINE = re.compile(r"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/")


# Further counters. No function has such a name.
ATOMICS, LOCKS = "atomic instructions", "locks taken"


class Symbols:
    """The functions of a kernel, by address."""

    def __init__(self, path):
        found = {}
        self.at = {}
        with open(path) as file:
            for line in file:
                address, kind, name = line.split()[:3]
                if kind in "tTwW" and not name.startswith(("__pfx_", "__cfi_")):
                    self.at[name] = int(address, 16)
                    found.setdefault(self.at[name], name)
        self.addresses = sorted(found)
        self.names = [found[address] for address in self.addresses]
        self.locks = {address for name, address in self.at.items() if LOCK.match(name)}

    def find(self, address):
        """Returns the name of the function that contains an address."""
        return self.names[bisect.bisect_right(self.addresses, address) - 1]


def atomics(vmlinux):
    """Returns the addresses of a kernel's atomic read-modify-write instructions."""
    command = ["llvm-objdump" + LLVM, "-d", "--no-show-raw-insn", vmlinux]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as objdump:
        found = {int(line.group(1), 16) for line in map(ATOMIC.match, objdump.stdout) if line}
    if objdump.returncode or not found:
        raise vm.Failed(f"{command[0]} cannot disassemble {vmlinux}")
    return found


class Counts:
    """The instructions of collapses, by implementation and function."""

    def __init__(self, symbols, atomic):
        self.symbols = symbols
        self.atomic = atomic
        self.collapses = collections.Counter()
        self.instructions = {impl: collections.Counter() for impl in ("c", "rust")}

    def add(self, call):
        """Adds the instructions of a call of madvise_collapse(), if it collapsed a file."""
        if FILE in call:
            impl = "rust" if RUST in call else "c"
            self.collapses[impl] += 1
            self.instructions[impl] += call

    def read(self, log):
        """Reads QEMU's log to its end."""
        entry = self.symbols.at[ENTRY]
        functions = {}
        call = None
        kinds = {**{address: ATOMICS for address in self.atomic},
                 **{address: LOCKS for address in self.symbols.locks}}
        for line in log:
            found = LINE.match(line)
            if not found:
                continue
            address = int(found.group(1), 16)
            if call is None:
                if address != entry:
                    continue
                call = collections.Counter()
            name = functions.get(address)
            if name is None:
                name = functions[address] = self.symbols.find(address)
            if name == RETURN:
                self.add(call)
                call = None
            else:
                call[name] += 1
                if address in kinds:
                    call[kinds[address]] += 1


def tell(monitor, *commands):
    """Sends commands to QEMU's monitor."""
    prompt = b"(qemu) "
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(60)
        channel.connect(monitor)
        for command in ("",) + commands:
            if command:
                channel.sendall(command.encode() + b"\n")
            said = b""
            while not said.endswith(prompt):
                said += channel.recv(4096)


def record(args, scenario, counts):
    """Runs the guest and reads its log into counts."""
    monitor, log = (os.path.join(WORK, name) for name in ("monitor", "log"))
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    os.mkfifo(log)
    text = [counts.symbols.at[name] for name in ("_stext", "_etext")]
    qemu = (f"-icount shift=0 -monitor unix:{monitor},server,nowait -D {log} "
            f"-dfilter {text[0]:#x}..{text[1]:#x}")
    command = [os.path.join(vm.TOP, "scripts/guest/profile.sh"), scenario]
    line = vm.command_line(args.kernel, "tcg", args.memory, 1, ["tsc=reliable", "nokaslr"],
                           vm.make_disks(os.path.join(vm.BUILD, "disks")), shlex.join(command), qemu)

    def on_line(text):
        if text == "profile: begin":
            tell(monitor, "singlestep on", "log exec,nochain")
        elif text == "profile: end":
            tell(monitor, "log none", "singlestep off")
        elif text.startswith("error: "):
            raise vm.Failed(text[len("error: "):])

    def read():
        with open(log, errors="replace") as file:
            counts.read(file)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    status = vm.run(line, os.path.join(vm.BUILD, "logs", "profile-console.log"), on_line)
    reader.join(timeout=60)
    if status:
        raise vm.Failed(f"the guest's script ended with status {status}")


def tell_of(scenario, counts, lines):
    """Prints the table of a scenario and returns its entry for the results."""
    profile = {impl: {name: round(number / counts.collapses[impl]) for name, number in found.most_common()}
               for impl, found in counts.instructions.items()}
    special = {kind: {impl: found.pop(kind, 0) for impl, found in profile.items()} for kind in (ATOMICS, LOCKS)}
    print(f"{'C':>9}  {'Rust':>9}  {scenario}, instructions")
    print(f"{sum(profile['c'].values()):9,}  {sum(profile['rust'].values()):9,}  together")
    for kind, number in special.items():
        print(f"{number['c']:9,}  {number['rust']:9,}  {kind}")
    names = sorted(set(profile["c"]) | set(profile["rust"]),
                   key=lambda name: -max(profile[impl].get(name, 0) for impl in profile))
    for name in names[:lines]:
        print(f"{profile['c'].get(name, 0):9,}  {profile['rust'].get(name, 0):9,}  {name}")
    return {"scenario": scenario, "unit": "instructions", **{kind.replace(" ", "_"): number
            for kind, number in special.items()}, **profile}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot, inside the build directory with System.map and vmlinux")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--lines", type=int, default=25, help="number of functions in the table (%(default)s)")
    parser.add_argument("scenarios", nargs="*", default=["mapped"], help="scenarios of collapse_bench")
    args = parser.parse_args()
    vm.end_with_us()

    found = []
    build = args.kernel.split("/arch/")[0]
    try:
        symbols = Symbols(os.path.join(build, "System.map"))
        atomic = atomics(os.path.join(build, "vmlinux"))
        for scenario in args.scenarios:
            counts = Counts(symbols, atomic)
            record(args, scenario, counts)
            if len(counts.collapses) != len(counts.instructions):
                raise vm.Failed("QEMU's log does not have a collapse by C and one by Rust")
            found.append(tell_of(scenario, counts, args.lines))
    except vm.Failed as failed:
        sys.exit(f"error: {failed}; the console is in build/logs/profile-console.log")
    results.write("profile", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
