# SPDX-License-Identifier: GPL-2.0
"""Writes build/results, and formats it for the report and the cover letter.

commits.json has the commit of each result. A run of only some tests does not replace the result of
a full run: its name ends in "-part". A missing result is shown as not run. A result of different
sources is marked as "of an earlier version".
"""

import json
import os
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(TOP, "build", "results")
LEDGER = os.path.join(TOP, "scripts", "tests", "fuzz-ledger.tsv")
# A result is old if a file below these paths has changed since.
SOURCES = ["Documentation", "Kconfig", "configs", "mm", "rust", "samples", "tools", "patches"]
IMPLS = ("rust", "c", "host")
TESTS = {"test": "make test"} | {f"test-{kernel}": f"make test DEBUG={kernel}"
                                 for kernel in ("kasan", "kcsan", "two-cpus", "up")}


def git(*args):
    """Runs git and returns its output, or None if it fails."""
    done = subprocess.run(["git", "-C", TOP, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=False)
    return None if done.returncode else done.stdout


def commit():
    """Returns the commit of the tree, with -dirty if a file other than the fuzzer's ledger differs."""
    name = (git("describe", "--always", "--abbrev=12") or "unknown").strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!" + os.path.relpath(LEDGER, TOP))
    return name + ("-dirty" if changed else "")


def has_same_sources(name):
    """Returns whether no source has changed since a commit, which was clean."""
    return not name.endswith("-dirty") and git("diff", "--quiet", name, "--", *SOURCES) is not None


def commits(directory):
    """Returns the commit of each result."""
    try:
        with open(os.path.join(directory, "commits.json")) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_json(path, data):
    """Writes a file. If the disk is full, the file keeps its old content."""
    with open(path + ".new", "w") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def write(name, data, part=False):
    """Writes build/results/NAME.json, or NAME-part.json for a run of some tests, and returns its path."""
    name += "-part" if part else ""
    path = os.path.join(RESULTS, name + ".json")
    os.makedirs(RESULTS, exist_ok=True)
    write_json(path, data)
    write_json(os.path.join(RESULTS, "commits.json"), commits(RESULTS) | {name: commit()})
    return path


class Result:
    """A file of results, or the reason why there is none."""

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
            self.why = f"{name}.json cannot be read; remove it and run the command again"

    def __bool__(self):
        return bool(self.data)

    def date(self):
        """Returns the time of the result."""
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(self.time)) + " UTC"

    def provenance(self):
        """Returns the command, the time and commit of its result, and whether the sources are newer."""
        if not self:
            return self.command
        return (f"{self.command}, {self.date()}" + (f", commit {self.commit}" if self.commit else "") +
                (", of an earlier version" if self.is_old() else ""))

    def is_old(self):
        """Returns whether the sources have changed since."""
        if not self.commit or self.commit.endswith("-dirty"):
            return self.time < sources_time()
        return not has_same_sources(self.commit)


def sources_time():
    """Returns the time of the last change to the sources, committed or not."""
    committed = (git("log", "-1", "--format=%ct", "--", *SOURCES) or "").strip()
    changed = [os.path.join(TOP, line[3:]) for line in (git("status", "--porcelain", "--", *SOURCES) or "").splitlines()]
    return max([int(committed or 0)] + [os.path.getmtime(path) for path in changed if os.path.isfile(path)])


def plural(number, what):
    """Formats a count, such as 3 cases, 1 case or 12,345 cases."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def suite_cell(suite):
    """Returns the outcome of a suite, for a table."""
    return (f"{suite['passed']} ok" + (f", {suite['failed']} FAILED" if suite["failed"] else "") +
            (f", {suite['skipped']} skipped" if suite["skipped"] else "") +
            (f", {suite['tries']} tries" if suite.get("tries", 1) > 1 else ""))


def suite_table(suites):
    """Returns the implementations, and a row for each suite with a cell for each of them."""
    impls = [impl for impl in IMPLS if any(suite["impl"] == impl for suite in suites)]
    cells = {(suite["name"], suite["impl"]): suite_cell(suite) for suite in suites}
    return impls, [[name] + [cells.get((name, impl), "-") for impl in impls]
                   for name in dict.fromkeys(suite["name"] for suite in suites)]


def sums(data):
    """Returns the numbers of passed, failed and skipped tests. Other problems count as failed."""
    passed, failed, skipped = (sum(suite[key] for suite in data["suites"]) for key in ("passed", "failed", "skipped"))
    return passed, failed + len(data.get("wrong", ())) + data.get("splats", 0), skipped


def test_words(data):
    """Describes a run of the suites in a line."""
    return "{} passed, {} failed, {} skipped".format(*sums(data)) + f" in {plural(len({suite['name'] for suite in data['suites']}), 'suite')}"


def reached_words(data):
    """Returns how many results of collapse_file() the tests reached."""
    every = set().union(*data.values())
    return ", ".join(f"{impl}: {len(reached)} of {len(every)}" for impl, reached in sorted(data.items()))


def host_words(data):
    """Describes the tests on the host."""
    executions = sum(test["schedules"] for test in data["tests"])
    exhaustive = sum(test["mode"] == "dfs exhaustive" for test in data["tests"])
    return (f"{data['passed']} passed, {data['failed']} failed, {data['skipped']} skipped; "
            f"{plural(executions, 'execution')}, {plural(exhaustive, 'test')} exhaustive")


def ledger():
    """Returns the numbers of cases, differences and commits in the fuzzer's ledger."""
    with open(LEDGER) as file:
        lines = [line.split("\t") for line in file if not line.startswith("#")]
    return sum(int(line[2]) for line in lines), sum(int(line[3]) for line in lines), len({line[0] for line in lines})


def record(seed, cases, differences, transient):
    """Adds a boot of the fuzzer to the ledger."""
    with open(LEDGER, "a") as file:
        file.write(f"{commit()}\t{seed}\t{cases}\t{differences}\t{transient}\n")


def fuzz_words(data):
    """Describes the comparison of random histories."""
    cases, differences, of = ledger()
    return (f"{plural(data['cases'], 'case')}, {plural(data['differences'], 'difference')}; " +
            "first seeds of the boots: " + ", ".join(map(str, data["seeds"])) +
            f"; in all {plural(cases, 'case')} of {plural(of, 'commit')}, {plural(differences, 'difference')}")


def clients_words(data):
    """Describes the runs of Debian's programs."""
    wrong = [f"{entry['client']} ({entry['impl']}, {entry['fs']})" for entry in data if entry["verdict"] != "ok"]
    return (f"{plural(len({entry['client'] for entry in data}), 'program')}, {plural(len(data), 'run')}, "
            f"{plural(sum(entry['collapses'] for entry in data), 'collapse')}; " +
            (f"wrong: {', '.join(wrong)}" if wrong else "nothing lost"))


def mutants_vm_words(data):
    """Describes the mutants that are tested in the guest."""
    return (f"{data['caught']} of {data['total']} caught" +
            (f"; survived: {', '.join(data['survived'])}" if data["survived"] else "") +
            (f"; did not build: {', '.join(data['broken'])}" if data["broken"] else ""))


def mutants_words(data):
    """Describes the mutants that are tested on the host."""
    words = []
    if "protocol" in data:
        words.append(f"{len(data['protocol'])} by hand caught")
    if "total" in data:
        words.append(f"{data['caught']} of {data['total'] - data['unviable']} by cargo-mutants caught")
    return ", ".join(words)


def coverage_words(data):
    """Returns how many lines of Rust the tests cover."""
    files = data["files"].values()
    return f"{sum(file['covered'] for file in files)} of {sum(file['lines'] for file in files)} lines"


def series_words(data):
    """Describes the check of the series, patch by patch."""
    return (f"{data['patches']} patches applied by git am to Linux {data['linux']}, the tree is that of `make apply`; " +
            (f"each step built: {', '.join(data['builds'])}" if data["builds"] else "not built"))


# The results that are described in one line each: file, title, command, function for the words.
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
