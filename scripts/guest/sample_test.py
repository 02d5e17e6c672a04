#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of samples/rust/rust_page_cache_map.rs and tools/mm/pcmap.c, in KTAP."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import xml.etree.ElementTree

NR_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
BIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/bin")
PCMAP = os.path.join(BIN, "pcmap")
DISK = os.environ.get("DISKS", "/dev/vda").split()[0]
INJECT = "/sys/kernel/debug/collapse_file_inject"
PAGE, HUGE, NR = 4096, 2 << 20, 512
MADV_PAGEOUT, MADV_COLLAPSE = 21, 25

# samples/rust/page_cache_map.h
REQUEST, ENTRY, VMA = struct.Struct("=iIQQQII2Q"), struct.Struct("=QQQHHI"), struct.Struct("=QQQII")
ENTRIES = 3 << 30 | REQUEST.size << 16 | ord("|") << 8 | 0x90
VMAS = ENTRIES + 1
MORE, SHMEM = 1, 2
HOLE, VALUE, FOLIO = 0, 1, 2
LOCKED, UPTODATE, DIRTY, WRITEBACK = 1, 2, 4, 8
MISSING, WP, MINOR = 1, 2, 4
MAX_PAGES, MAX_VMAS, BATCH = 1 << 20, 1024, 128
LARGEST_FILE = ((1 << 63) - 1) // PAGE

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]

tests, device = [], -1


class Skip(Exception):
    """The reason why a test cannot run."""


def test(function):
    """Registers a function as a test, which fails if it raises an exception."""
    tests.append(function)
    return function


def expect(good, *about):
    if not good:
        raise AssertionError(*about)


def same(have, want):
    expect(have == want, f"{have!r} is not {want!r}")


# ---- the device

def ask(number, fd, start=0, end=NR, capacity=4096, flags=0, buffer=None, reserved=0):
    """Calls an ioctl once and returns the answer's flags and start, and the elements."""
    element = ENTRY if number == ENTRIES else VMA
    array = ctypes.create_string_buffer(element.size * capacity)
    request = bytearray(REQUEST.pack(fd, flags, start, end, ctypes.addressof(array) if buffer is None else buffer,
                                     capacity, 77, 0, reserved))
    fcntl.ioctl(device, number, request)
    _, flags, start, _, _, _, count, _, _ = REQUEST.unpack(request)
    return flags, start, [element.unpack_from(array, i * element.size) for i in range(count)]


def entries(fd, start=0, end=NR, capacity=4096):
    """Returns all entries of a range, with as many ioctls as needed, and joins parts of holes."""
    found = []
    while True:
        flags, after, some = ask(ENTRIES, fd, start, end, capacity)
        for entry in some:
            if found and found[-1][3] == HOLE == entry[3] and sum(found[-1][:2]) == entry[0]:
                entry = (found[-1][0], found[-1][1] + entry[1]) + entry[2:]
                found.pop()
            found.append(entry)
        if not flags & MORE:
            same(after, end)
            return found
        expect(start < after < end, "no progress")
        start = after


def fails(error, *args, **options):
    """Checks that both ioctls fail with an error."""
    for number in (ENTRIES, VMAS):
        try:
            ask(number, *args, **options)
        except OSError as failure:
            same(errno.errorcode[failure.errno], errno.errorcode[error])
        else:
            raise AssertionError(f"the ioctl did not fail with {errno.errorcode[error]}")


# ---- files

@contextlib.contextmanager
def memfd(pages, written=()):
    fd = os.memfd_create("sample")
    os.ftruncate(fd, pages * PAGE)
    for page in written:
        os.pwrite(fd, b"x" * PAGE, page * PAGE)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def file_on(directory, content=b""):
    path = os.path.join(directory, "sample")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.pwrite(fd, content, 0)
    try:
        yield fd
    finally:
        os.close(fd)
        os.unlink(path)


@contextlib.contextmanager
def mapped(fd, pages=NR, offset=0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE):
    """Maps a file at an aligned address, which a collapse requires."""
    size = pages * PAGE
    area = libc.mmap(None, size + HUGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    base = (area + HUGE - 1) // HUGE * HUGE
    same(libc.mmap(base, size, prot, flags | 0x10, fd, offset * PAGE), base)
    try:
        yield base
    finally:
        libc.munmap(area, size + HUGE)


def cached(fd, first, pages):
    """Returns the number of pages of a range in the page cache, from cachestat()."""
    found = bytearray(40)
    within = bytearray(struct.pack("=QQ", first * PAGE, pages * PAGE))
    same(libc.syscall(451, fd, (ctypes.c_char * 16).from_buffer(within), (ctypes.c_char * 40).from_buffer(found), 0), 0)
    return struct.unpack_from("=Q", found)[0]


def page_out(fd, base, first, pages):
    """Swaps pages out.

    Only mapped pages on the LRU can be swapped out. A page may still be in the LRU batch of another
    CPU, which a collapse drains, or compaction may have isolated it.
    """
    at = base + first * PAGE
    for _ in range(50):
        ctypes.string_at(at, pages * PAGE)
        same(libc.madvise(at, pages * PAGE, MADV_PAGEOUT), 0)
        if not cached(fd, first, pages):
            return
        with mapped(-1, NR, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as other:
            libc.madvise(other, HUGE, MADV_COLLAPSE)
        time.sleep(0.1)


def collapse(base):
    """Collapses a range, and retries while new folios are still in the LRU batch of another CPU."""
    for _ in range(50):
        if libc.madvise(base, HUGE, MADV_COLLAPSE) == 0:
            return
        same(ctypes.get_errno(), errno.EAGAIN)
        time.sleep(0.1)
    raise AssertionError("each attempt failed with EAGAIN")


@contextlib.contextmanager
def parked(function, run):
    """Runs something in a thread, which waits before it calls a function."""
    if not os.path.exists(INJECT):
        raise Skip("no collapse_file_inject in debugfs")
    # The kernel parks the thread that writes to the file.
    def begin():
        with open(INJECT, "w") as inject:
            inject.write(f"{function} park")
        run()

    thread = threading.Thread(target=begin)
    thread.start()
    try:
        for _ in range(1000):
            with open(INJECT) as inject:
                if re.search(rf"^{function} .*\bparked\b", inject.read(), re.M):
                    break
            time.sleep(0.01)
        else:
            raise AssertionError(f"no thread waits before {function}")
        yield
    finally:
        with open(INJECT, "w") as inject:
            inject.write("off")
        thread.join()


class Userfaultfd:
    """A userfaultfd that is registered for an area."""

    def __init__(self, base, pages, mode):
        features = {WP: 1 << 12, MINOR: 1 << 10}
        self.fd = libc.syscall(NR_USERFAULTFD[os.uname().machine], os.O_CLOEXEC | os.O_NONBLOCK)
        expect(self.fd >= 0, "no userfaultfd")
        api = struct.pack("=QQQ", 0xaa, sum(bit for m, bit in features.items() if mode & m), 0)
        fcntl.ioctl(self.fd, 0xc018aa3f, bytearray(api))
        fcntl.ioctl(self.fd, 0xc020aa00, bytearray(struct.pack("=QQQQ", base, pages * PAGE, mode, 0)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


# ---- the content of the page cache

@test
def small_folios_and_holes():
    with memfd(1024, (0, 7, 511, 512)) as fd:
        flag = UPTODATE | DIRTY
        same(entries(fd, 0, 1024), [
            (0, 1, 0, FOLIO, 0, flag), (1, 6, 0, HOLE, 0, 0), (7, 1, 0, FOLIO, 0, flag), (8, 503, 0, HOLE, 0, 0),
            (511, 1, 0, FOLIO, 0, flag), (512, 1, 0, FOLIO, 0, flag), (513, 511, 0, HOLE, 0, 0)])
        same(entries(fd, 3, 8), [(3, 4, 0, HOLE, 0, 0), (7, 1, 0, FOLIO, 0, flag)])
        same(entries(fd, 7, 7), [])


@test
def it_is_told_what_is_shmem():
    with memfd(1) as shmem, file_on("/run/ext4") as other:
        for number in (ENTRIES, VMAS):
            same(ask(number, shmem)[0] & SHMEM, SHMEM)
            same(ask(number, other)[0] & SHMEM, 0)


@test
def fallocated_folios_are_not_uptodate():
    with memfd(8, (4,)) as fd:
        same(libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(2 * PAGE)), 0)
        same([e[5] & UPTODATE for e in entries(fd, 0, 8) if e[3] == FOLIO], [0, 0, UPTODATE])


@test
def swapped_folios_are_values():
    with memfd(NR, range(16)) as fd, mapped(fd) as base:
        page_out(fd, base, 4, 8)
        found = entries(fd, 0, 16)
        same([e[3] for e in found], [FOLIO] * 4 + [VALUE] * 8 + [FOLIO] * 4)
        same([e[:2] for e in found], [(i, 1) for i in range(16)])
        swapped = [e[2] for e in found if e[3] == VALUE]
        same(len(set(swapped)), 8)
        expect(all(e[2] == 0 for e in found if e[3] == FOLIO), "a folio has a value")


@test
def a_huge_folio_is_one_entry():
    with memfd(2 * NR, (0, 7, 511, 512)) as fd, mapped(fd) as base:
        collapse(base)
        huge = (0, NR, 0, FOLIO, 9, UPTODATE | DIRTY)
        same(entries(fd), [huge])
        # The entry always has the whole folio.
        same(entries(fd, 100, 101), [huge])
        same(entries(fd, 511, 514), [huge, (512, 1, 0, FOLIO, 0, UPTODATE | DIRTY), (513, 1, 0, HOLE, 0, 0)])


@test
def a_locked_folio():
    with memfd(NR, range(NR)) as fd, mapped(fd) as base:
        same([e for e in entries(fd) if e[5] & LOCKED], [])
        # At this point the collapse has locked its first batch of folios.
        with parked("filemap_release_folio", lambda: libc.madvise(base, HUGE, MADV_COLLAPSE)):
            locked = [e[0] for e in entries(fd) if e[5] & LOCKED]
        expect(locked and locked == list(range(len(locked))), locked)
        same([e for e in entries(fd) if e[5] & LOCKED], [])


@test
def a_file_on_disk():
    content = bytes(range(256)) * 16 * 200
    with file_on("/run/ext4", content) as fd:
        found = entries(fd, 0, 201)
        same([e[3] for e in found if e[0] >= 200], [HOLE])
        covered = [page for e in found if e[3] == FOLIO for page in range(e[0], e[0] + e[1])]
        same(covered, list(range(200)))
        expect(all(1 << e[4] == e[1] for e in found if e[3] == FOLIO), "the order is not that of the pages")
        expect(all(e[5] & (UPTODATE | DIRTY) == UPTODATE | DIRTY for e in found if e[3] == FOLIO), "not all dirty")
        os.fsync(fd)
        expect(all(e[5] == UPTODATE for e in entries(fd, 0, 200)), "not clean after fsync()")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        same(entries(fd, 0, 200), [(0, 200, 0, HOLE, 0, 0)])
        os.pread(fd, 1, 0)
        expect(entries(fd, 0, 200)[0][3] == FOLIO, "nothing was read")


@test
def a_folio_under_writeback():
    with file_on("/run/ext4", b"x" * (100 * PAGE)) as fd:
        same([e for e in entries(fd, 0, 100) if e[5] & WRITEBACK], [])
        with parked("submit_bio", lambda: os.fsync(fd)):
            expect([e for e in entries(fd, 0, 100) if e[5] & WRITEBACK], "nothing is under writeback")
        same([e for e in entries(fd, 0, 100) if e[5] & WRITEBACK], [])


@test
def shadows_are_values():
    with file_on("/run/ext4", b"x" * (64 * PAGE)) as fd:
        os.fsync(fd)
        with mapped(fd, 64) as base:
            page_out(fd, base, 0, 64)
            found = entries(fd, 0, 64)
        expect(VALUE in {e[3] for e in found}, found)
        expect(all(e[2] for e in found if e[3] == VALUE), "a shadow is 0")


@test
def in_as_many_parts_as_there_is_room_for():
    pages = sorted(set(range(0, 1500, 3)) | set(range(600, 1100)))
    with memfd(1500, pages) as fd:
        whole = entries(fd, 0, 1500)
        same([e[0] for e in whole if e[3] == FOLIO], pages)
        same([sum(e[:2]) for e in whole[:-1]], [e[0] for e in whole[1:]])
        for capacity in (1, 2, 3, BATCH - 1, BATCH, BATCH + 1, 600):
            same(entries(fd, 0, 1500, capacity), whole)
        flags, after, some = ask(ENTRIES, fd, 0, 1500, 5)
        same((flags & MORE, len(some), after), (MORE, 5, 7))


@test
def no_more_is_written_than_there_is_room_for():
    with memfd(64, range(64)) as fd:
        for number, element in ((ENTRIES, ENTRY), (VMAS, VMA)):
            array = ctypes.create_string_buffer(b"?" * (element.size * 8))
            with contextlib.ExitStack() as stack:
                for _ in range(8):
                    stack.enter_context(mapped(fd, 64))
                ask(number, fd, 0, 64, 4, buffer=ctypes.addressof(array))
            expect(array.raw[element.size * 3:element.size * 4] != b"?" * element.size, "less than there is room for")
            same(array.raw[element.size * 4:element.size * 8], b"?" * (element.size * 4))


@test
def far_away():
    far = (1 << 40) // PAGE
    with memfd(far + 1, (far,)) as fd:
        same(entries(fd, far - 5, far + 5), [(far - 5, 5, 0, HOLE, 0, 0), (far, 1, 0, FOLIO, 0, UPTODATE | DIRTY),
                                            (far + 1, 4, 0, HOLE, 0, 0)])
        same(entries(fd, LARGEST_FILE - 9, LARGEST_FILE), [(LARGEST_FILE - 9, 9, 0, HOLE, 0, 0)])
        same(ask(VMAS, fd, LARGEST_FILE - 9, LARGEST_FILE)[2], [])


# ---- mappings of the file

@test
def vmas_are_those_that_map_the_range():
    with memfd(64) as fd, mapped(fd, 16, 0) as one, mapped(fd, 16, 32, mmap.MAP_PRIVATE) as two:
        first, second = (one, one + 16 * PAGE, 0, 0, 0), (two, two + 16 * PAGE, 32, 0, 0)
        same(sorted(ask(VMAS, fd, 0, 64)[2]), sorted([first, second]))
        same(ask(VMAS, fd, 15, 32)[2], [first])
        same(ask(VMAS, fd, 16, 32)[2], [])
        same(ask(VMAS, fd, 16, 33)[2], [second])
        same(ask(VMAS, fd, 47, 48)[2], [second])
        same(ask(VMAS, fd, 48, 64)[2], [])
        same(ask(VMAS, fd, 32, 32)[2], [])
    with memfd(64) as fd:
        same(ask(VMAS, fd)[2], [])


@test
def vmas_tell_what_a_userfaultfd_waits_for():
    for mode in (MISSING, WP, MINOR, MISSING | WP, MISSING | WP | MINOR):
        with memfd(64) as fd, mapped(fd, 16) as base:
            with Userfaultfd(base, 16, mode):
                same(ask(VMAS, fd)[2], [(base, base + 16 * PAGE, 0, mode, 0)])
            same(ask(VMAS, fd)[2], [(base, base + 16 * PAGE, 0, 0, 0)])


@test
def vmas_that_a_userfaultfd_has_split():
    with memfd(64) as fd, mapped(fd, 16, 8) as base, Userfaultfd(base + 4 * PAGE, 4, MISSING):
        same(sorted(ask(VMAS, fd)[2]), [
            (base, base + 4 * PAGE, 8, 0, 0), (base + 4 * PAGE, base + 8 * PAGE, 12, MISSING, 0),
            (base + 8 * PAGE, base + 16 * PAGE, 16, 0, 0)])


@test
def vmas_of_another_process():
    with memfd(64) as fd, mapped(fd, 16) as base:
        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        found = ask(VMAS, fd)[2]
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for end in ready + done:
            os.close(end)
        same(found, [(base, base + 16 * PAGE, 0, 0, 0)] * 2)


@test
def more_vmas_than_there_is_room_for():
    with memfd(64) as fd, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(mapped(fd, 1))
        for capacity, count, more in ((4, 4, MORE), (5, 5, 0), (6, 5, 0)):
            flags, _, found = ask(VMAS, fd, capacity=capacity)
            same((len(found), flags & MORE), (count, more))
        areas = [libc.mmap(None, PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0) for _ in range(MAX_VMAS)]
        for area in areas[::2]:
            # Adjacent VMAs must not be merged.
            libc.mprotect(ctypes.c_void_p(area), ctypes.c_size_t(PAGE), 0)
        flags, _, found = ask(VMAS, fd, capacity=2 * MAX_VMAS)
        for area in areas:
            libc.munmap(area, PAGE)
        same((len(found), flags & MORE), (MAX_VMAS, MORE))


# ---- errors

@test
def ebadf():
    with file_on("/run/ext4", b"x") as fd:
        path = f"/proc/self/fd/{fd}"
        for flags in (os.O_WRONLY, os.O_PATH, os.O_ACCMODE):
            other = os.open(path, flags)
            fails(errno.EBADF, other)
            os.close(other)
        other = os.open(path, os.O_RDONLY)
        same(len(entries(other, 0, 1)), 1)
        os.close(other)
    for fd in (1000, -1, -100, 1 << 30):
        fails(errno.EBADF, fd)


@test
def einval_for_what_is_no_regular_file():
    for path in ("/run", "/dev/null", DISK, "/dev/rust-page-cache-map"):
        fd = os.open(path, os.O_RDONLY)
        fails(errno.EINVAL, fd)
        os.close(fd)
    pipe, sock = os.pipe(), socket.socket(socket.AF_UNIX)
    fails(errno.EINVAL, pipe[0])
    fails(errno.EINVAL, sock.fileno())
    sock.close()
    for end in pipe:
        os.close(end)


@test
def einval_for_wrong_requests():
    with memfd(1) as fd:
        for options in ({"start": 2, "end": 1}, {"end": LARGEST_FILE + 1, "start": LARGEST_FILE},
                        {"start": (1 << 64) - 2, "end": (1 << 64) - 1}, {"start": 1 << 63, "end": (1 << 63) + 1},
                        {"flags": 1}, {"flags": 1 << 31}, {"reserved": 1}, {"capacity": 0}):
            fails(errno.EINVAL, fd, **options)


@test
def e2big():
    with memfd(1) as fd:
        fails(errno.E2BIG, fd, end=MAX_PAGES + 1)
        fails(errno.E2BIG, fd, start=5, end=LARGEST_FILE)
        same(entries(fd, 0, MAX_PAGES), [(0, MAX_PAGES, 0, HOLE, 0, 0)])
        same(entries(fd, 9, MAX_PAGES + 9), [(9, MAX_PAGES, 0, HOLE, 0, 0)])


@test
def efault():
    with memfd(64, range(64)) as fd, mapped(fd, 64), mapped(fd, 2, prot=0) as hidden:
        for buffer in (0, 8, hidden, (1 << 64) - 64, 1 << 63):
            fails(errno.EFAULT, fd, buffer=buffer)
        for number in (ENTRIES, VMAS):
            for address in (None, 8, hidden, (1 << 64) - 16):
                same(libc.ioctl(device, number, address), -1)
                same(ctypes.get_errno(), errno.EFAULT)
        # The buffer has room for one element, and the following page is not mapped.
        with mapped(-1, 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
            fails(errno.EFAULT, fd, buffer=room + PAGE - ENTRY.size)
            ask(ENTRIES, fd, 0, 1, buffer=room + PAGE - ENTRY.size)
        # The ioctl can read the request, but cannot write the answer.
        request = REQUEST.pack(fd, 0, 0, 1, 0, 1, 0, 0, 0)
        with mapped(-1, 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
            array = ctypes.create_string_buffer(ENTRY.size)
            request = REQUEST.pack(fd, 0, 0, 1, ctypes.addressof(array), 1, 0, 0, 0)
            ctypes.memmove(area, request, len(request))
            libc.mprotect(ctypes.c_void_p(area), ctypes.c_size_t(PAGE), mmap.PROT_READ)
            same(libc.ioctl(device, ENTRIES, area), -1)
            same(ctypes.get_errno(), errno.EFAULT)


@test
def eperm():
    with memfd(1, (0,)) as fd:
        os.seteuid(65534)
        try:
            fails(errno.EPERM, fd)
        finally:
            os.seteuid(0)
        same(len(entries(fd, 0, 1)), 1)


@test
def enotty():
    for number in (ENTRIES + 2, ENTRIES + (8 << 16), ENTRIES & ~(3 << 30), 0):
        same(libc.ioctl(device, number, 0), -1)
        same(ctypes.get_errno(), errno.ENOTTY)


# ---- concurrent changes

@test
def while_the_file_changes():
    stop, turns = threading.Event(), []

    def change(fd, base):
        n = 0
        while not stop.is_set():
            os.ftruncate(fd, 0)
            os.ftruncate(fd, 2 * HUGE)
            for page in range(n % 7, 600, 5):
                os.pwrite(fd, b"x", page * PAGE)
            libc.madvise(base, HUGE, MADV_COLLAPSE)
            n += 1
            turns.append(n)

    with memfd(2 * NR) as fd, mapped(fd) as base:
        thread = threading.Thread(target=change, args=(fd, base))
        thread.start()
        kinds = set()
        begin = time.monotonic()
        # The loop ends after 10 s and four changes, or after 120 s on a slow machine.
        while time.monotonic() - begin < 10 or len(turns) < 4 and time.monotonic() - begin < 120:
            flags, after, found = ask(ENTRIES, fd, 0, 2 * NR, BATCH)
            expect(found[0][0] == 0, "a gap at the begin")
            expect(all(a[0] <= b[0] <= a[0] + a[1] < b[0] + b[1] for a, b in zip(found, found[1:])), "a gap")
            same(sum(found[-1][:2]), after)
            same(after == 2 * NR, not flags & MORE)
            expect(all(e[5] < 16 and e[4] <= 9 for e in found), "there is no such folio")
            kinds |= {(e[3], e[4]) for e in found}
        stop.set()
        thread.join()
        expect(len(turns) > 3 and {(HOLE, 0), (FOLIO, 0)} <= kinds, turns, kinds)


@test
def while_vmas_come_and_go():
    stop = threading.Event()

    def change(fd):
        while not stop.is_set():
            area = libc.mmap(None, 16 * PAGE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 8 * PAGE)
            libc.munmap(area + 4 * PAGE, 4 * PAGE)
            libc.munmap(area, 16 * PAGE)

    with memfd(64) as fd:
        thread = threading.Thread(target=change, args=(fd,))
        thread.start()
        end, seen = time.monotonic() + 5, set()
        while time.monotonic() < end:
            found = ask(VMAS, fd, 0, 64)[2]
            seen |= {(v[2], (v[1] - v[0]) // PAGE) for v in found}
        stop.set()
        thread.join()
        # The last two exist only while munmap() splits the VMA.
        expect(seen <= {(8, 16), (8, 4), (16, 8), (12, 12), (12, 4)}, seen)
        expect(seen, "none was seen")


@test
def many_at_once():
    with memfd(NR, range(0, NR, 2)) as fd:
        whole, good = entries(fd), []

        def look():
            for _ in range(50):
                good.append(entries(fd) == whole)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same(good, [True] * 200)


# ---- pcmap

def pcmap(fd, *options, status=0):
    """Runs pcmap on an open file and returns its stdout, or its stderr if it must fail."""
    done = subprocess.run([PCMAP, *options] + ([f"/proc/self/fd/{fd}"] if fd is not None else []),
                          pass_fds=[fd] if fd is not None else [], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=30)
    same(done.returncode, status)
    return done.stderr if status else done.stdout


@contextlib.contextmanager
def crafted():
    """Makes a file with two rows of small, missing, swapped and allocated pages, by eights."""
    with memfd(NR) as fd, mapped(fd) as base:
        for page in range(128):
            if page // 8 % 4 in (0, 2):
                os.pwrite(fd, b"x", page * PAGE)
        for page in range(0, 128, 32):
            page_out(fd, base, page + 16, 8)
            libc.fallocate(fd, 1, ctypes.c_long((page + 24) * PAGE), ctypes.c_long(8 * PAGE))
        yield fd, base


@test
def pcmap_shows_letters():
    with crafted() as (fd, base):
        row = "44444444........ssssssssffffffff" * 2
        lines = pcmap(fd).splitlines()
        same(lines[:4], [f"       0 {row}", "         *", "     128 " + "." * 64, "         *"])
        same(lines[4], "512 pages, 4 small page 32, s swapped out 32, f never written 32, . hole 416")
        same(lines[5], "dirty 64, under writeback 0, locked 0")
        same(lines[6:], [f"mapped at {base:x}-{base + HUGE:x} from page 0"])
        with Userfaultfd(base, NR, MISSING | WP):
            same(pcmap(fd).splitlines()[6:], [f"mapped at {base:x}-{base + HUGE:x} from page 0, userfaultfd: missing wp"])
        same(pcmap(fd, "--start=6", "--pages=4").splitlines()[0], "       6 44..")
        same(pcmap(fd, "--start=600").splitlines()[0], "0 pages")
        same(pcmap(fd, "--start=510", "--pages=4").splitlines()[0], "     510 ....")
        collapse(base)
        same(pcmap(fd).splitlines()[:3], ["       0 " + "H" * 64, "         *", "512 pages, H huge folio 512"])
    with memfd(0) as fd:
        same(pcmap(fd).splitlines()[0], "0 pages")
    with file_on("/run/ext4", b"x" * (5 * PAGE + 1)) as fd:
        expect(re.fullmatch(r" {7}0 [4L]{6}", pcmap(fd).splitlines()[0]), pcmap(fd))


@test
def pcmap_lists():
    with crafted() as (fd, _):
        lines = pcmap(fd, "--list").splitlines()
        same(lines[1], "       0        1 folio order 0 uptodate dirty")
        same(lines[9], "       8        8 hole")
        expect(re.fullmatch(r" {6}16 {8}1 swapped 0x[0-9a-f]+", lines[10]), lines[10])
        same(lines[18], "      24        1 folio order 0 dirty")
        same(lines[-1], "     128      384 hole")


@test
def pcmap_draws():
    with crafted() as (fd, base), Userfaultfd(base, NR, MISSING):
        picture = xml.etree.ElementTree.fromstring(pcmap(fd, "--svg"))
        space = "{http://www.w3.org/2000/svg}"
        rects = [r.get("class") for r in picture.iter(space + "rect")]
        # The first row has two of each, and the legend one. The other row has the same content.
        same([rects.count(c) for c in "psf"], [3, 3, 3])
        texts = ["".join(t.itertext()) for t in picture.iter(space + "text")]
        expect(f"mapped at {base:x}-{base + HUGE:x} from page 0, userfaultfd: missing" in texts, texts)
        expect("small page: 32" in texts, texts)
    with open("/run/ext4/<&\"\x01>", "w") as odd:
        odd.write("x")
    text = subprocess.run([PCMAP, "--svg", odd.name], stdout=subprocess.PIPE, check=True).stdout
    os.unlink(odd.name)
    titles = [t.text for t in xml.etree.ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    expect("/run/ext4/<&\"?>" in titles, titles)


@test
def pcmap_watches():
    with memfd(4, (0,)) as fd:
        process = subprocess.Popen([PCMAP, "--watch", f"/proc/self/fd/{fd}"], pass_fds=[fd], stdout=subprocess.PIPE,
                                   text=True)
        lines = iter(process.stdout.readline, "")
        same(next(lines), "       0 4...\n")
        os.pwrite(fd, b"x", 2 * PAGE)
        expect(any(line == "       0 4.4.\n" for _, line in zip(range(20), lines)), "no second look")
        process.send_signal(signal.SIGINT)
        same(process.wait(timeout=10), -signal.SIGINT)
        process.stdout.close()


@test
def pcmap_with_wrong_arguments():
    with memfd(1) as fd:
        for options in (("--nothing",), ("--pages=x",), ("--pages=-1",), ("--pages=",), ("--start=1x",), ("file",),
                        ("--start=99999999999999999999999",), ("--svg", "--watch"), ("--list", "--svg")):
            expect("usage: pcmap FILE" in pcmap(fd, *options, status=2), options)
        expect("usage: pcmap FILE" in pcmap(None, status=2), "no usage")
        expect(pcmap(fd, "--help").startswith("usage: "), "no help")
        # The start is past the end of all files.
        same(pcmap(fd, "--start=18446744073709551615", "--pages=5").splitlines()[0], "0 pages")
        pcmap(fd, f"--start={LARGEST_FILE - 3}", "--pages=18446744073709551615")
    same(pcmap(None, "/nowhere", status=1), "error: /nowhere: No such file or directory\n")
    same(pcmap(None, "/dev/null", status=1), "error: /dev/null is not a regular file\n")


@test
def pcmap_of_a_file_whose_pages_are_elsewhere():
    with contextlib.ExitStack() as stack:
        for directory in ("lower", "upper", "work", "merged"):
            os.makedirs(f"/run/xfs/overlay/{directory}")
        stack.callback(shutil.rmtree, "/run/xfs/overlay")
        options = ",".join(f"{d}dir=/run/xfs/overlay/{d}" for d in ("lower", "upper", "work"))
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", "/run/xfs/overlay/merged"], check=True)
        stack.callback(subprocess.run, ["umount", "/run/xfs/overlay/merged"], check=True)
        fd = stack.enter_context(file_on("/run/xfs/overlay/merged", b"x" * PAGE))
        name = f"/proc/self/fd/{fd}"
        same(pcmap(fd, status=1), f"error: {name} is on overlayfs: the page cache is that of the file below it\n")
        below = os.open("/run/xfs/overlay/upper/sample", os.O_RDONLY)
        stack.callback(os.close, below)
        same(pcmap(below).splitlines()[0], "       0 4")
        demo = subprocess.run([os.path.join(BIN, "collapse_file_demo"), "/run/xfs/overlay/merged"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        same((demo.returncode, demo.stdout, demo.stderr.split(": ", 1)[1]),
             (1, "", "/run/xfs/overlay/merged is on overlayfs: the page cache is that of the file below it\n"))


@test
def pcmap_without_the_right():
    with memfd(1) as fd:
        # Root can open the device, which then checks the capability. Other users cannot open it.
        for command, user in (["setpriv", "--bounding-set=-sys_admin"], None), ([], 65534):
            done = subprocess.run(command + [PCMAP, f"/proc/self/fd/{fd}"], pass_fds=[fd], user=user,
                                  stderr=subprocess.PIPE, text=True, check=False)
            same((done.returncode, done.stderr),
                 (1, "error: /dev/rust-page-cache-map needs CAP_SYS_ADMIN: run this as root\n"))


def main():
    global device
    os.environ["LC_ALL"] = "C"
    device = os.open("/dev/rust-page-cache-map", os.O_RDWR)
    print(f"TAP version 13\n1..{len(tests)}", flush=True)
    bad = 0
    for number, function in enumerate(tests, 1):
        name = function.__name__
        try:
            function()
            print(f"ok {number} {name}", flush=True)
        except Skip as why:
            print(f"ok {number} {name} # SKIP {why}", flush=True)
        except Exception as wrong:
            at = [f for f in traceback.extract_tb(wrong.__traceback__) if f.name == name]
            print(f"# line {at[-1].lineno if at else '?'}: {type(wrong).__name__}: {wrong}"[:2000])
            print(f"not ok {number} {name}", flush=True)
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
