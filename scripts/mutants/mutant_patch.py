# SPDX-License-Identifier: GPL-2.0
"""Reads and applies mutations that are patches.

The first line of a patch describes what breaks, and the second line names the implementation. A
unified diff follows after ---.
"""

import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Patch:
    """A mutation that is a patch."""

    def __init__(self, directory, name):
        self.name = name
        self.path = os.path.join(directory, name + ".patch")
        with open(self.path) as file:
            text = file.read()
        header = re.match(r"(.+)\nImpl: (c|rust)\n---\n", text)
        if not header:
            sys.exit(f"error: wrong header ({os.path.relpath(self.path, TOP)}); "
                     "begin with a line on what breaks, a line 'Impl: c' or 'Impl: rust', and ---")
        self.what, self.impl = header.groups()
        self.files = re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)

    def apply(self, tree, *options):
        """Applies the patch to a tree, without fuzz, and returns an error, or None if it fits."""
        done = subprocess.run(["patch", "-p1", "--force", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-",
                               "-d", tree, "-i", self.path, *options], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        if not done.returncode:
            return None
        misfit = re.search(r"^Hunk.*FAILED.*|^can't find file.*", done.stdout, re.MULTILINE)
        return f"{os.path.relpath(self.path, TOP)} does not fit {os.path.relpath(tree, TOP)}: " + (
            misfit.group() if misfit else done.stdout.strip())

    def read(self, tree):
        """Returns the contents of the files that the patch changes, by path."""
        contents = {}
        for path in self.files:
            path = os.path.join(tree, path)
            with open(path, "rb") as file:
                contents[path] = file.read()
        return contents


def write(contents):
    """Restores the contents that read() returned, with new timestamps, so that make rebuilds."""
    for path, content in contents.items():
        with open(path, "wb") as file:
            file.write(content)


def choose(directory, wanted):
    """Returns the names of the wanted mutants, or of all mutants if none are named."""
    known = sorted(name.removesuffix(".patch") for name in os.listdir(directory) if name.endswith(".patch"))
    for name in wanted:
        if name not in known:
            print(f"error: unknown mutant ({name}); run the script with --list to see all", file=sys.stderr)
            sys.exit(2)
    return [name for name in known if not wanted or name in wanted]
