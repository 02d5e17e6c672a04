#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Write docs/results.md: the results in build/results, with the commit of each result."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import results  # noqa: E402

PAGE = os.path.join(results.TOP, "docs", "results.md")
INTRO = """<!-- SPDX-License-Identifier: GPL-2.0 -->
# Results

`make results` writes this page from `build/results`. The commit is the one that
a command ran on. "-dirty" means that files differed from it, and "of an earlier
version" that sources have changed since. [testing.md](testing.md) describes the
tests, and [performance.md](performance.md) the benchmarks.
"""


def table(head, rows, right=()):
    """Returns a table in Markdown."""
    ruler = ["---:" if column in right else "---" for column in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, ruler, *rows])


def summary():
    """Returns a table with a row for each command."""
    rows = []
    for name, command in results.TESTS.items():
        result = results.Result(name, command)
        rows.append((command, "tests", results.test_words(result.data) if result else result.why, provenance(result)))
    for name, title, command, words in results.LINES:
        result = results.Result(name, command)
        rows.append((command, title, words(result.data) if result else result.why, provenance(result)))
    return table(["command", "what", "result", "commit"], [[f"`{row[0]}`", *row[1:]] for row in rows])


def provenance(result):
    """Returns the commit and the day of a result."""
    if not result:
        return "-"
    return f"{result.commit or 'unknown'}, {result.date()[:10]}" + (", of an earlier version" if result.is_old() else "")


def suites():
    """Returns the table of the suites of `make test`."""
    result = results.Result("test", "make test")
    if not result:
        return "`make test` was not run."
    impls, rows = results.suite_table(result.data["suites"])
    return table(["suite", *impls], rows)


def clients():
    """Returns the table of the programs of `make clients`."""
    result = results.Result("clients", "make clients")
    if not result:
        return "`make clients` was not run."
    cells = {(entry["client"], entry["fs"], entry["impl"]):
             f"{entry['collapses']:,}" if entry["verdict"] == "ok" else entry["verdict"] for entry in result.data}
    return table(["program", "file system", "C", "Rust", "switched"],
                 [[client, where, *[cells.get((client, where, impl), "-") for impl in ("c", "rust", "switched")]]
                  for client, where in dict.fromkeys((entry["client"], entry["fs"]) for entry in result.data)], (2, 3, 4))


def main():
    if len(sys.argv) != 1:
        sys.exit("usage: results-page.py")
    text = "\n".join([INTRO, "## Commands\n", summary(), "\n## Suites of `make test`\n", suites(),
                      "\n## Programs of `make clients`\n",
                      "The number of collapses that succeeded while the program ran and found its data right:\n", clients()])
    with open(PAGE + ".new", "w") as file:
        file.write(text + "\n")
    os.replace(PAGE + ".new", PAGE)
    print(f"==> {os.path.relpath(PAGE, results.TOP)}")


if __name__ == "__main__":
    main()
