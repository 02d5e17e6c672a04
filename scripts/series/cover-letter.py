#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Print the cover letter of a posting: patches/cover-letters/POSTING with results from build/results.

    cover-letter.py POSTING LINUX-VERSION COMMIT
"""

import os
import sys
import textwrap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402

LETTERS = os.path.join(results.TOP, "patches", "cover-letters")
WIDTH = 72
# The results that a posting is about, by the names of results.LINES, and scenarios of `make bench`.
RESULTS = {"fixes": [], "rfc": ["host", "fuzz", "clients"], "extras": ["results", "coverage", "mutants_vm"]}
SCENARIOS = {"rfc": ["memfd, mapped", "memfd, one page", "ext4, mapped"]}


def line(title, result, words):
    """Returns lines with a result, its command and its commit."""
    words = words(result.data) if result else result.why
    where = result.command + (f", {result.commit}" if result and result.commit else "")
    return textwrap.wrap(f"- {title}: {words} ({where})", WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def suites(data):
    """Returns the numbers of tests with each implementation."""
    impls = {"c": "C", "rust": "Rust"}
    return ", ".join(f"{impls[impl]}: " + "{} passed, {} failed, {} skipped".format(
        *(sum(suite[key] for suite in data["suites"] if suite["impl"] == impl) for key in ("passed", "failed", "skipped")))
        for impl in impls)


def costs(posting):
    """Returns a function that describes the scenarios of `make bench` for a posting."""
    def words(data):
        return "; ".join(f"{entry['scenario']}: {entry['c']:,} in C, {entry['rust']:,} in Rust"
                         for entry in data if entry["scenario"] in SCENARIOS[posting])
    return words


def measured(posting):
    """Returns the results."""
    lines = line("tests in a guest", results.Result("test", "make test"), suites)
    for name, title, command, words in results.LINES:
        if name in RESULTS[posting]:
            lines += line(title, results.Result(name, command), words)
    if posting in SCENARIOS:
        lines += line("instructions of a collapse", results.Result("bench", "make bench"), costs(posting))
    return "\n".join(lines)


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in RESULTS:
        sys.stderr.write(f"usage: cover-letter.py {'|'.join(RESULTS)} LINUX-VERSION COMMIT\n")
        sys.exit(2)
    posting, linux, commit = sys.argv[1:]
    with open(os.path.join(LETTERS, posting)) as file:
        text = file.read()
    for name, value in (("RESULTS", measured(posting)), ("LINUX", linux), ("COMMIT", commit)):
        text = text.replace(f"@{name}@", value)
    print(text, end="")


if __name__ == "__main__":
    main()
