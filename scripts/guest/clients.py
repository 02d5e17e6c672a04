#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run Debian's programs while their memory and files are collapsed.

Each program checks its data, or this script does. Concurrently khugepaged scans without a pause.
This script calls MADV_COLLAPSE for the files of the program and, through process_madvise(), for
its memory. A line "#client {...}" has the outcome of each run.
"""

import argparse
import contextlib
import ctypes
import glob
import hashlib
import json
import mmap
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

THP = "/sys/kernel/mm/transparent_hugepage/"
IMPL = THP + "khugepaged/collapse_file"
TRACING = "/sys/kernel/tracing/"
EVENT = TRACING + "events/huge_memory/mm_khugepaged_collapse_file/enable"
CGROUP = "/sys/fs/cgroup/client"
HUGE = 2 << 20
PAGE = 4096
MADV_COLLAPSE = 25
PROCESS_MADVISE = 440
NOBODY = 65534
SECONDS = 10
TIMEOUT = 240
EAGER = {"enabled": "always", "shmem_enabled": "advise", "khugepaged/scan_sleep_millisecs": 1,
         "khugepaged/alloc_sleep_millisecs": 1, "khugepaged/pages_to_scan": 8192, "khugepaged/max_ptes_none": 511,
         "khugepaged/max_ptes_swap": 511, "khugepaged/max_ptes_shared": 511}

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Wrong(Exception):
    """A program failed, or its data is wrong."""


def write(path, text):
    """Writes to a kernel file."""
    with open(path, "w") as file:
        file.write(str(text))


def read(path):
    """Returns the content of a file."""
    with open(path) as file:
        return file.read()


# Disturbances


class Vector(ctypes.Structure):
    """struct iovec"""
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def collapse_memory(pid):
    """Collapses the file mappings of a process."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            for line in read(f"/proc/{pid}/maps").splitlines():
                place, mode, _, _, inode, *_ = line.split()
                start, end = (int(number, 16) for number in place.split("-"))
                start, end = -(-start // HUGE) * HUGE, end // HUGE * HUGE
                if start < end and inode != "0" and mode[0] == "r":
                    vector = Vector(start, end - start)
                    libc.syscall(PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, MADV_COLLAPSE, 0)
        finally:
            os.close(pidfd)


def collapse_path(path):
    """Collapses a file through a mapping in this process."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY)
        length = os.fstat(file).st_size // HUGE * HUGE
        if length:
            area = libc.mmap(None, length + HUGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
            start = -(-area // HUGE) * HUGE
            if libc.mmap(start, length, mmap.PROT_READ, mmap.MAP_SHARED | 0x10, file, 0) == start:
                for at in range(start, start + length, HUGE):
                    libc.madvise(at, HUGE, MADV_COLLAPSE)
            libc.munmap(area, length + HUGE)
        os.close(file)


def collapse_memfds(pid):
    """Collapse the memfds of a process, by mappings of our own."""
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith("/memfd:"):
                collapse_path(path)


def collapse_all(directory):
    """Collapses all memory and files of the program in a loop."""
    while True:
        for pid in read(CGROUP + "/cgroup.procs").split():
            collapse_memory(int(pid))
            collapse_memfds(pid)
        for path in glob.glob(directory + "/**", recursive=True):
            if os.path.isfile(path):
                collapse_path(path)
        time.sleep(0.01)


def switch_all():
    """Switches the implementation in a loop."""
    while True:
        for impl in ("c", "rust"):
            write(IMPL, impl)
            time.sleep(0.05)


class Counter(threading.Thread):
    """A thread that counts successful collapses in the trace."""

    def __init__(self):
        super().__init__(daemon=True)
        self.count, self.stop = 0, False
        self.pipe = os.open(TRACING + "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        write(EVENT, 1)

    def run(self):
        text = b""
        while not self.stop:
            try:
                text += os.read(self.pipe, 1 << 16)
            except BlockingIOError:
                time.sleep(0.05)
            self.count += len(re.findall(rb"result=(?:succeeded|pte_mapped_hugepage)\n", text))
            text = text[text.rfind(b"\n") + 1:]
        write(EVENT, 0)
        os.close(self.pipe)


@contextlib.contextmanager
def disturbed(impl, directory):
    """Collapses in a loop and counts successful collapses while the program runs."""
    write(IMPL, "rust" if impl == "switched" else impl)
    counter = Counter()
    counter.start()
    processes = [multiprocessing.Process(target=collapse_all, args=(directory,), daemon=True)]
    if impl == "switched":
        processes.append(multiprocessing.Process(target=switch_all, daemon=True))
    for process in processes:
        process.start()
    try:
        yield counter
    finally:
        for process in processes:
            process.kill()
            process.join()
        counter.stop = True
        counter.join()


# Programs


def start(command, directory, user=None, **options):
    """Starts a program in the cgroup whose memory is collapsed."""
    def enter():
        write(CGROUP + "/cgroup.procs", os.getpid())
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
    with open(directory + "/output", "ab") as output:
        # pylint: disable-next=consider-using-with,subprocess-popen-preexec-fn
        return subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=options.pop("stdout", output),
                                stderr=output, preexec_fn=enter, start_new_session=True, **options)


def finish(process, directory, what=""):
    """Waits for a program, which must succeed, and returns its stdout if that is a pipe."""
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as timeout:
        os.killpg(process.pid, signal.SIGKILL)
        raise Wrong(f"{what or process.args[0]} did not end in {TIMEOUT} s") from timeout
    if process.returncode:
        raise Wrong(f"{what or process.args[0]} ended with status {process.returncode}: " +
                    " / ".join(open(directory + "/output", errors="replace").read().strip().splitlines()[-4:]))
    return output


def call(command, directory, **options):
    """Runs a program to its end and returns its stdout if that is a pipe."""
    return finish(start(command, directory, **options), directory)


def until(condition, what, seconds=TIMEOUT):
    """Waits until a condition is true, and raises Wrong at the timeout."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Wrong(f"{what}: not in {seconds} s")
        time.sleep(0.05)


class Qemu:
    """A virtual machine that counts in all its memory and detects a page with wrong content.

    A file on tmpfs can be mapped where huge pages fit, but QEMU maps a memfd elsewhere.
    """

    def __init__(self, directory, name, kernel, *options):
        self.directory, self.name = directory, name
        memory = ("memory-backend-memfd" if directory.startswith("/run/work/") else
                  f"memory-backend-file,mem-path={directory}/{name}.memory,align=2M")
        self.serial = f"{directory}/{name}.serial"
        address = f"{directory}/{name}.qmp"
        self.process = start(
            ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "64",
             "-machine", "pc,memory-backend=memory", "-object", memory + ",id=memory,size=64M,share=on",
             "-kernel", kernel, "-serial", "file:" + self.serial, "-qmp", f"unix:{address},server=on,wait=off",
             *options], directory)
        until(lambda: os.path.exists(address) or self.process.poll() is not None, "QEMU did not start")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        """Runs a QMP command and returns its result."""
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise Wrong(f"QEMU ({self.name}) ended: " + " / ".join(
                    read(self.directory + "/output").strip().splitlines()[-3:]))
            answer = json.loads(line)
            if "error" in answer:
                raise Wrong(f"QEMU ({self.name}): {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def enable(self, *capabilities):
        """Enables migration capabilities."""
        self.command("migrate-set-capabilities",
                     capabilities=[{"capability": name, "state": True} for name in capabilities])

    def passes(self):
        """Returns the number of passes of the guest over its memory."""
        text = read(self.serial)
        if "X" in text:
            raise Wrong(f"the guest of QEMU ({self.name}) lost a count in pass {len(text)}")
        return len(text)

    def goes_on(self, passes=5):
        """Waits until the guest has made some more passes."""
        before = self.passes()
        until(lambda: self.passes() >= before + passes, f"the guest of QEMU ({self.name}) stands still")

    def migrated(self):
        """Returns whether the migration has completed, and raises Wrong if it failed."""
        info = self.command("query-migrate")
        if info.get("status") in ("failed", "cancelled", "postcopy-paused"):
            raise Wrong(f"migration {info['status']}: " + info.get("error-desc", "") + " " + " / ".join(
                read(self.directory + "/output").strip().splitlines()[-3:]))
        return info.get("status") == "completed"

    def end(self):
        """Kills QEMU."""
        self.process.kill()
        self.process.wait()


def qemu_postcopy(directory, args, *capabilities):
    """Migrates a virtual machine by post-copy: the target runs before it has all memory."""
    source = Qemu(directory, "source", args.counters)
    target = Qemu(directory, "target", args.counters, "-incoming", "defer")
    try:
        for side in (source, target):
            side.enable("postcopy-ram", *capabilities)
        target.command("migrate-incoming", uri=f"unix:{directory}/migration")
        source.goes_on()
        # The migration is slow enough for collapses while pages are missing.
        source.command("migrate-set-parameters", **{"max-bandwidth": 64 << 20, "max-postcopy-bandwidth": 12 << 20})
        source.command("migrate", uri=f"unix:{directory}/migration")
        until(lambda: source.command("query-migrate").get("ram", {}).get("transferred", 0) > 1 << 20, "no migration")
        source.command("migrate-start-postcopy")
        until(source.migrated, "the migration")
        target.goes_on()
    finally:
        source.end()
        target.end()


def qemu_preempt(directory, args):
    """Migrates by post-copy with a separate channel for pages that the target waits for."""
    qemu_postcopy(directory, args, "postcopy-preempt")


def qemu_snapshot(directory, args):
    """Saves a running virtual machine, with write protection, and loads the snapshot."""
    source = Qemu(directory, "source", args.counters)
    try:
        source.goes_on()
        source.enable("background-snapshot")
        source.command("migrate", uri=f"exec:cat > {directory}/snapshot")
        until(source.migrated, "the snapshot")
        source.goes_on()
    finally:
        source.end()
    target = Qemu(directory, "target", args.counters, "-incoming", f"exec:cat {directory}/snapshot")
    try:
        target.goes_on()
    finally:
        target.end()


FIO = ["fio", "--name=job", "--filename=data", "--size=16M", "--bs=4k", "--verify=crc32c", "--verify_fatal=1",
       "--do_verify=1", "--verify_backlog=512", "--randseed=1", "--thread"]


def fio_mmap(directory, _args):
    """Writes a file through mmap() and verifies it."""
    call(FIO + ["--ioengine=mmap", "--rw=randwrite", "--loops=8"], directory)


def read_mapped(path):
    """Reads a file through mmap() in a loop."""
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        while True:
            for at in range(0, len(view), PAGE):
                _ = view[at]


def fio_direct(directory, _args):
    """Writes a file with O_DIRECT while another process maps it. Both must see the same data."""
    path = directory + "/data"
    with open(path, "wb") as file:
        file.write(bytes(16 << 20))
    reader = multiprocessing.Process(target=read_mapped, args=(path,), daemon=True)
    reader.start()
    try:
        call(FIO + ["--ioengine=psync", "--direct=1", "--rw=randwrite"], directory)
        direct = call(["dd", "if=data", "iflag=direct", "bs=1M"], directory, stdout=subprocess.PIPE)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            for at in range(0, len(view), PAGE):
                if view[at:at + PAGE] != direct[at:at + PAGE]:
                    raise Wrong(f"page {at // PAGE} of the mapping is not what is on the disk")
    finally:
        reader.kill()
        reader.join()


def sqlite_work(directory, seconds):
    """Moves amounts between rows of a database of some megabytes. Their sum must not change."""
    base = sqlite3.connect(directory + "/base", timeout=60)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA mmap_size=67108864")
    base.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, filling BLOB)")
    amounts = dict.fromkeys(range(2000), 100)
    fillings = {key: os.urandom(3000) for key in amounts}
    base.executemany("INSERT INTO account VALUES (?, ?, ?)", [(key, amounts[key], fillings[key]) for key in amounts])
    base.commit()
    random.seed(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            giver, taker = random.sample(list(amounts), 2)
            amounts[giver] -= 1
            amounts[taker] += 1
            fillings[giver] = os.urandom(3000)
            base.execute("UPDATE account SET amount = amount - 1, filling = ? WHERE id = ?", (fillings[giver], giver))
            base.execute("UPDATE account SET amount = amount + 1 WHERE id = ?", (taker,))
        base.commit()
        if base.execute("SELECT SUM(amount) FROM account").fetchone()[0] != 200000:
            sys.exit("the sum of the amounts has changed")
    for key, amount, filling in base.execute("SELECT * FROM account"):
        if amounts[key] != amount or fillings[key] != filling:
            sys.exit(f"row {key} is not what was written")
    said = base.execute("PRAGMA integrity_check").fetchall()
    if said != [("ok",)]:
        sys.exit(f"integrity_check: {said}")


def sqlite(directory, args):
    """Runs SQLite with a write-ahead log. It reads the database through mmap()."""
    call([sys.executable, os.path.abspath(__file__), "--work", "sqlite_work", directory, str(args.seconds)], directory)


def lmdb_work(directory, seconds):
    """Writes a memory-mapped database and compares its content with a copy."""
    import lmdb  # pylint: disable=import-outside-toplevel
    base = lmdb.open(directory + "/base", map_size=32 << 20, writemap=True, sync=False)
    model = {}
    random.seed(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with base.begin(write=True) as transaction:
            for _ in range(100):
                key = str(random.randrange(2000)).encode()
                if random.random() < 0.2:
                    transaction.delete(key)
                    model.pop(key, None)
                else:
                    model[key] = os.urandom(random.randrange(4000))
                    transaction.put(key, model[key])
        with base.begin() as transaction:
            if dict(transaction.cursor()) != model:
                sys.exit("the database is not what was written")


def lmdb_client(directory, args):
    """Runs LMDB, which writes its database through mmap()."""
    call([sys.executable, os.path.abspath(__file__), "--work", "lmdb_work", directory, str(args.seconds)], directory)


def postgres_template(args):
    """Returns the paths of PostgreSQL's programs and of a template cluster, which it makes once.

    The copy of the programs is readable for the server's user.
    """
    programs, template = "/run/work/postgresql", "/run/work/template"
    if not os.path.exists(template):
        shutil.copytree(args.postgresql, programs, symlinks=True)
        os.mkdir(template, 0o700)
        os.chown(template, NOBODY, NOBODY)
        call([glob.glob(programs + "/usr/lib/postgresql/*/bin/initdb")[0], "-k", "-N", "-A", "trust", "-U", "postgres",
              template + "/data"], template, user=NOBODY)
    return glob.glob(programs + "/usr/lib/postgresql/*/bin/")[0], template + "/data"


def postgresql(directory, args):
    """Runs PostgreSQL, whose buffers are in shared memory."""
    bin_, template = postgres_template(args)
    shutil.copytree(template, directory + "/data")
    for root, _, files in os.walk(directory):
        for path in [root] + [os.path.join(root, name) for name in files]:
            os.chown(path, NOBODY, NOBODY)
    os.chmod(directory + "/data", 0o700)
    server = start([bin_ + "postgres", "-D", "data", "-k", directory, "-c", "listen_addresses=", "-c", "shared_buffers=32MB",
                    "-c", "huge_pages=off", "-c", "dynamic_shared_memory_type=mmap", "-c", "jit=off", "-c", "autovacuum=off"],
                   directory, user=NOBODY)
    try:
        at = ["-h", directory, "-U", "postgres"]
        psql = [bin_ + "psql", *at, "-qAt", "-v", "ON_ERROR_STOP=1", "postgres", "-c"]
        until(lambda: server.poll() is not None or
              not subprocess.call([bin_ + "pg_isready", "-q", *at]), "PostgreSQL did not start")
        call([bin_ + "pgbench", *at, "-i", "-q", "-s", "1", "postgres"], directory)
        call([bin_ + "pgbench", *at, "-n", "-c", "2", "-T", str(args.seconds), "postgres"], directory)
        sums = call(psql + ["SELECT (SELECT SUM(abalance) FROM pgbench_accounts), (SELECT SUM(bbalance) FROM "
                            "pgbench_branches), (SELECT SUM(tbalance) FROM pgbench_tellers), (SELECT SUM(delta) FROM "
                            "pgbench_history), (SELECT COUNT(*) FROM pgbench_accounts)"], directory,
                    stdout=subprocess.PIPE).decode().strip().split("|")
        if len(set(sums[:4])) != 1 or sums[4] != "100000":
            raise Wrong(f"the sums of pgbench differ: {sums}")
        call(psql + ["CREATE EXTENSION amcheck"], directory)
        call(psql + ["SELECT bt_index_check(indexrelid, true) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
                     "WHERE relam = 403 AND relpersistence = 'p'"], directory, stdout=subprocess.DEVNULL)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    call([bin_ + "pg_checksums", "-c", "-D", "data"], directory, user=NOBODY)


def stress_ng(directory, args):
    """Runs stress-ng's memory tests, which verify their data."""
    call(["stress-ng", "--userfaultfd", "1", "--memfd", "1", "--memfd-bytes", "16M", "--shm", "1", "--shm-bytes", "8M",
          "--mremap", "1", "--mremap-bytes", "8M", "--vm-splice", "1", "--mmap", "1", "--mmap-file", "--mmap-bytes", "16M",
          "--verify", "--temp-path", directory, "--timeout", str(args.seconds)], directory)


HASH = "import hashlib\nd = b''\nfor i in range(%d): d = hashlib.sha256(d + repr({i: str(i)}).encode()).digest()\nprint(d.hex())"


def python_text(directory, args):
    """Runs a copy of Python while its text is collapsed."""
    shutil.copy(os.path.realpath(sys.executable), directory + "/python")
    digest = b""
    for i in range(2000):
        digest = hashlib.sha256(digest + repr({i: str(i)}).encode()).digest()
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        said = call([directory + "/python", "-S", "-c", HASH % 2000], directory, stdout=subprocess.PIPE).decode().strip()
        if said != digest.hex():
            raise Wrong(f"python printed {said} instead of {digest.hex()}")


def compiler_text(directory, args):
    """Runs a copy of a compiler while its text is collapsed."""
    shutil.copy(args.cc1, directory + "/cc1")
    with open(directory + "/source.c", "w") as file:
        for i in range(60):
            file.write(f"int f{i}(int *a, int n) {{ int s = {i}; for (int i = 0; i < n; i++) s += a[i] * s; return s; }}\n")
    command = ["./cc1", "-quiet", "-O2", "source.c", "-o"]
    call([args.cc1] + command[1:] + ["expected.s"], directory)
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        call(command + ["source.s"], directory)
        if read(directory + "/source.s") != read(directory + "/expected.s"):
            raise Wrong("the compiler's output has changed")


# For each client: its function, and the file systems that it runs on.
CLIENTS = {
    "qemu-postcopy": (qemu_postcopy, ["memfd", "tmpfs"]),
    "qemu-preempt": (qemu_preempt, ["memfd", "tmpfs"]),
    "qemu-snapshot": (qemu_snapshot, ["memfd", "tmpfs"]),
    "fio-mmap": (fio_mmap, ["tmpfs", "ext4", "xfs"]),
    "fio-direct": (fio_direct, ["ext4", "xfs"]),
    "sqlite": (sqlite, ["tmpfs", "ext4", "xfs"]),
    "lmdb": (lmdb_client, ["tmpfs", "ext4", "xfs"]),
    "postgresql": (postgresql, ["ext4", "xfs"]),
    "stress-ng": (stress_ng, ["tmpfs", "ext4", "xfs"]),
    "python-text": (python_text, ["tmpfs", "ext4", "xfs"]),
    "compiler-text": (compiler_text, ["ext4", "xfs"]),
}


def run(name, impl, where, args):
    """Runs a program once and returns the outcome."""
    directory = f"/run/{'work' if where == 'memfd' else where}/client"
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    begun = time.monotonic()
    verdict = "ok"
    with disturbed(impl, directory) as counter:
        try:
            CLIENTS[name][0](directory, args)
        except Wrong as wrong:
            verdict = str(wrong)
        finally:
            for pid in read(CGROUP + "/cgroup.procs").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    until(lambda: not read(CGROUP + "/cgroup.procs"), "the program is still there")
    if verdict == "ok" and not counter.count:
        verdict = "no collapse"
    shutil.rmtree(directory, ignore_errors=True)
    return {"client": name, "impl": impl, "fs": where, "verdict": verdict, "collapses": counter.count,
            "seconds": round(time.monotonic() - begun)}


def main():
    """Runs all programs that the arguments name."""
    if sys.argv[1:2] == ["--work"]:
        globals()[sys.argv[2]](sys.argv[3], float(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--counters", help="kernel of the virtual machines")
    parser.add_argument("--cc1", help="the compiler")
    parser.add_argument("--postgresql", help="PostgreSQL's directory")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="running time of a program in seconds")
    parser.add_argument("--impl", action="append", choices=["c", "rust", "switched"])
    parser.add_argument("names", nargs="*", metavar="CLIENT", choices=[[], *CLIENTS])
    parser.add_argument("--list", action="store_true", help="print the names of the programs and do nothing")
    args = parser.parse_args()
    if args.list:
        print("\n".join(CLIENTS))
        return 0
    os.makedirs(CGROUP, exist_ok=True)
    for name, value in EAGER.items():
        write(THP + name, value)
    for name in args.names or CLIENTS:
        for where in CLIENTS[name][1]:
            for impl in args.impl or ["c", "rust", "switched"]:
                print("#client " + json.dumps(run(name, impl, where, args)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
