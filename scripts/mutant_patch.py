# SPDX-License-Identifier: GPL-2.0
"""Mistakes made on purpose, as patches: a line that says what is broken, one that says
whose code it is, and a unified diff behind ---."""

import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Patch:
    """One of them."""

    def __init__(self, directory, name):
        self.name = name
        self.path = os.path.join(directory, name + ".patch")
        with open(self.path) as file:
            text = file.read()
        header = re.match(r"(.+)\nImpl: (c|rust)\n---\n", text)
        if not header:
            sys.exit(f"error: {os.path.relpath(self.path, TOP)} does not begin with what it breaks, Impl: and ---")
        self.what, self.impl = header.groups()
        self.files = re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)

    def apply(self, tree, *options):
        """Apply it to a tree, where it has to fit to the letter. Returns why it does not."""
        done = subprocess.run(["patch", "-p1", "--force", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-",
                               "-d", tree, "-i", self.path, *options], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        if not done.returncode:
            return None
        misfit = re.search(r"^Hunk.*FAILED.*|^can't find file.*", done.stdout, re.MULTILINE)
        return f"{os.path.relpath(self.path, TOP)} does not fit {os.path.relpath(tree, TOP)}: " + (
            misfit.group() if misfit else done.stdout.strip())

    def read(self, tree):
        """The contents of the files of a tree that it changes, by path."""
        contents = {}
        for path in self.files:
            path = os.path.join(tree, path)
            with open(path, "rb") as file:
                contents[path] = file.read()
        return contents


def write(contents):
    """Put back what read() has read; the files are newer than all that was built."""
    for path, content in contents.items():
        with open(path, "wb") as file:
            file.write(content)


def choose(directory, wanted):
    """The names of those that are wanted, of all if none are named."""
    known = sorted(name.removesuffix(".patch") for name in os.listdir(directory) if name.endswith(".patch"))
    for name in wanted:
        if name not in known:
            print(f"error: there is no mutant {name}: --list tells which there are", file=sys.stderr)
            sys.exit(2)
    return [name for name in known if not wanted or name in wanted]
