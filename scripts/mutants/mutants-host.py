#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Mutate collapse_file() and check whether the tests on the host fail.

There are two kinds of mutants, and both are applied to copies of the tree. Each patch in
scripts/mutants/host/ breaks one step of the protocol, and weakens the types that would forbid
this. A test that explores interleavings (tests/dfs.rs) must catch it, or else a sequential test
(tests/sequential.rs). The script writes the failure with the fewest task switches as a timeline to
build/results/timelines.

cargo-mutants generates the other mutants from mm/collapse_file.rs and rust/kernel/. It replaces
operators and results one by one. The quick tests run first. Mutants that they do not catch go to
the next stage. scripts/mutants/host/survivors.txt gives the reason for each mutant that survives
all stages. The run fails if a survivor is not listed there, or if a listed mutant is caught.

The results go to build/results/mutants.json. With names of patches, the script tries only these.
"""

import argparse
import glob
import importlib
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import mutant_patch  # noqa: E402
import results  # noqa: E402

sys.path.insert(0, os.path.join(results.TOP, "scripts", "tests"))
host_test = importlib.import_module("host-test")

TOP = mutant_patch.TOP
BUILD = os.path.join(TOP, "build")
WORK = os.path.join(BUILD, "mutants-host")
TREE = os.path.join(WORK, "tree")
SOURCES = ["mm", "rust", "tools/testing/collapse_file"]
TESTS = os.path.join(TREE, "tools/testing/collapse_file")
PATCHES = os.path.join(TOP, "scripts/mutants/host")
RESULTS = os.path.join(results.RESULTS, "mutants.json")
TIMELINES = os.path.join(results.RESULTS, "timelines")
LOGS = os.path.join(BUILD, "logs")
# A mutant may loop and log events all the time, so its CPU time and memory are limited. A test
# normally needs a second of CPU time. Elapsed time depends on the load of the machine.
LIMITED = ["prlimit", "--cpu=60", f"--as={4 << 30}"]

CARGO_MUTANTS = os.environ.get("CARGO_MUTANTS", "cargo-mutants")
SURVIVORS = os.path.join(PATCHES, "survivors.txt")
# Order, bits of a node, test binary. The first stage takes a second and catches most mutants.
STAGES = [(2, 1, "sequential"), (2, 1, "dfs"), (3, 2, "sequential"), (2, 6, "sequential"), (3, 2, "random")]

FAILURE = re.compile(r"again: REPLAY='(\S+)'")


class Broken(Exception):
    """The reason why a mutant cannot be tested, in a line."""


def copy_tree(tree):
    """Makes a fresh copy of the tested sources, with new timestamps, so that cargo rebuilds."""
    shutil.rmtree(tree, ignore_errors=True)
    for path in SOURCES:
        shutil.copytree(os.path.join(TOP, path), os.path.join(tree, path), copy_function=shutil.copy,
                        ignore=shutil.ignore_patterns("target"))


def environment(**more):
    """Returns the environment of cargo and the tests."""
    result = dict(os.environ, KSRC=host_test.kernel_tree(), RUSTC=host_test.tools()[0], CARGO_TARGET_DIR=os.path.join(WORK, "target"),
                  CARGO_TERM_COLOR="never", CARGO_PROFILE_DEV_DEBUG="0", RUST_BACKTRACE="0")
    for name in ("REPLAY", "SHORTEST", "SEED", "LONG", "HOST_TEST_REPORT", "COLLAPSE_ORDER", "COLLAPSE_XA_SHIFT",
                 "COLLAPSE_SANITIZE"):
        result.pop(name, None)
    return dict(result, **more)


class Binary:
    """A test binary, in the copy of the tree."""

    def __init__(self, name):
        self.name = name
        self.environment = environment(SHORTEST="1")

    def build(self):
        """Compiles the binary and returns the path of the program."""
        built = subprocess.run(["cargo", "test", "--quiet", "--no-run", "--test", self.name, "--message-format=json"],
                               cwd=TESTS, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, check=False)
        messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
        if built.returncode:
            errors = [m["message"]["rendered"] for m in messages
                      if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
            raise Broken("the mutant does not compile: " + ("\n".join(errors) or built.stderr).strip())
        return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == self.name)

    def run(self, program, *arguments, **more):
        """Runs the program and returns whether it succeeded, and its output."""
        done = subprocess.run([*LIMITED, program, *arguments], env=dict(self.environment, **more),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", check=False)
        return not done.returncode, done.stdout

    def failures(self):
        """Builds and runs all tests and returns the failures, as (switches, events, test, output)."""
        program = self.build()
        tests = re.findall(r"^(\w+): test$", self.run(program, "--list")[1], re.MULTILINE)
        if not tests:
            raise Broken(f"the test binary has no tests ({self.name})")
        found = []
        for test in tests:
            passed, output = self.run(program, "--exact", test, "--nocapture")
            if passed:
                continue
            replay = FAILURE.search(output)
            if not replay:
                found.append((sys.maxsize, sys.maxsize, test, output))
                continue
            replay = replay.group(1)
            timeline = re.search(r"^\w\S*: \d+ of \d+ executions failed\n\n(.*)", output, re.MULTILINE | re.DOTALL)
            text = timeline.group(1) if timeline else self.run(program, "--exact", test, "--nocapture", REPLAY=replay)[1]
            text = text[:text.find(f"REPLAY='{replay}'")] + f"REPLAY='{replay}'\n"
            found.append((replay.count("."), text.count("\n"), test, text))
        return sorted(found)


def test(binaries, mutant):
    """Runs the binaries with a mutant until a test fails, and returns a line about the outcome."""
    originals = mutant.read(TREE)
    misfit = mutant.apply(TREE)
    if misfit:
        raise Broken(misfit)
    try:
        for binary in binaries:
            failures = binary.failures()
            if failures:
                break
    finally:
        mutant_patch.write(originals)
    mutant.caught_by = [f"{binary.name}::{failure[2]}" for failure in failures]
    if not failures:
        return f"SURVIVED: {mutant.what}"
    switches, _, _, output = failures[0]
    with open(os.path.join(TIMELINES, mutant.name + ".txt"), "w") as file:
        file.write(f"{mutant.name}: {mutant.what}\n{mutant.caught_by[0]}\n\n{output}")
    # A test without a REPLAY line is sequential, or was killed.
    mutant.switches = switches if switches < sys.maxsize else None
    order = f" ({switches} switches)" if mutant.switches is not None else ""
    more = f", and by {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"caught by {mutant.caught_by[0]}{order}{more}"


def load():
    """Returns the results of earlier runs."""
    if not os.path.exists(RESULTS):
        return {}
    with open(RESULTS) as file:
        return json.load(file)


def save(part, **new):
    """Writes the new results. A full run keeps the other results of the file."""
    results.write("mutants", new if part else dict(load(), **new), part)


def protocol(names, part):
    """Tries the patches and returns the number of mutants that are not caught."""
    mutants = [mutant_patch.Patch(PATCHES, name) for name in names]
    binaries = [Binary("dfs"), Binary("sequential")]
    copy_tree(TREE)
    misfits = [misfit for misfit in (mutant.apply(TREE, "--dry-run") for mutant in mutants) if misfit]
    if misfits:
        sys.exit("\n".join("error: " + misfit for misfit in misfits))
    failed = [f"{binary.name}::{failure[2]}" for binary in binaries for failure in binary.failures()]
    if failed:
        sys.exit(f"error: a test fails on the unmodified source ({failed[0]}); run scripts/tests/host-test.py")
    print("unmodified source: passed", flush=True)
    escaped = 0
    for number, mutant in enumerate(mutants, start=1):
        mutant.caught_by = []
        try:
            outcome = test(binaries, mutant)
        except Broken as error:
            outcome = f"BROKEN: {error}"
        escaped += not mutant.caught_by
        print(f"[{number:2}/{len(mutants)}] {mutant.name}: {outcome}", flush=True)
    save(part, protocol=[{"name": m.name, "what": m.what, "caught_by": m.caught_by[0], "switches": m.switches}
                         for m in mutants if m.caught_by])
    print(f"\n{len(names)} mutants of the protocol, {len(names) - escaped} caught\n", flush=True)
    return escaped


def without_kunit(path):
    """Removes the KUnit tests at the end of a file.

    They are not compiled here, so no test could catch a mutant in them.
    """
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(re.split(r"^#\[cfg\(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST\)\]\n#\[macros::kunit_tests", text,
                            maxsplit=1, flags=re.MULTILINE)[0])


def make_workspace(tree):
    """Makes a copy of the tree whose top directory is the root of the workspace.

    cargo-mutants mutates only files below the root of the workspace.
    """
    copy_tree(tree)
    for path in glob.glob(os.path.join(tree, "rust/kernel/**/*.rs"), recursive=True):
        without_kunit(path)
    tests = os.path.join(tree, "tools/testing/collapse_file")
    manifest = os.path.join(tests, "Cargo.toml")
    with open(manifest) as file:
        text = file.read()
    sections = re.split(r"^(?=\[)", text, flags=re.MULTILINE)
    of_root = [section for section in sections if re.match(r"\[(workspace|profile)\b", section)]
    members = re.search(r"^members = (.*)$", text, re.MULTILINE).group(1)
    paths = [os.path.normpath(os.path.join("tools/testing/collapse_file", member)) for member in json.loads(members)]
    with open(os.path.join(tree, "Cargo.toml"), "w") as file:
        file.write("".join(of_root).replace(members, json.dumps(paths)).replace("[workspace]", "[workspace]\nresolver = \"2\""))
    with open(manifest, "w") as file:
        file.write("".join(section for section in sections if section not in of_root))
    os.rename(os.path.join(tests, "Cargo.lock"), os.path.join(tree, "Cargo.lock"))


class Generated:
    """A mutant that cargo-mutants generated."""

    def __init__(self, tree, outcome):
        mutant = outcome["scenario"]["Mutant"]
        path = os.path.normpath(mutant["file"])
        with open(os.path.join(tree, path)) as file:
            line = file.read().splitlines()[mutant["span"]["start"]["line"] - 1].strip()
        self.verdict = outcome["summary"]
        # The name has no line number, because line numbers change often.
        self.name = f"{path} | {line} | " + re.sub(r"^.*?:\d+:\d+: ", "", mutant["name"])


def stage(tree, number):
    """Tries the mutants that earlier stages did not catch."""
    order, shift, binary = STAGES[number]
    runner = f"CARGO_TARGET_{host_test.host_triple(host_test.tools()[0]).upper().replace('-', '_')}_RUNNER"
    seen = environment(COLLAPSE_ORDER=str(order), COLLAPSE_XA_SHIFT=str(shift), **{runner: " ".join(LIMITED)})
    log = os.path.join(LOGS, f"mutants-host-{number + 1}.log")
    with open(log, "w") as output:
        streams = {"cwd": tree, "env": seen, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        if subprocess.run(["cargo", "test", "--package=collapse-file-test", f"--test={binary}"], check=False, **streams).returncode:
            sys.exit(f"error: tests fail on the unmodified source ({binary}); see {os.path.relpath(log, TOP)}")
        # The baseline of cargo-mutants is useless: the packages that it mutates have no tests.
        subprocess.run([CARGO_MUTANTS, "mutants", "--in-place", "--iterate", "--baseline=skip", "--colors=never",
                        "--output", WORK, "--file=**/mm/collapse_file.rs", "--file=**/rust/kernel/**",
                        "--exclude=**/kunit.rs",
                        "--test-package=collapse-file-test", f"--cargo-arg=--test={binary}",
                        "--timeout=3600", "--build-timeout=3600"], check=False, **streams)
    with open(os.path.join(WORK, "mutants.out", "outcomes.json")) as file:
        outcomes = json.load(file)["outcomes"]
    mutants = [Generated(tree, outcome) for outcome in outcomes if outcome["scenario"] != "Baseline"]
    missed = [mutant.name for mutant in mutants if mutant.verdict == "MissedMutant"]
    print(f"{binary}, {1 << order} pages, nodes of {1 << shift}: {len(mutants)} mutants, {len(missed)} left", flush=True)
    return mutants, missed


def reasons():
    """Returns the known survivors with their reasons."""
    with open(SURVIVORS) as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return dict(line.rsplit(" | ", 1) for line in lines)


def generated():
    """Tries the mutants of cargo-mutants and returns the number of unexpected verdicts."""
    tree = os.path.join(WORK, "workspace")
    make_workspace(tree)
    for old in ("mutants.out", "mutants.out.old"):
        shutil.rmtree(os.path.join(WORK, old), ignore_errors=True)
    mutants, survived = stage(tree, 0)
    unviable = sum(mutant.verdict == "Unviable" for mutant in mutants)
    for number in range(1, len(STAGES)):
        if survived:
            survived = stage(tree, number)[1]
    viable = len(mutants) - unviable
    caught = viable - len(survived)
    known = reasons()
    save(False, total=len(mutants), caught=caught, unviable=unviable,
         survived=[{"mutant": name, "reason": known.get(name)} for name in survived])
    new = [name for name in survived if name not in known]
    gone = [name for name in known if name not in survived]
    for name in new:
        print(f"SURVIVED: {name}")
    for name in gone:
        print(f"caught, so remove it from {os.path.relpath(SURVIVORS, TOP)}: {name}")
    print(f"{len(mutants)} mutants by cargo-mutants, {unviable} do not compile; of the others {caught} caught, "
          f"{len(survived)} survived ({100 * caught / viable:.1f} % caught)")
    return len(new) + len(gone)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--list", action="store_true", help="list the mutants that are patches, and exit")
    parser.add_argument("names", nargs="*", metavar="NAME", help="try only these patches")
    args = parser.parse_args()
    names = mutant_patch.choose(PATCHES, args.names)
    if args.list:
        for name in names:
            print(f"{name:<38} {mutant_patch.Patch(PATCHES, name).what}")
        return 0
    host_test.tools()
    if not args.names and not shutil.which(CARGO_MUTANTS):
        sys.exit(f"error: cargo-mutants is missing ({CARGO_MUTANTS}); run 'make mutants-host', which installs it")
    for directory in (WORK, TIMELINES, LOGS):
        os.makedirs(directory, exist_ok=True)
    wrong = protocol(names, bool(args.names))
    if not args.names:
        wrong += generated()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
