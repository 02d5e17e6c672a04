#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Print the code size and the stack depth of collapse_file(), in bytes, in C and in Rust.

The script reads both from the objects of a built kernel. It counts each function that
collapse_file() reaches and that the compiler did not inline, unless both implementations call it.
For Rust these are the functions of mm/collapse_file.o and those of rust/kernel.o that they call.
The stack depth is that of the deepest chain of calls among them, with return addresses.

The C compiler inlines collapse_file() into its only caller. Therefore the script compiles
mm/khugepaged.c again with collapse_file() marked noinline.
"""

import argparse
import bisect
import collections
import os
import re
import shlex
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINUX = os.path.join(TOP, "build", "linux")
LLVM = os.environ.get("LLVM", "-22")


def die(what):
    sys.exit(f"error: {what}")


def output(*command, **options):
    """Returns the output of a command."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        die(f"{command[0]} failed ({error}); run 'make setup'")


class Function:
    """One function of an object."""

    def __init__(self, section, start):
        self.section, self.start, self.size, self.frame, self.calls = section, start, 0, 8, set()


def functions(path):
    """Returns the functions of an object by name, with the names that each calls or jumps to."""
    found, starts = {}, collections.defaultdict(list)
    section, current, prologue, pending = "", None, False, []
    for line in output("llvm-objdump" + LLVM, "-d", "-r", "--no-show-raw-insn", path).splitlines():
        heading = re.match(r"Disassembly of section (\S+):", line)
        label = re.match(r"([0-9a-f]+) <(.+)>:$", line)
        reloc = re.search(r"R_\w+\s+(\S+?)([-+]0x[0-9a-f]+)?$", line)
        instruction = re.match(r"\s*[0-9a-f]+:\s+(\S+)\s*(.*)", line)
        if heading:
            section = heading.group(1)
        elif label:
            current = found.setdefault(label.group(2), Function(section, int(label.group(1), 16)))
            starts[section].append((current.start, label.group(2)))
            prologue = True
        elif reloc and current:
            pending.append((current, reloc.group(1), int(reloc.group(2) or "0", 16)))
        elif instruction and current:
            name, operands = instruction.groups()
            target = re.search(r"<([^+>]+)>$", operands)
            if target and name.startswith(("call", "j")):
                current.calls.add(target.group(1))
            grow = re.match(r"\$0x([0-9a-f]+), %rsp", operands)
            if prologue and name.startswith("push"):
                current.frame += 8
            elif prologue and name.startswith("sub") and grow:
                current.frame += int(grow.group(1), 16)
                prologue = False
            elif name.startswith("j") or name.startswith("call") and "__fentry__" not in operands:
                prologue = False
    for function, symbol, addend in pending:
        # A relocation may refer to a local function by its section and offset.
        if symbol in starts:
            places = sorted(starts[symbol])
            at = bisect.bisect_right(places, (addend + 4, "\uffff")) - 1
            symbol = places[at][1] if at >= 0 else symbol
        function.calls.add(symbol)
    for line in output("llvm-nm" + LLVM, "-S", "--defined-only", path).splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "tT" and fields[3] in found:
            found[fields[3]].size = int(fields[1], 16)
    return found


def reached(known, entries, shared):
    """Returns the names of all functions in `known` that the entries reach without a shared function."""
    result, todo = set(), list(entries)
    while todo:
        name = todo.pop()
        if name in result or name in shared or name not in known:
            continue
        result.add(name)
        # The compiler moves cold code to separate functions.
        todo += known[name].calls | {name + ".cold"}
    return result


def deepest(known, names, name, above=()):
    """Returns the stack depth of the deepest chain of calls that begins with a function."""
    calls = (call for call in known[name].calls if call in names and call not in above and call != name)
    return known[name].frame + max((deepest(known, names, call, above + (name,)) for call in calls), default=0)


def compile_c(out, directory):
    """Compiles mm/khugepaged.o with collapse_file() as a separate function and returns its path."""
    source = os.path.join(directory, "khugepaged.c")
    with open(os.path.join(LINUX, "mm", "khugepaged.c")) as file:
        text = re.sub(r"^static (enum scan_result collapse_file\()", r"static noinline \1", file.read(), flags=re.M)
    with open(source, "w") as file:
        file.write(text)
    with open(os.path.join(out, "mm", ".khugepaged.o.cmd")) as file:
        command = re.search(r"^savedcmd_mm/khugepaged.o := (.*)", file.read(), re.M).group(1).split(";")[0]
    target = os.path.join(directory, "khugepaged.o")
    command = command.replace("-o mm/khugepaged.o", "-o " + shlex.quote(target))
    command = command.replace("../mm/khugepaged.c", "-iquote ../mm " + shlex.quote(source))
    if subprocess.run(command, shell=True, cwd=out, stdout=sys.stderr, check=False).returncode:
        die(f"mm/khugepaged.c does not compile again (in {out}); rebuild the kernel with 'make kernel'")
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--list", action="store_true", help="also print each function and its size")
    parser.add_argument("build", metavar="BUILD-DIRECTORY")
    args = parser.parse_args()
    algorithm = os.path.join(args.build, "mm", "collapse_file.o")
    if not os.path.exists(algorithm):
        die(f"mm/collapse_file.o is missing ({args.build}); run 'make kernel'")

    rust = functions(os.path.join(args.build, "rust", "kernel.o"))
    own = functions(algorithm)
    rust.update(own)
    rust_names = reached(rust, own, ())
    with tempfile.TemporaryDirectory() as directory:
        c = functions(compile_c(args.build, directory))
    # Functions that Rust calls as well, such as alloc_charge_folio().
    shared = set().union(*(rust[name].calls for name in rust_names)) - rust_names
    # The functions of the trace event are C code for both implementations.
    shared.update(name for name in c if name.startswith(("__traceiter_", "__SCT__")))
    c_names = reached(c, ["collapse_file"], shared)

    if args.list:
        for known, names in ((c, c_names), (rust, rust_names)):
            for name in sorted(names, key=lambda name: -known[name].size):
                print(f"{known[name].size:6} bytes, frame {known[name].frame:4}: {name}")
    sizes = [sum(known[name].size for name in names) for known, names in ((c, c_names), (rust, rust_names))]
    stacks = [deepest(c, c_names, "collapse_file"), deepest(rust, rust_names, "rust_collapse_file")]
    print(f"code: {sizes[0]} {sizes[1]}")
    print(f"stack: {stacks[0]} {stacks[1]}")


if __name__ == "__main__":
    main()
