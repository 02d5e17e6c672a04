#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Write the files that a test lab needs to run the suites on its machines, into build/job:

collapse_file-tests.tar.xz  the tests, to be unpacked over a root file system
tests.yaml                  a test definition: one step for each suite
job.yaml                    a LAVA job that boots QEMU with both

The script also prints the tuxrun command for the same suites. The root file system needs bash,
python3, util-linux, e2fsprogs and xfsprogs. The suites are those of scripts/guest/tests.sh.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import vm  # noqa: E402

JOB = os.path.join(vm.BUILD, "job")
TESTS = "collapse_file-tests.tar.xz"
WHERE = "/opt/collapse_file"
# The files that the archive of the tests contains.
PARTS = ["scripts/lib/ktap.py", "scripts/lib/vm.py", "scripts/guest", "build/bin"]
COMPRESSION = {".xz": "xz", ".gz": "gz", ".zst": "zstd", ".bz2": "bz2"}


def suites(wanted):
    """Returns the names of the wanted suites and their time limits in seconds."""
    listed = subprocess.run([os.path.join(vm.TOP, "scripts/guest/tests.sh"), "-l"], check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    limits = {name: int(limit) for name, limit in (line.split() for line in listed.splitlines())}
    for name in wanted:
        if name not in limits:
            sys.exit(f"error: unknown suite ({name}); choose from {', '.join(limits)}")
    return {name: limits[name] for name in wanted or limits}


def pack(path):
    """Packs the tests into a tar archive of files that belong to root.

    The same files give the same archive.
    """
    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = "root"
        return None if "__pycache__" in info.name else info
    with tarfile.open(path, "w:xz") as archive:
        for part in PARTS:
            archive.add(os.path.join(vm.TOP, part), f"{WHERE.lstrip('/')}/{part}", filter=plain)


def definition(limits, indent=""):
    """Returns the test definition, indented for use inside a job."""
    steps = "".join(f"\n    - {WHERE}/scripts/guest/lava.py {name}" for name in limits)
    text = f"""metadata:
  format: Lava-Test Test Definition 1.0
  name: collapse_file
  description: collapse_file() in Rust and in C, and the kernel's own tests of it
run:
  steps:{steps}
"""
    return "".join(indent + line for line in text.splitlines(keepends=True))


def compression(url):
    """Returns the job's line for the compression of a file, by the end of its name."""
    kind = COMPRESSION.get(os.path.splitext(url)[1])
    return f"\n        compression: {kind}" if kind else ""


def job(limits, url, rootfs):
    """Returns the LAVA job."""
    # Each suite runs with both implementations. 30 minutes are for the boot.
    minutes = 2 * sum(limits.values()) // 60 + 30
    boot = " ".join(["console=ttyS0,115200", "root=/dev/sda", "rw", "rootwait"] + vm.TEST_BOOT)
    return f"""# {' '.join(limits)}
device_type: qemu
job_name: collapse_file() in Rust and in C
priority: medium
visibility: public
context:
  arch: x86_64
  machine: q35
  cpu: max
  memory: 2G
  extra_options: ["-no-reboot", "-smp 2,sockets=2,cores=1,threads=1"]
timeouts:
  job:
    minutes: {minutes + 30}
  action:
    minutes: {minutes}
actions:
- deploy:
    to: tmpfs
    os: oe
    timeout:
      minutes: 15
    images:
      kernel:
        image_arg: '-kernel {{kernel}} -append "{boot}"'
        url: {url}/bzImage
      rootfs:
        image_arg: '-drive file={{rootfs}},if=ide,format=raw'
        url: {rootfs}{compression(rootfs)}
        format: ext4
        overlays:
          lava: true
          tests:
            url: {url}/{TESTS}
            format: tar
            compression: xz
            path: /
- boot:
    method: qemu
    timeout:
      minutes: 15
    auto_login:
      login_prompt: 'login:'
      username: root
    prompts:
    - 'root@(.*):[/~]#'
- test:
    timeout:
      minutes: {minutes}
    definitions:
    - from: inline
      name: collapse_file
      path: inline/collapse_file.yaml
      repository:
{definition(limits, ' ' * 8)}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":\n", maxsplit=1)[0])
    parser.add_argument("--kernel", required=True, help="bzImage to boot")
    parser.add_argument("--rootfs", required=True, metavar="URL", help="ext4 image of a root file system")
    parser.add_argument("--url", default=f"file://{JOB}", help="URL under which the machines find build/job (%(default)s)")
    parser.add_argument("suites", nargs="*", help="run only these suites")
    args = parser.parse_args()
    limits = suites(args.suites)
    for path, target in ((args.kernel, "job"), (os.path.join(vm.BUILD, "bin/collapse_file"), "job")):
        if not os.path.exists(path):
            sys.exit(f"error: a file is missing ({path}); run 'make {target}'")

    os.makedirs(JOB, exist_ok=True)
    image = os.path.join(JOB, "bzImage")
    shutil.copyfile(args.kernel, image)
    pack(os.path.join(JOB, TESTS))
    for name, text in (("tests.yaml", definition(limits)), ("job.yaml", job(limits, args.url.rstrip("/"), args.rootfs))):
        with open(os.path.join(JOB, name), "w") as file:
            file.write("# SPDX-License-Identifier: GPL-2.0\n" + text)
    print(f"==> {len(limits)} suites as a job: build/job/job.yaml for LAVA; to run them in containers on this machine:\n"
          f"tuxrun --device qemu-x86_64 --kernel {image} --rootfs {args.rootfs} --overlay {os.path.join(JOB, TESTS)} "
          f"--boot-args '{' '.join(vm.TEST_BOOT)}' --timeouts commands={2 * sum(limits.values()) // 60 + 30} "
          f"-- {WHERE}/scripts/guest/lava.py {' '.join(args.suites)}".rstrip())


if __name__ == "__main__":
    main()
