#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Mutate collapse_file() and check whether the tests in the guest fail.

Each patch in scripts/mutants/vm/ breaks one thing. The script builds a kernel with the patch and runs
the suites with the implementation that the patch breaks, while the next kernel is built. A mutant
is caught if a test fails, the kernel reports a bug or a leak, or the guest hangs. The unmodified
kernel runs first and must pass.

The results go to build/results/mutants_vm.json. The run fails if a mutant survives or is broken.
A mutant is broken if its kernel does not build or does not reach the tests.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import ktap  # noqa: E402
import mutant_patch  # noqa: E402
import results  # noqa: E402
import vm  # noqa: E402

LINUX = os.path.join(vm.BUILD, "linux")
IMAGE = os.path.join(LINUX, "build-mutants/arch/x86/boot/bzImage")
IMAGES = os.path.join(vm.BUILD, "mutants")
LOGS = os.path.join(vm.BUILD, "logs", "mutants")
PATCHES = os.path.join(vm.TOP, "scripts/mutants/vm")
SUITES = ["collapse_file", "collapse_file_fs", "collapse_file_promises", "collapse_file_results", "collapse_file-classic-lru"]
SILENCE_SECONDS = 120
# The unmodified kernel gets BASELINE_SECONDS. A mutant gets PATIENCE times the time that the
# unmodified kernel needed, because a guest that spins may print warnings forever.
BASELINE_SECONDS = 3600
PATIENCE = 3


class Broken(Exception):
    """The reason why a kernel cannot be tested, in a line."""


class Mutant(mutant_patch.Patch):
    """A patch to build/linux, and the outcome of its test."""

    def __init__(self, name):
        super().__init__(PATCHES, name)
        self.caught_by = []
        self.broken = None

    @contextlib.contextmanager
    def applied(self):
        """Applies the mutant to build/linux, and restores the files with new timestamps at exit."""
        originals = self.read(LINUX)
        try:
            misfit = self.apply(LINUX)
            if misfit:
                raise Broken(misfit)
            yield
            # If the sources changed, the kernel may have been built without the mutant.
            if self.apply(LINUX, "--dry-run", "--reverse"):
                raise Broken("another process changed the sources during the build")
        finally:
            mutant_patch.write(originals)

    def verdict(self):
        """Returns the outcome for the table."""
        if self.broken:
            return "BROKEN"
        return "caught" if self.caught_by else "SURVIVED"


class Builder:
    """Builds kernels one at a time, on a separate thread."""

    def __init__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self.lock = threading.Lock()
        self.process = None
        self.stopped = False

    def start(self, mutant, progress):
        """Starts a build and returns its future, which raises Broken if the build fails."""
        return self.pool.submit(self.build, mutant, progress)

    def build(self, mutant, progress):
        print(f"{progress}: building", flush=True)
        with mutant.applied() if mutant else contextlib.nullcontext():
            self.make()
            shutil.copyfile(IMAGE, image_of(mutant))

    def make(self):
        with self.lock:
            if self.stopped:
                raise Broken("the build was stopped")
            # The script has its own process group, so that stop() also ends make.
            self.process = subprocess.Popen([os.path.join(vm.TOP, "scripts/build/build-kernel.sh"), "mutants"],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE, text=True, start_new_session=True)
        errors = self.process.communicate()[1]
        if self.process.returncode:
            # The compiler's first error comes first.
            raise Broken("the kernel does not build: " + (errors.strip().split("\n")[0] or "build-kernel.sh was killed"))

    def stop(self):
        """Ends the current build and waits until the sources are restored."""
        with self.lock:
            self.stopped = True
            if self.process and self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGTERM)
        self.pool.shutdown(cancel_futures=True)


class Caught(Exception):
    """Raised when a test fails with the mutant, to end the guest early."""


def missing(run):
    """Returns the suites that have no passed test, with the implementation."""
    return [f"{name} ({impl})" for name in SUITES for impl in ("rust", "c")
            if not any(s.name == name and s.impl == impl and s.passed for s in run.suites)]


def image_of(mutant):
    return os.path.join(IMAGES, (mutant.name if mutant else "baseline") + ".bzImage")


def run_guest(args, mutant, seconds, retried=False):
    """Runs the suites in a guest and returns its results and a list of problems."""
    def took_too_long(_number, _frame):
        raise vm.Failed(f"the guest has not ended in {seconds} s")

    name = mutant.name if mutant else "baseline"
    console = os.path.join(LOGS, name + ".console.log")
    image = image_of(mutant)
    command = shlex.join([os.path.join(vm.TOP, "scripts/guest/tests.sh")] +
                         (["-i", mutant.impl] if mutant else []) + SUITES)
    disks = vm.make_disks(os.path.join(vm.BUILD, "disks-mutants"))
    line = vm.command_line(image, vm.accelerator(args.accel, image), args.memory, 2, vm.TEST_BOOT, disks, command)

    run = ktap.Run()
    ended = []
    signal.signal(signal.SIGALRM, took_too_long)
    with open(os.path.join(LOGS, name + ".ktap"), "w") as log:
        def on_line(text):
            log.write(text + "\n")
            run.line(text)
            if mutant and not args.all and any(suite.failures for suite in run.suites):
                raise Caught

        signal.alarm(seconds)
        try:
            status = vm.run(line, console, on_line, silence_seconds=args.silence)
            if status:
                ended.append(f"the guest's script ended with status {status}")
        except Caught:
            pass
        except vm.Failed as failed:
            hung = re.search("silent|not end", str(failed))
            ended.append(f"the guest hung: {failed}" if hung else str(failed))
        finally:
            signal.alarm(0)
    if vm.emulator_tripped(console) and not retried:
        return run_guest(args, mutant, seconds, retried=True)
    if not run.suites:
        raise Broken(f"the guest did not reach the tests: {ended[0] if ended else 'its script ended early'}")

    wrong = [f"{suite.name}: {failure}" for suite in run.suites for failure in suite.failures]
    # The timestamps are removed, so that equal lines count once.
    splats = [re.sub(r"^\[ *[\d.]+\] *", "", splat) for splat in vm.splats(console)]
    wrong += [f"the kernel: {splat}" for splat in dict.fromkeys(splats)]
    if run.leaks:
        wrong.append(f"memory is lost: {run.leaks[0]}")
    return run, wrong + ended


def check_baseline(args):
    """Tests the unmodified kernel, which must pass, and returns the time limit for a mutant in seconds."""
    begun = time.monotonic()
    run, wrong = run_guest(args, None, BASELINE_SECONDS)
    wrong += [f"no test of {suite} passed" for suite in missing(run)]
    if wrong:
        raise Broken("the unmodified kernel fails: " + "; ".join(wrong[:5]))
    seconds = int(time.monotonic() - begun)
    print(f"baseline: passed in {seconds} s", flush=True)
    return PATIENCE * seconds + args.silence


def test(args, mutant, seconds):
    """Runs the suites with a mutant whose kernel is built, and returns a line about the outcome."""
    mutant.caught_by = run_guest(args, mutant, seconds)[1]
    if not mutant.caught_by:
        return "SURVIVED: " + mutant.what
    os.remove(image_of(mutant))
    more = len(mutant.caught_by) - 3
    return "caught by " + ", ".join(mutant.caught_by[:3]) + (f" and {more} more" if more > 0 else "")


def write_results(total, mutants, part):
    """Writes the results so far. A run that was interrupted has fewer results than the total."""
    results.write("mutants_vm", {
        "total": total,
        "caught": sum(m.verdict() == "caught" for m in mutants),
        "survived": [m.name for m in mutants if m.verdict() == "SURVIVED"],
        "broken": [m.name for m in mutants if m.broken],
        "mutants": [{"name": m.name, "impl": m.impl, "what": m.what, "caught_by": m.caught_by} for m in mutants],
    }, part)


def hunt(args, mutants, builder):
    """Builds and tests all mutants, with at most one build and one guest at a time."""
    said = [f"[{number:2}/{len(mutants)}] {mutant.name}" for number, mutant in enumerate(mutants, start=1)]
    write_results(len(mutants), [], args.part)
    builder.start(None, "baseline").result()
    building = builder.start(mutants[0], said[0])
    seconds = check_baseline(args)
    for number, mutant in enumerate(mutants):
        built = building
        concurrent.futures.wait([built])
        if number + 1 < len(mutants):
            building = builder.start(mutants[number + 1], said[number + 1])
        try:
            built.result()
            outcome = test(args, mutant, seconds)
        except Broken as error:
            mutant.broken = str(error)
            outcome = f"BROKEN: {error}"
        print(f"{said[number]}: {outcome}", flush=True)
        write_results(len(mutants), mutants[:number + 1], args.part)


def interrupted(_number, _frame):
    """Ignores further signals, so that the sources are restored, and raises KeyboardInterrupt."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def check_fit(mutants):
    """Checks that all patches fit, before any kernel is built."""
    misfits = [mutant.apply(LINUX, "--dry-run") for mutant in mutants]
    if any(misfits):
        sys.exit("\n".join("error: " + misfit for misfit in misfits if misfit))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--accel", default="auto", help="auto, kvm or tcg")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--silence", type=int, default=SILENCE_SECONDS, metavar="SECONDS",
                        help="a guest that prints nothing for this time hangs (%(default)s)")
    parser.add_argument("--all", action="store_true", help="continue after a failed test, to list all that fail")
    parser.add_argument("--list", action="store_true", help="list the mutants, and exit")
    parser.add_argument("names", nargs="*", metavar="NAME", help="try only these mutants")
    args = parser.parse_args()
    args.part = bool(args.names)
    vm.end_with_us()

    mutants = [Mutant(name) for name in mutant_patch.choose(PATCHES, args.names)]
    if args.list:
        for mutant in mutants:
            print(f"{mutant.name:<38} {mutant.impl:<5} {mutant.what}")
        return 0

    for path in (IMAGES, LOGS, results.RESULTS):
        os.makedirs(path, exist_ok=True)
    # A second run would take the mutants of the first for the original sources.
    with open(os.path.join(IMAGES, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"error: another run is testing mutants (lock {os.path.relpath(lock.name, vm.TOP)}); wait until it ends")
        check_fit(mutants)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupted)
        builder = Builder()
        try:
            hunt(args, mutants, builder)
        except (Broken, vm.Failed) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("error: interrupted; run 'make mutants-vm' again")
        finally:
            builder.stop()

    print(f"\n{'mutant':<38} {'impl':<5} {'':<9} caught by")
    for mutant in mutants:
        first = mutant.broken or (mutant.caught_by[0] if mutant.caught_by else "")
        print(f"{mutant.name:<38} {mutant.impl:<5} {mutant.verdict():<9} {first}".rstrip())
    verdicts = [mutant.verdict() for mutant in mutants]
    broken = verdicts.count("BROKEN")
    print(f"\n{len(mutants)} mutants, {verdicts.count('caught')} caught, {verdicts.count('SURVIVED')} survived" +
          (f", {broken} broken" if broken else ""))
    return 0 if verdicts.count("caught") == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
