# SPDX-License-Identifier: GPL-2.0
"""Disturb a program: collapse its memory and files, reclaim its memory, switch the implementation."""

import contextlib
import ctypes
import glob
import itertools
import mmap
import multiprocessing
import os
import re
import threading
import time

THP = "/sys/kernel/mm/transparent_hugepage/"
IMPL = THP + "khugepaged/collapse_file"
TRACING = "/sys/kernel/tracing/"
EVENT = TRACING + "events/huge_memory/mm_khugepaged_collapse_file/enable"
CGROUP = "/sys/fs/cgroup/client"
HUGE = 2 << 20
MADV_PAGEOUT = 21
MADV_COLLAPSE = 25
PROCESS_MADVISE = 440
EAGER = {"enabled": "always", "shmem_enabled": "advise", "khugepaged/scan_sleep_millisecs": 1,
         "khugepaged/alloc_sleep_millisecs": 1, "khugepaged/pages_to_scan": 8192, "khugepaged/max_ptes_none": 511,
         "khugepaged/max_ptes_swap": 511, "khugepaged/max_ptes_shared": 511}

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def write(path, text):
    """Writes to a kernel file."""
    with open(path, "w") as file:
        file.write(str(text))


def read(path):
    """Returns the content of a file."""
    with open(path) as file:
        return file.read()


class Vector(ctypes.Structure):
    """struct iovec"""
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def advise_memory(pid, advice):
    """Calls process_madvise() for the file mappings of a process."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            for line in read(f"/proc/{pid}/maps").splitlines():
                place, mode, _, _, inode, *_ = line.split()
                start, end = (int(number, 16) for number in place.split("-"))
                start, end = -(-start // HUGE) * HUGE, end // HUGE * HUGE
                if start < end and inode != "0" and mode[0] == "r":
                    vector = Vector(start, end - start)
                    libc.syscall(PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, advice, 0)
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
    """Collapses the memfds of a process through mappings in this process."""
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith("/memfd:"):
                collapse_path(path)


def collapse_all(directory):
    """Collapses all memory and files of the program in a loop.

    A huge folio stays huge until it is reclaimed, so each fifth round reclaims the memory. The program
    then reads small folios.
    """
    for turn in itertools.count():
        for pid in read(CGROUP + "/cgroup.procs").split():
            advise_memory(int(pid), MADV_COLLAPSE if turn % 5 else MADV_PAGEOUT)
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
