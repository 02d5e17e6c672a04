#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run Debian's programs while their memory and files are collapsed.

Each program checks its data, or this script does. Concurrently khugepaged scans without a pause.
This script calls MADV_COLLAPSE for the files of the program and, through process_madvise(), for
its memory. A line "#client {...}" has the outcome of each run.
"""

import argparse
import contextlib
import glob
import hashlib
import json
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

from disturb import CGROUP, EAGER, THP, disturbed, read, write
from migration import qemu_postcopy, qemu_preempt, qemu_snapshot
from program import Wrong, call, start, until

PAGE = 4096
NOBODY = 65534
SECONDS = 10

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


def prepare():
    """Creates the cgroup of the programs and makes khugepaged eager."""
    os.makedirs(CGROUP, exist_ok=True)
    for name, value in EAGER.items():
        write(THP + name, value)


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
    prepare()
    for name in args.names or CLIENTS:
        for where in CLIENTS[name][1]:
            for impl in args.impl or ["c", "rust", "switched"]:
                print("#client " + json.dumps(run(name, impl, where, args)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
