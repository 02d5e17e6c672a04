# SPDX-License-Identifier: GPL-2.0
"""Start programs in the cgroup whose memory is collapsed, and wait for them."""

import os
import signal
import subprocess
import time

from disturb import CGROUP, write

TIMEOUT = 240


class Wrong(Exception):
    """A program failed, or its data is wrong."""


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


def finish(process, directory):
    """Waits for a program, which must succeed, and returns its stdout if that is a pipe."""
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as timeout:
        os.killpg(process.pid, signal.SIGKILL)
        raise Wrong(f"{process.args[0]} did not end in {TIMEOUT} s") from timeout
    if process.returncode:
        raise Wrong(f"{process.args[0]} ended with status {process.returncode}: " +
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
