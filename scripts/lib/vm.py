#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Boot a kernel with virtme-ng and run a command in it.

The guest sees the host's file system read-only. A guest of another architecture (ARCH=arm64) sees
build/root-ARCH, which contains the tests. The output of the command goes to stdout, and the
kernel's console goes to a log. If a guest does not come up, falls silent or panics, the script
ends it and prints the last lines of its console.
"""

import argparse
import ctypes
import itertools
import mmap
import os
import platform
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, "build")
CACHE = os.environ.get("CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "rust-collapse-file")
VNG = os.environ.get("VNG", "vng")
ARCH = os.environ.get("ARCH") or "x86_64"
NATIVE = ARCH == "x86_64"

BOOT_SECONDS = 240
PROBE_SECONDS = 40
# No suite is silent for this long.
SILENCE_SECONDS = 1500
# Uninitialised memory must not look like zeroes. After an oops a guest may hang forever, so it
# panics. Some tests need two nodes.
TEST_BOOT = ["page_poison=1", "init_on_alloc=0", "oops=panic", "numa=fake=2", "page_owner=on"]
# rdtsc; shl $32, %rdx; or %rdx, %rax; ret
RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
TSC_SECONDS = 0.2
UP = "guest: up"
STATUS = "guest: status "
# Without ACPI a guest cannot power off. It reboots instead, and QEMU exits on a reboot.
END = "sync; /bin/busybox reboot -f"
DISKS = {"ext4": (["mke2fs", "-q", "-F", "-t", "ext4"], 512), "xfs": (["mkfs.xfs", "-q", "-f"], 512),
         "swap": (["mkswap", "-q"], 256), "xfs-small-blocks": (["mkfs.xfs", "-q", "-f", "-b", "size=1024"], 320)}


class Failed(Exception):
    """A problem with the guest, in a line."""


class NotUp(Failed):
    """The guest ended before it ran the command."""


def tool(name):
    """Returns the path of a program, also if its directory is only in root's PATH."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not path:
        raise Failed(f"{name} is not installed; run 'make setup'")
    return path


def make_disks(directory):
    """Makes fresh images, which the guest sees as vda, vdb and so on, and returns their paths."""
    os.makedirs(directory, exist_ok=True)
    paths = []
    for name, (command, mib) in DISKS.items():
        path = os.path.join(directory, name + ".img")
        if os.path.exists(path):
            os.remove(path)
        with open(path, "wb") as image:
            image.truncate(mib << 20)
        subprocess.run([tool(command[0])] + command[1:] + [path], check=True, stdout=subprocess.DEVNULL)
        paths.append(path)
    return paths


def in_guest(path):
    """Returns the path of a file of this repository inside a guest."""
    return os.path.join(TOP if NATIVE else "/opt/collapse_file", path)


def command_line(kernel, accel, memory, cpus, append, disks, command=None, qemu=""):
    """Returns the vng command. `qemu` has further options for QEMU."""
    if not os.access(kernel, os.R_OK):
        raise Failed(f"the kernel is missing ({kernel}); run 'make kernel'")
    if not shutil.which(VNG):
        raise Failed(f"virtme-ng is missing ({VNG}); run 'make setup', and start this script through make")
    args = [VNG, "--run", kernel, "--disable-microvm", "--force-9p", "--cpus", str(cpus), "--memory", memory]
    # build/root-ARCH has unconfigured packages, so su does not work there.
    args += ["--user", "root"] if NATIVE else ["--arch", ARCH, "--root", os.path.join(BUILD, "root-" + ARCH)]
    if accel == "tcg":
        args.append("--disable-kvm")
    # A machine whose devices are not on PCI probes them in reverse order.
    for disk in disks if NATIVE else reversed(disks):
        args += ["--disk", disk]
    for option in ["reboot=t", "printk.time=1"] + clock(accel, qemu) + append:
        args += ["--append", option]
    # Without ACPI a guest finds only the first CPU of each socket.
    qemu += f" -smp {cpus},sockets={cpus},cores=1,threads=1"
    if not command:
        qemu += " -no-reboot"
        args += ["--shell", in_guest("scripts/guest/shell.sh")]
    else:
        args += ["--verbose", "--exec", f"echo '{UP}'; {command}; echo '{STATUS}'$?; {END}"]
    return args + [f"--qemu-opts={qemu.strip()}"]


def tsc_khz():
    """Returns the frequency of this machine's TSC in kHz, or None if it is not constant or unreadable.

    An emulated guest reads the same TSC, but has no other clock to calibrate it.
    """
    try:
        with open("/proc/cpuinfo") as file:
            steady = "constant_tsc" in file.read()
        if platform.machine() != "x86_64" or not steady:
            return None
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(RDTSC)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def look():
        # The quickest of several readings is used, because it was not interrupted.
        looks = [(time.monotonic_ns(), rdtsc(), time.monotonic_ns()) for _ in range(100)]
        before, tsc, after = min(looks, key=lambda look: look[2] - look[0])
        return (before + after) / 2, tsc

    (begun, first), _, (ended, last) = look(), time.sleep(TSC_SECONDS), look()
    return round((last - first) * 1_000_000 / (ended - begun))


def clock(accel, qemu):
    """Returns boot parameters that give an emulated guest a clock.

    Without them its clock advances with ticks, in steps of 4 to 10 ms, and stops while interrupts
    are off. With -icount the guest's TSC counts instructions, so this machine's frequency would be
    wrong.
    """
    khz = tsc_khz() if accel == "tcg" and NATIVE and "-icount" not in qemu else None
    return [f"tsc_early_khz={khz}", "tsc=reliable"] if khz else []


def gdb_options(socket):
    """Returns the QEMU options that let gdb attach at any time."""
    return f"-chardev socket,path={os.path.abspath(socket)},server=on,wait=off,id=gdb -gdb chardev:gdb" if socket else ""


def tail(path, lines=15):
    """Returns the last lines of a log."""
    try:
        with open(path, errors="replace") as log:
            # A guest may have been killed in the middle of a line.
            return "".join(log.readlines()[-lines:]).rstrip("\n") + "\n"
    except OSError:
        return ""


def end_with_us():
    """Makes SIGTERM end this program like SIGINT, so that no guest keeps running."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))


def panicked(line):
    """Returns the text of a console line if it reports a panic, or None."""
    return line.strip() if "Kernel panic" in line else None


def run(args, console, on_line, **limits):
    """Runs a guest, calls on_line for each line of its output, and returns the exit status.

    A guest that ends while it boots is started once more, because QEMU 7.2 sometimes crashes then.
    """
    try:
        return run_once(args, console, on_line, **limits)
    except NotUp as failed:
        print(f"==> {failed}; starting it again", flush=True)
    return run_once(args, console, on_line, **limits)


def run_once(args, console, on_line, boot_seconds=BOOT_SECONDS, silence_seconds=SILENCE_SECONDS):
    """Does the same as run(), but starts the guest only once."""
    lines = queue.Queue()
    os.makedirs(os.path.dirname(console), exist_ok=True)

    with open(console, "wb") as console_file:
        # vng has its own process group, so that killing the group also ends QEMU.
        process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True,
                                   env=dict(os.environ, PATH=os.path.dirname(VNG) + ":" + os.environ["PATH"]))

        def read_console():
            for line in process.stderr:
                console_file.write(line)
                console_file.flush()
                lines.put(("console", line.decode(errors="replace")))

        def read_output():
            for line in process.stdout:
                lines.put(("output", line.decode(errors="replace").rstrip("\r\n")))
            lines.put(("end", ""))

        threads = [threading.Thread(target=target, daemon=True) for target in (read_console, read_output)]
        for thread in threads:
            thread.start()

        up = False
        panic = status = None
        last = started = time.monotonic()
        try:
            while True:
                try:
                    kind, line = lines.get(timeout=1)
                    last = time.monotonic()
                except queue.Empty:
                    kind, line = None, ""
                now = time.monotonic()
                if kind == "end":
                    break
                if kind == "console":
                    panic = panicked(line) or panic
                if kind == "output":
                    if not up and line.strip() == UP:
                        up = True
                        continue
                    if line.startswith(STATUS):
                        status = int(line[len(STATUS):])
                        continue
                    on_line(line)
                if not up and now - started > boot_seconds:
                    raise Failed(f"the guest did not come up in {boot_seconds} s")
                if now - last > silence_seconds:
                    raise Failed(f"the guest has been silent for {silence_seconds} s and was ended")
            process.wait(timeout=60)
        except subprocess.TimeoutExpired as timeout:
            raise Failed("the guest did not end") from timeout
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for thread in threads:
                thread.join(timeout=5)
    # Console lines may still be queued after the end of the output.
    while not lines.empty():
        panic = panicked(lines.get()[1]) or panic
    if panic:
        raise Failed(panic)
    if not up:
        raise NotUp("the guest ended before it came up")
    if status is None:
        raise Failed("the guest ended before the command did")
    return status


def accelerator(choice, kernel):
    """Returns kvm or tcg: the given choice, or for auto the one that works.

    A guest may hang although /dev/kvm exists, so the first call boots one to try.
    """
    if choice in ("kvm", "tcg"):
        return choice
    if choice != "auto":
        raise Failed(f"unknown accelerator (ACCEL={choice}); choose from auto, kvm, tcg")
    if ARCH != platform.machine():
        return "tcg"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    remembered = os.path.join(CACHE, "accel")
    try:
        with open(remembered) as file:
            known = file.read().strip()
        if known in ("kvm", "tcg"):
            return known
    except OSError:
        pass
    line = command_line(kernel, "kvm", "1G", 1, [], [], "true")
    print(f"==> checking whether KVM works (up to {PROBE_SECONDS} s)", flush=True)
    try:
        run(line, os.path.join(BUILD, "logs", "kvm-probe.log"), lambda text: None, boot_seconds=PROBE_SECONDS)
        accel = "kvm"
    except Failed:
        accel = "tcg"
        print("==> KVM does not work; guests are emulated, which is slower (ACCEL=kvm forces KVM)", flush=True)
    with open(remembered, "w") as file:
        file.write(accel + "\n")
    return accel


def splats(console):
    """Returns the lines of a console that report a bug in the kernel."""
    bad = re.compile(
        # The timestamp distinguishes the kernel's lines from those of QEMU and virtme-ng.
        r"^\[ *\d+\.\d+\] .*("
        r"BUG:|WARNING:|kernel BUG at|Oops|general protection|Kernel panic|possible (circular|recursive)|"
        r"INFO: (rcu|task|possible|trying)|blocked for more than|soft lockup|hard LOCKUP|"
        r"inconsistent lock state|suspicious RCU|held lock freed|lock held when returning|"
        r"Bad page (state|map)|page_table_check|list_(add|del) corruption|"
        r"unreferenced object|rust_kernel: panicked|Call [Tt]race)")
    found = []
    with open(console, errors="replace") as log:
        for line in log:
            if "BUG: KCSAN:" in line:
                # Only data races that involve a collapse count.
                report = list(itertools.takewhile(lambda text: "=======" not in text, log))
                if not any("collapse_file" in text for text in report):
                    continue
            if bad.search(line):
                found.append(line.strip())
    return found


def emulator_tripped(console):
    """Returns whether a guest may have died of a bug in QEMU's emulation.

    In about one of 60 guests with two CPUs, QEMU delivered the breakpoint of a removed kprobe. If this
    happens twice in a row, the cause is different.
    """
    with open(console, errors="replace") as log:
        return any("Oops: int3" in line for line in log)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--accel", default="auto", help="auto, kvm or tcg")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--append", action="append", default=[], help="boot parameter")
    parser.add_argument("--console", default=os.path.join(BUILD, "logs", "console.log"))
    parser.add_argument("--boot-seconds", type=int, default=BOOT_SECONDS, help="time limit for the boot")
    parser.add_argument("--disks", help="directory for the ext4, xfs and swap images")
    parser.add_argument("--gdb", metavar="SOCKET", help="socket at which gdb can attach")
    parser.add_argument("--show", action="store_true", help="print the vng command, and exit")
    parser.add_argument("command", nargs="*", help="command to run (default: an interactive shell)")
    args = parser.parse_args()
    end_with_us()

    try:
        accel = accelerator(args.accel, args.kernel)
        disks = make_disks(args.disks) if args.disks else []
        line = command_line(args.kernel, accel, args.memory, args.cpus, args.append, disks,
                            " ".join(shlex.quote(word) for word in args.command), gdb_options(args.gdb))
        if args.show:
            print(shlex.join(line))
            return 0
        if not args.command:
            os.environ["PATH"] = os.path.dirname(VNG) + ":" + os.environ["PATH"]
            os.execvp(line[0], line)
        try:
            status = run(line, args.console, lambda text: print(text, flush=True), boot_seconds=args.boot_seconds)
            found = splats(args.console)
            if found:
                raise Failed("the kernel complained: " + found[0])
        except Failed as failed:
            sys.stderr.write(tail(args.console))
            raise Failed(f"{failed}; the console is in {os.path.relpath(args.console, TOP)}") from failed
        return status
    except Failed as failed:
        sys.exit(f"error: {failed}")


if __name__ == "__main__":
    sys.exit(main())
