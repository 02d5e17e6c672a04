#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Break collapse_file() on purpose and see whether the tests on the host notice.

Two kinds of mutants, both in copies of the tree. Each patch in scripts/mutants-host/
breaks one step of the protocol, and the types that forbid that as far as it takes. It is
caught if one of the tests in every order (tests/dfs.rs) fails. Of all failures the one
with the fewest switches of tasks is told, as a timeline in build/results/timelines. If
none of them fails, one of the tests with a single order (tests/sequential.rs) has to.

The others are made by cargo-mutants, of mm/collapse_file.rs and rust/kernel/: operators
and results are replaced one by one. The quick tests come first, and what they do not
catch goes on to the next stage. scripts/mutants-host/survivors.txt tells of each that
survives them all why; one that is not in there fails the run, and so does one that is in
there and is caught.

The results go to build/results/mutants.json. With names of patches, only these are tried.
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

import mutant_patch
import results

host_test = importlib.import_module("host-test")

TOP = mutant_patch.TOP
BUILD = os.path.join(TOP, "build")
WORK = os.path.join(BUILD, "mutants-host")
TREE = os.path.join(WORK, "tree")
SOURCES = ["mm", "rust", "tools/testing/collapse_file"]
TESTS = os.path.join(TREE, "tools/testing/collapse_file")
PATCHES = os.path.join(TOP, "scripts/mutants-host")
RESULTS = os.path.join(results.RESULTS, "mutants.json")
TIMELINES = os.path.join(results.RESULTS, "timelines")
LOGS = os.path.join(BUILD, "logs")
# What a test takes a second of processor time for, a mutant may loop in, and note what happens all the while. The time
# on the clock says little: there may be others.
LIMITED = ["prlimit", "--cpu=60", f"--as={4 << 30}"]

CARGO_MUTANTS = os.environ.get("CARGO_MUTANTS", "cargo-mutants")
SURVIVORS = os.path.join(PATCHES, "survivors.txt")
# Order, bits of a node, test binary. Most mutants do not get beyond the first stage, of a second.
STAGES = [(2, 1, "sequential"), (2, 1, "dfs"), (3, 2, "sequential"), (2, 6, "sequential"), (3, 2, "random")]

FAILURE = re.compile(r"again: REPLAY='(\S+)'")


class Broken(Exception):
    """Why there is nothing to test, in a line."""


def copy_tree(tree):
    """A fresh copy of what is tested; the files are newer than all that was built."""
    shutil.rmtree(tree, ignore_errors=True)
    for path in SOURCES:
        shutil.copytree(os.path.join(TOP, path), os.path.join(tree, path), copy_function=shutil.copy,
                        ignore=shutil.ignore_patterns("target"))


def environment(**more):
    """What cargo and the tests get to see."""
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
        """Compile. Returns the program."""
        built = subprocess.run(["cargo", "test", "--quiet", "--no-run", "--test", self.name, "--message-format=json"],
                               cwd=TESTS, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, check=False)
        messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
        if built.returncode:
            errors = [m["message"]["rendered"] for m in messages
                      if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
            raise Broken("it does not compile: " + ("\n".join(errors) or built.stderr).strip())
        return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == self.name)

    def run(self, program, *arguments, **more):
        """Run it. Returns whether it went well, and what it said."""
        done = subprocess.run([*LIMITED, program, *arguments], env=dict(self.environment, **more),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", check=False)
        return not done.returncode, done.stdout

    def failures(self):
        """Build and run all tests. Returns those that fail, as (switches, events, test, output)."""
        program = self.build()
        tests = re.findall(r"^(\w+): test$", self.run(program, "--list")[1], re.MULTILINE)
        if not tests:
            raise Broken("there are no tests")
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
    """Run the tests with a mutant, one binary after the other until a test fails. Returns a line about it."""
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
    # A test that does not tell its order has only one, or was ended.
    mutant.switches = switches if switches < sys.maxsize else None
    order = f" ({switches} switches)" if mutant.switches is not None else ""
    more = f", and by {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"caught by {mutant.caught_by[0]}{order}{more}"


def load():
    """What was found before."""
    if not os.path.exists(RESULTS):
        return {}
    with open(RESULTS) as file:
        return json.load(file)


def save(part, **new):
    """Write down what is known, next to what was."""
    results.write("mutants", new if part else dict(load(), **new), part)


def protocol(names, part):
    """Try the patches. Returns how many are not caught."""
    mutants = [mutant_patch.Patch(PATCHES, name) for name in names]
    binaries = [Binary("dfs"), Binary("sequential")]
    copy_tree(TREE)
    misfits = [misfit for misfit in (mutant.apply(TREE, "--dry-run") for mutant in mutants) if misfit]
    if misfits:
        sys.exit("\n".join("error: " + misfit for misfit in misfits))
    failed = [f"{binary.name}::{failure[2]}" for binary in binaries for failure in binary.failures()]
    if failed:
        sys.exit(f"error: without a mutant fails {failed[0]}: run scripts/host-test.py")
    print("without a mutant: passed", flush=True)
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
    """KUnit's tests come last in a file. They are not compiled here, so that nothing would notice a mutant in them."""
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(re.split(r"^#\[cfg\(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST\)\]\n#\[macros::kunit_tests", text,
                            maxsplit=1, flags=re.MULTILINE)[0])


def make_workspace(tree):
    """A copy in which all that is to be mutated is below the root of the workspace: cargo-mutants sees nothing else."""
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
    """A mutant that cargo-mutants has made."""

    def __init__(self, tree, outcome):
        mutant = outcome["scenario"]["Mutant"]
        path = os.path.normpath(mutant["file"])
        with open(os.path.join(tree, path)) as file:
            line = file.read().splitlines()[mutant["span"]["start"]["line"] - 1].strip()
        self.verdict = outcome["summary"]
        # Without the number of the line, which changes too often.
        self.name = f"{path} | {line} | " + re.sub(r"^.*?:\d+:\d+: ", "", mutant["name"])


def stage(tree, number):
    """Try what has not been caught in the stages before."""
    order, shift, binary = STAGES[number]
    runner = f"CARGO_TARGET_{host_test.host_triple(host_test.tools()[0]).upper().replace('-', '_')}_RUNNER"
    seen = environment(COLLAPSE_ORDER=str(order), COLLAPSE_XA_SHIFT=str(shift), **{runner: " ".join(LIMITED)})
    log = os.path.join(LOGS, f"mutants-host-{number + 1}.log")
    with open(log, "w") as output:
        streams = {"cwd": tree, "env": seen, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        if subprocess.run(["cargo", "test", "--package=collapse-file-test", f"--test={binary}"], check=False, **streams).returncode:
            sys.exit(f"error: {binary} fails without a mutant: see {os.path.relpath(log, TOP)}")
        # Its own first run would be of the packages that the mutants are in, which have no tests.
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
    """Why each survives that is known to."""
    with open(SURVIVORS) as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return dict(line.rsplit(" | ", 1) for line in lines)


def generated():
    """Try what cargo-mutants makes. Returns how many verdicts are not the ones expected."""
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
        print(f"caught, and not to be in {os.path.relpath(SURVIVORS, TOP)} any more: {name}")
    print(f"{len(mutants)} mutants by cargo-mutants, {unviable} do not compile; of the others {caught} caught, "
          f"{len(survived)} survived ({100 * caught / viable:.1f} % caught)")
    return len(new) + len(gone)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--list", action="store_true", help="list the mutants that are patches and do nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these patches, and nothing made by cargo-mutants")
    args = parser.parse_args()
    names = mutant_patch.choose(PATCHES, args.names)
    if args.list:
        for name in names:
            print(f"{name:<38} {mutant_patch.Patch(PATCHES, name).what}")
        return 0
    host_test.tools()
    if not args.names and not shutil.which(CARGO_MUTANTS):
        sys.exit("error: cargo-mutants is missing: run `scripts/setup.sh mutants`, or `make mutants-host`")
    for directory in (WORK, TIMELINES, LOGS):
        os.makedirs(directory, exist_ok=True)
    wrong = protocol(names, bool(args.names))
    if not args.names:
        wrong += generated()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
