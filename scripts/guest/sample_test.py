#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Test of samples/rust/rust_page_cache.rs, in KTAP."""

import array
import ctypes
import errno
import fcntl
import mmap
import os
import sys

COUNT = 3 << 30 | 96 << 16 | ord("|") << 8 | 0x90
PAGE, HUGE = 4096, 2 << 20
MADV_COLLAPSE = 25

results = []


def tap(good, what):
    results.append(good)
    print(f"{'ok' if good else 'not ok'} {len(results)} {what}", flush=True)


def count(device, fd):
    numbers = array.array("Q", [fd] + [0] * 11)
    fcntl.ioctl(device, COUNT, numbers)
    return {"holes": numbers[0], "values": numbers[1],
            "orders": {order: n for order, n in enumerate(numbers[2:]) if n}}


def fails_with(error, function, *args):
    try:
        function(*args)
    except OSError as failure:
        return failure.errno == error
    return False


def main():
    print("TAP version 13\n1..5")
    device = os.open("/dev/rust-page-cache", os.O_RDWR)
    fd = os.memfd_create("sample")
    os.ftruncate(fd, 2 * HUGE)
    for page in (0, 7, 511):
        os.pwrite(fd, b"x", page * PAGE)
    tap(count(device, fd) == {"holes": 509, "values": 0, "orders": {0: 3}}, "small folios and holes")

    # Aligned, as a mapping of the file has to be for a collapse.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    area = libc.mmap(None, 2 * HUGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    base = (area + HUGE - 1) // HUGE * HUGE
    libc.mmap(base, HUGE, mmap.PROT_READ, mmap.MAP_SHARED | 0x10, fd, 0)
    collapsed = libc.madvise(ctypes.c_void_p(base), ctypes.c_size_t(HUGE), MADV_COLLAPSE) == 0
    tap(collapsed, "the range collapses")
    tap(count(device, fd) == {"holes": 0, "values": 0, "orders": {9: 1}}, "one huge folio")

    tap(fails_with(errno.EBADF, count, device, 1000), "EBADF for what is not open")
    tap(fails_with(errno.ENOTTY, fcntl.ioctl, device, COUNT + 1, array.array("Q", [0] * 12)),
        "ENOTTY for another ioctl")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
