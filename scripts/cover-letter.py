#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Print the cover letter of the series: patches/cover-letter with the results from build/results.

    cover-letter.py LINUX-VERSION COMMIT
"""

import os
import sys
import textwrap

import results

WIDTH = 72


def paragraph(title, result, words=None):
    """Returns lines with the result of one command, or the statement that it was not run."""
    return textwrap.wrap(f"{title}: {words or (result.why if not result else 'see below')} ({result.provenance()})", WIDTH,
                         subsequent_indent="    ", break_on_hyphens=False)


def table(head, rows):
    """Returns the lines of a table: the first column aligned left, the others aligned right."""
    rows = [head] + rows
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  " + "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                             for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]


def tests():
    """Returns a line for each debug kernel, and a table of the suites of `make test`."""
    lines = []
    for name, command in results.TESTS.items():
        result = results.Result(name, command)
        lines += paragraph("tests", result, results.test_words(result.data) if result else None)
        if result and name == "test":
            impls, rows = results.suite_table(result.data["suites"])
            lines += [""] + table(["suite"] + impls, rows)
        lines.append("")
    return lines


def bench(name, command, title):
    """Returns the lines for one benchmark."""
    result = results.Result(name, command)
    lines = paragraph(title, result)
    if result:
        lines += [""] + table(["scenario", "unit", "C", "Rust", "Rust/C"],
                              [[line["scenario"], line["unit"], f"{line['c']:,}", f"{line['rust']:,}",
                                "-" if line["ratio"] is None else f"{line['ratio']:.3f}"] for line in result.data])
    return lines + [""]


def measured():
    """Returns all results, and names the commands that were not run."""
    lines = tests()
    for name, title, command, words in results.LINES:
        result = results.Result(name, command)
        lines += paragraph(title, result, words(result.data) if result else None) + [""]
    lines += bench("bench", "make bench", "cost of a collapse")
    lines += bench("bench_locks", "make bench-locks", "lock acquisitions, and time with interrupts off")
    return "\n".join(lines).rstrip("\n")


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.stderr.write("usage: cover-letter.py LINUX-VERSION COMMIT\n")
        sys.exit(2)
    with open(os.path.join(results.TOP, "patches", "cover-letter")) as file:
        text = file.read()
    for name, value in (("RESULTS", measured()), ("LINUX", sys.argv[1]), ("COMMIT", sys.argv[2])):
        text = text.replace(f"@{name}@", value)
    print(text, end="")


if __name__ == "__main__":
    main()
