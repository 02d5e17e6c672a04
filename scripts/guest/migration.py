# SPDX-License-Identifier: GPL-2.0
"""Migrate virtual machines and take snapshots of them."""

import json
import os
import socket

from disturb import read
from program import Wrong, start, until


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
