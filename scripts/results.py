# SPDX-License-Identifier: GPL-2.0
"""Writes build/results, and puts it in words for the report and the cover letter.

Each result has its commit in commits.json. A run of some tests only does not replace the result of
a full run: its name ends in "-part". A missing result counts as not run. A result of other sources
is marked as of an earlier version.
"""

import json
import os
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(TOP, "build", "results")
LEDGER = os.path.join(TOP, "scripts", "fuzz-ledger.tsv")
# What a result is about.
SOURCES = ["Documentation", "Kconfig", "mm", "rust", "samples", "tools", "patches"]
IMPLS = ("rust", "c", "host")
TESTS = {"test": "make test"} | {f"test-{kernel}": f"make test DEBUG={kernel}"
                                 for kernel in ("kasan", "kcsan", "two-cpus", "up")}


def git(*args):
    """What git prints, or None if it fails."""
    done = subprocess.run(["git", "-C", TOP, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=False)
    return None if done.returncode else done.stdout


def commit():
    """The commit of the tree, which ends in -dirty if files differ from it. The fuzzer's ledger does not count."""
    name = (git("describe", "--always", "--abbrev=12") or "unknown").strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!" + os.path.relpath(LEDGER, TOP))
    return name + ("-dirty" if changed else "")


def commits(directory):
    """The commit of each result."""
    try:
        with open(os.path.join(directory, "commits.json")) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_json(path, data):
    """Write a file, or leave it as it was if the disk is full."""
    with open(path + ".new", "w") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def write(name, data, part=False):
    """Write build/results/NAME.json, or NAME-part.json for a run of some tests only. Returns its path."""
    name += "-part" if part else ""
    path = os.path.join(RESULTS, name + ".json")
    os.makedirs(RESULTS, exist_ok=True)
    write_json(path, data)
    write_json(os.path.join(RESULTS, "commits.json"), commits(RESULTS) | {name: commit()})
    return path


class Result:
    """A file of results, or what there is to say instead."""

    def __init__(self, name, command, directory=RESULTS):
        self.name, self.command = name, command
        self.path = os.path.join(directory, name + ".json")
        self.data, self.time, self.why = None, 0, "not run"
        self.commit = commits(directory).get(name)
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
        return (f"{self.command}, {self.date()}" + (f", commit {self.commit}" if self.commit else "") +
                (", of an earlier version" if self.is_old() else ""))

    def is_old(self):
        """Whether the sources have changed since."""
        if not self.commit or self.commit.endswith("-dirty"):
            return self.time < sources_time()
        return git("diff", "--quiet", self.commit, "--", *SOURCES) is None


def sources_time():
    """When the sources changed last: the last commit, or a file that is not committed."""
    committed = (git("log", "-1", "--format=%ct", "--", *SOURCES) or "").strip()
    changed = [os.path.join(TOP, line[3:]) for line in (git("status", "--porcelain", "--", *SOURCES) or "").splitlines()]
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
            f"{plural(executions, 'execution')}, {plural(exhaustive, 'test')} exhaustive")


def ledger():
    """Cases, differences and commits of all runs of the fuzzer that were recorded."""
    with open(LEDGER) as file:
        lines = [line.split("\t") for line in file if not line.startswith("#")]
    return sum(int(line[2]) for line in lines), sum(int(line[3]) for line in lines), len({line[0] for line in lines})


def record(seed, cases, differences, transient):
    """Add a boot of the fuzzer to the ledger."""
    with open(LEDGER, "a") as file:
        file.write(f"{commit()}\t{seed}\t{cases}\t{differences}\t{transient}\n")


def fuzz_words(data):
    """The comparison of random histories."""
    cases, differences, of = ledger()
    return (f"{plural(data['cases'], 'case')}, {plural(data['differences'], 'difference')}; " +
            "first seeds of the boots: " + ", ".join(map(str, data["seeds"])) +
            f"; in all {plural(cases, 'case')} of {plural(of, 'commit')}, {plural(differences, 'difference')}")


def clients_words(data):
    """Programs that are not ours."""
    wrong = [f"{entry['client']} ({entry['impl']}, {entry['fs']})" for entry in data if entry["verdict"] != "ok"]
    return (f"{plural(len({entry['client'] for entry in data}), 'program')}, {plural(len(data), 'run')}, "
            f"{plural(sum(entry['collapses'] for entry in data), 'collapse')}; " +
            (f"wrong: {', '.join(wrong)}" if wrong else "nothing lost"))


def mutants_vm_words(data):
    """Mistakes on purpose, in the guest."""
    return (f"{data['caught']} of {data['total']} caught" +
            (f"; survived: {', '.join(data['survived'])}" if data["survived"] else "") +
            (f"; did not build: {', '.join(data['broken'])}" if data["broken"] else ""))


def mutants_words(data):
    """Mistakes on purpose, on the host."""
    words = []
    if "protocol" in data:
        words.append(f"{len(data['protocol'])} by hand caught")
    if "total" in data:
        words.append(f"{data['caught']} of {data['total'] - data['unviable']} by cargo-mutants caught")
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
    ("host", "the sources on the host, interleaved with other tasks", "make host-test", host_words),
    ("fuzz", "random histories with C and with Rust", "make fuzz", fuzz_words),
    ("clients", "programs from Debian while their memory and files are collapsed", "make clients", clients_words),
    ("mutants_vm", "mutations, in a guest", "make mutants-vm", mutants_vm_words),
    ("mutants", "mutations, on the host", "make mutants-host", mutants_words),
    ("coverage", "lines of the Rust code that tests cover", "make coverage", coverage_words),
    ("series", "the series, a patch at a time", "make patches-check", series_words),
]
