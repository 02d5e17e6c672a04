# SPDX-License-Identifier: GPL-2.0
"""What build/results tells, in words: for the report and for the cover letter.

A result that is not there is told as not run, and one that is older than the sources as of an
earlier version: nobody is to take either for more than it is.
"""

import json
import os
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(TOP, "build", "results")
# What a result is about.
SOURCES = ["Documentation", "Kconfig", "mm", "rust", "samples", "tools", "patches"]
IMPLS = ("rust", "c", "host")
TESTS = {"test": "make test"} | {f"test-{kernel}": f"make test DEBUG={kernel}"
                                 for kernel in ("kasan", "kcsan", "two-cpus", "up")}


class Result:
    """A file of results, or what there is to say instead."""

    def __init__(self, name, command, directory=RESULTS):
        self.name, self.command = name, command
        self.path = os.path.join(directory, name + ".json")
        self.data, self.time, self.why = None, 0, "not run"
        try:
            with open(self.path) as file:
                self.data = json.load(file)
            self.time = os.path.getmtime(self.path)
        except OSError:
            pass
        except ValueError:
            self.why = f"{name}.json cannot be read: remove it, and run this again"

    def __bool__(self):
        return bool(self.data)

    def date(self):
        """When it was had."""
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(self.time)) + " UTC"

    def provenance(self):
        """Command, and of what: when it was had, and whether the sources are newer."""
        if not self:
            return self.command
        return f"{self.command}, {self.date()}" + (", of an earlier version" if self.time < sources_time() else "")


def sources_time():
    """When the sources changed last: the last commit, or a file that is not committed."""
    def git(*args):
        return subprocess.run(["git", "-C", TOP, *args, "--", *SOURCES], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, check=False).stdout
    committed = git("log", "-1", "--format=%ct").strip()
    changed = [os.path.join(TOP, line[3:]) for line in git("status", "--porcelain").splitlines()]
    return max([int(committed or 0)] + [os.path.getmtime(path) for path in changed if os.path.isfile(path)])


def plural(number, what):
    """3 cases, 1 case, 12,345 cases."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def suite_cell(suite):
    """A suite's outcome."""
    return (f"{suite['passed']} ok" + (f", {suite['failed']} FAILED" if suite["failed"] else "") +
            (f", {suite['skipped']} skipped" if suite["skipped"] else "") +
            (f", {suite['tries']} tries" if suite.get("tries", 1) > 1 else ""))


def suite_table(suites):
    """Suites down, implementations across: a head and rows."""
    impls = [impl for impl in IMPLS if any(suite["impl"] == impl for suite in suites)]
    cells = {(suite["name"], suite["impl"]): suite_cell(suite) for suite in suites}
    return impls, [[name] + [cells.get((name, impl), "-") for impl in impls]
                   for name in dict.fromkeys(suite["name"] for suite in suites)]


def sums(data):
    """Passed, failed and skipped of a run; what is wrong beside the tests counts as failed."""
    passed, failed, skipped = (sum(suite[key] for suite in data["suites"]) for key in ("passed", "failed", "skipped"))
    return passed, failed + len(data.get("wrong", ())) + data.get("splats", 0), skipped


def test_words(data):
    """A run of the suites, in a line."""
    return "{} passed, {} failed, {} skipped".format(*sums(data)) + f" in {plural(len({suite['name'] for suite in data['suites']}), 'suite')}"


def reached_words(data):
    """Which results collapse_file() was brought to."""
    every = set().union(*data.values())
    return ", ".join(f"{impl}: {len(reached)} of {len(every)}" for impl, reached in sorted(data.items()))


def host_words(data):
    """The tests in every order."""
    executions = sum(test["schedules"] for test in data["tests"])
    exhaustive = sum(test["mode"] == "dfs exhaustive" for test in data["tests"])
    return (f"{data['passed']} passed, {data['failed']} failed, {data['skipped']} skipped; "
            f"{plural(executions, 'execution')}, {plural(exhaustive, 'test')} in all orders there are")


def fuzz_words(data):
    """The comparison of random histories."""
    return (f"{plural(data['cases'], 'case')}, {plural(data['differences'], 'difference')}; " +
            "first seeds of the boots: " + ", ".join(map(str, data["seeds"])))


def mutants_vm_words(data):
    """Mistakes on purpose, in the guest."""
    return (f"{data['caught']} of {data['total']} caught" +
            (f"; survived: {', '.join(data['survived'])}" if data["survived"] else "") +
            (f"; did not build: {', '.join(data['broken'])}" if data["broken"] else ""))


def mutants_words(data):
    """Mistakes on purpose, on the host."""
    words = []
    if "protocol" in data:
        words.append(f"{len(data['protocol'])} that break the protocol caught")
    if "total" in data:
        words.append(f"{data['caught']} of {data['total'] - data['unviable']} made by cargo-mutants caught")
    return ", ".join(words)


def coverage_words(data):
    """Lines of Rust that a test comes by."""
    files = data["files"].values()
    return f"{sum(file['covered'] for file in files)} of {sum(file['lines'] for file in files)} lines"


def series_words(data):
    """The series, patch by patch."""
    return (f"{data['patches']} patches applied by git am to Linux {data['linux']}, the tree is that of `make apply`; " +
            (f"each step built: {', '.join(data['builds'])}" if data["builds"] else "not built"))


# What is told in one line each: file, what it is about, command, words.
LINES = [
    ("results", "results of collapse_file() that were reached", "make test", reached_words),
    ("host", "the sources on the host, with others in every order", "make host-test", host_words),
    ("fuzz", "random histories with C and with Rust", "make fuzz", fuzz_words),
    ("mutants_vm", "mistakes on purpose, in a guest", "make mutants-vm", mutants_vm_words),
    ("mutants", "mistakes on purpose, on the host", "make mutants-host", mutants_words),
    ("coverage", "lines of the Rust code that tests come by", "make coverage", coverage_words),
    ("series", "the series, a patch at a time", "make patches-check", series_words),
]
