#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Break collapse_file() on purpose and see whether the tests in the guest notice.

Each patch in scripts/mutants/ breaks one thing. A kernel is built with it, and the
suites are run with the implementation that it breaks, while the next one is being
built. A mutant is caught if a test fails, the kernel complains or leaks, or the
guest hangs. The unmutated kernel goes first, and has to pass.

The results go to build/results/mutants_vm.json. Fails if a mutant survives or is
broken, which is to say that there is no kernel with it that gets to the tests.
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

import ktap
import mutant_patch
import results
import vm

LINUX = os.path.join(vm.BUILD, "linux")
IMAGE = os.path.join(LINUX, "build-mutants/arch/x86/boot/bzImage")
IMAGES = os.path.join(vm.BUILD, "mutants")
LOGS = os.path.join(vm.BUILD, "logs", "mutants")
PATCHES = os.path.join(vm.TOP, "scripts/mutants")
SUITES = ["collapse_file", "collapse_file_fs", "collapse_file_promises", "collapse_file_results", "collapse_file-classic-lru"]
SILENCE_SECONDS = 120
# A guest that spins may go on to say so for ever. The others get a multiple of what the unmutated kernel took.
BASELINE_SECONDS = 3600
PATIENCE = 3


class Broken(Exception):
    """Why a kernel cannot be tested, in a line."""


class Mutant(mutant_patch.Patch):
    """A patch to build/linux, and what came of it."""

    def __init__(self, name):
        super().__init__(PATCHES, name)
        self.caught_by = []
        self.broken = None

    @contextlib.contextmanager
    def applied(self):
        """build/linux with the mutant in it. Afterwards the files are as before, and newer than what was built."""
        originals = self.read(LINUX)
        try:
            misfit = self.apply(LINUX)
            if misfit:
                raise Broken(misfit)
            yield
            # What was built then may have had nothing wrong with it.
            if self.apply(LINUX, "--dry-run", "--reverse"):
                raise Broken("somebody else changed the sources during the build")
        finally:
            mutant_patch.write(originals)

    def verdict(self):
        """What came of it, for the table."""
        if self.broken:
            return "BROKEN"
        return "caught" if self.caught_by else "SURVIVED"


class Builder:
    """Builds kernels one by one, on a thread of its own."""

    def __init__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self.lock = threading.Lock()
        self.process = None
        self.stopped = False

    def start(self, mutant, progress):
        """Begin to build. The future raises Broken if there will be no kernel."""
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
            # A group of its own, so that make goes with the script.
            self.process = subprocess.Popen([os.path.join(vm.TOP, "scripts/build-kernel.sh"), "mutants"],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE, text=True, start_new_session=True)
        errors = self.process.communicate()[1]
        if self.process.returncode:
            # The compiler's first error comes first.
            raise Broken("it does not build: " + (errors.strip().split("\n")[0] or "build-kernel.sh was ended"))

    def stop(self):
        """End what is being built, and wait until the sources are as they were."""
        with self.lock:
            self.stopped = True
            if self.process and self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGTERM)
        self.pool.shutdown(cancel_futures=True)


class Caught(Exception):
    """Something has noticed the mutant, and that is enough."""


def missing(run):
    """Suites of which not a test passed with both implementations."""
    return [f"{name} ({impl})" for name in SUITES for impl in ("rust", "c")
            if not any(s.name == name and s.impl == impl and s.passed for s in run.suites)]


def image_of(mutant):
    return os.path.join(IMAGES, (mutant.name if mutant else "baseline") + ".bzImage")


def run_guest(args, mutant, seconds, retried=False):
    """Run the suites. Returns what the guest told and a list of what was wrong."""
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
        raise Broken(f"the guest did not get to the tests: {ended[0] if ended else 'its script ended before them'}")

    wrong = [f"{suite.name}: {failure}" for suite in run.suites for failure in suite.failures]
    # Each is there with its own time; what matters is the first of a kind.
    splats = [re.sub(r"^\[ *[\d.]+\] *", "", splat) for splat in vm.splats(console)]
    wrong += [f"the kernel: {splat}" for splat in dict.fromkeys(splats)]
    if run.leaks:
        wrong.append(f"memory is lost: {run.leaks[0]}")
    return run, wrong + ended


def check_baseline(args):
    """The kernel without a mutant has to pass. Returns how long a guest with a mutant may take, in seconds."""
    begun = time.monotonic()
    run, wrong = run_guest(args, None, BASELINE_SECONDS)
    wrong += [f"not a test passed of {suite}" for suite in missing(run)]
    if wrong:
        raise Broken("without a mutant: " + "; ".join(wrong[:5]))
    seconds = int(time.monotonic() - begun)
    print(f"baseline: passed in {seconds} s", flush=True)
    return PATIENCE * seconds + args.silence


def test(args, mutant, seconds):
    """Run the suites with a mutant, whose kernel is there. Returns a line about it."""
    mutant.caught_by = run_guest(args, mutant, seconds)[1]
    if not mutant.caught_by:
        return "SURVIVED: " + mutant.what
    os.remove(image_of(mutant))
    more = len(mutant.caught_by) - 3
    return "caught by " + ", ".join(mutant.caught_by[:3]) + (f" and {more} more" if more > 0 else "")


def write_results(total, mutants, part):
    """Write what is known so far: of a run that was ended, these are fewer than the total."""
    results.write("mutants_vm", {
        "total": total,
        "caught": sum(m.verdict() == "caught" for m in mutants),
        "survived": [m.name for m in mutants if m.verdict() == "SURVIVED"],
        "broken": [m.name for m in mutants if m.broken],
        "mutants": [{"name": m.name, "impl": m.impl, "what": m.what, "caught_by": m.caught_by} for m in mutants],
    }, part)


def hunt(args, mutants, builder):
    """Build and test everything, a build and a guest at a time."""
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
    """Once is enough: putting the sources back is not to be interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def check_fit(mutants):
    """Every patch has to fit before anything is built."""
    misfits = [mutant.apply(LINUX, "--dry-run") for mutant in mutants]
    if any(misfits):
        sys.exit("\n".join("error: " + misfit for misfit in misfits if misfit))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--accel", default="auto", help="auto, kvm or tcg")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--silence", type=int, default=SILENCE_SECONDS, metavar="SECONDS",
                        help="a guest that prints nothing for so long hangs (%(default)s)")
    parser.add_argument("--all", action="store_true", help="go on when a test has failed, for the names of the others")
    parser.add_argument("--list", action="store_true", help="list the mutants and do nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutants only")
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
    # Two at a time would take each other's mutants for the original sources.
    with open(os.path.join(IMAGES, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("error: mutants are being tested already: wait for that to end")
        check_fit(mutants)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupted)
        builder = Builder()
        try:
            hunt(args, mutants, builder)
        except (Broken, vm.Failed) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("error: interrupted")
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
