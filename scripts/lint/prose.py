#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Check documents, comments and commit messages for words that have a better one, and for long lines.

scripts/lint/words.tsv has a regular expression and the better word in each line. Documents have at most 80 columns,
without tables, links and quoted text. Comments are checked with the code, by rustfmt, checkpatch and lint.sh.
"""

import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORDS = os.path.join(TOP, "scripts", "lint", "words.tsv")
WIDTH = 80
# Generated, or not ours.
LEFT_OUT = re.compile(r"^(docs/results\.md|COPYING|pictures/|scripts/lint/words\.tsv)|\.(svg|lock|stderr)$|fuzz-ledger")
COMMENT = {
    ".rs": r"//[/!]? ?(.*)", ".c": r"(?:^\s*/?\*(?= |$)|/\*|//) ?(.*)",
    ".h": r"(?:^\s*/?\*(?= |$)|/\*|//) ?(.*)", ".S": r"(?:^\s*/?\*(?= |$)|/\*|//) ?(.*)", ".py": r"(?:^|\s)#[ !](.*)", ".sh": r"(?:^|\s)#[ !](.*)",
    ".config": r"^# (.*)", ".patch": r"^([A-Z a-z].*)", ".tsv": r"^# (.*)", ".txt": r"^# (.*)",
}


def words():
    """Pairs of an expression and the better word."""
    with open(WORDS) as file:
        return [(re.compile(rf"\b(?:{left})\b"), right) for left, right in
                (line.rstrip("\n").split("\t") for line in file if line.strip() and not line.startswith("#"))]


def prose(path, lines):
    """The lines of a file that are prose, with their numbers."""
    ending = os.path.splitext(path)[1]
    if ending in (".md", ".rst") or os.path.basename(path) in ("Kconfig", "cover-letter"):
        yield from enumerate(lines, start=1)
    elif ending in COMMENT:
        pattern = re.compile(COMMENT[ending])
        for number, line in enumerate(lines, start=1):
            # After its message, a patch has lines of code.
            if ending == ".patch" and line == "---":
                return
            found = pattern.search(line)
            if found:
                yield number, found.group(1)


def is_wrapped(line):
    """Whether a line of a document has to fit."""
    return not re.match(r"\s*\||\s*\+-|=+ |    |\t|\s*(``?\S+``?\s*)+$|!\[", line) and " " in line.strip() and "://" not in line


def check(path, better):
    """Complain about a file. Returns how often."""
    with open(os.path.join(TOP, path), errors="replace") as file:
        lines = file.read().split("\n")
    complaints = [f"{path}:{number}: {found.group(0)}: say {right}"
                  for number, text in prose(path, lines) for left, right in better for found in left.finditer(text)]
    if path.endswith((".md", ".rst")):
        table = False
        for number, line in enumerate(lines, start=1):
            if re.match(r"=+ +=", line):
                table = True
            elif not line:
                table = False
            if len(line) > WIDTH and not table and is_wrapped(line):
                complaints.append(f"{path}:{number}: {len(line)} columns, at most {WIDTH}")
    for complaint in complaints:
        print(complaint)
    return len(complaints)


def main():
    if len(sys.argv) != 1:
        sys.exit("usage: prose.py")
    files = subprocess.run(["git", "-C", TOP, "ls-files"], check=True, stdout=subprocess.PIPE, text=True).stdout.split("\n")
    better = words()
    return 1 if sum(check(path, better) for path in files
                    if path and not LEFT_OUT.search(path) and os.path.isfile(os.path.join(TOP, path))) else 0


if __name__ == "__main__":
    sys.exit(main())
