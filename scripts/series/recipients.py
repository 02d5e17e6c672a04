#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Add the recipients to the mails in a directory: To for maintainers, Cc for reviewers and lists.

    recipients.py DIR KERNEL-TREE MAINTAINERS [SECURITY-PATCH...]

They are from the kernel's get_maintainer.pl and the file MAINTAINERS. The cover letter goes to the lists of all
patches. A patch whose file name is named on the command line goes to security@kernel.org and to no list.
"""

import concurrent.futures
import os
import re
import subprocess
import sys

SECURITY = "security@kernel.org"
# An address and its role, as get_maintainer.pl prints them.
ROLE = re.compile(r"(.*) \(([^()]*(?:\([^()]*\)[^()]*)*)\)")


def ask(tree, maintainers, patch):
    """Returns the maintainers, the reviewers and the lists for a patch, or ends the program."""
    done = subprocess.run([os.path.join(tree, "scripts", "get_maintainer.pl"), f"--mpath={maintainers}", "--no-git",
                           "--no-git-fallback", "--no-fixes", "--roles", patch],
                          cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: get_maintainer.pl failed ({os.path.basename(patch)}): {done.stderr.strip()}; "
                 "check the kernel tree")
    people = [ROLE.fullmatch(line).groups() for line in done.stdout.splitlines() if ROLE.fullmatch(line)]
    lists = [address for address, role in people if " list" in role]
    reviewers = [address for address, role in people if role.startswith("reviewer")]
    return [address for address, _ in people if address not in lists + reviewers], reviewers, lists


def add(path, to, cc):
    """Adds the headers after the subject."""
    with open(path) as file:
        head, body = file.read().split("\n\n", 1)
    for name, addresses in (("To", to), ("Cc", cc)):
        if addresses:
            head += f"\n{name}: " + ",\n    ".join(addresses)
    with open(path, "w") as file:
        file.write(f"{head}\n\n{body}")


def main():
    if len(sys.argv) < 4:
        sys.stderr.write("usage: recipients.py DIR KERNEL-TREE MAINTAINERS [SECURITY-PATCH...]\n")
        sys.exit(2)
    directory, tree, maintainers, *security = sys.argv[1:]
    tree, maintainers = os.path.abspath(tree), os.path.abspath(maintainers)
    mails = sorted(os.path.abspath(os.path.join(directory, name)) for name in os.listdir(directory))
    patches = [mail for mail in mails if not mail.endswith("0000-cover-letter.patch")]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = list(pool.map(lambda patch: ask(tree, maintainers, patch), patches))
    everywhere = {}
    for patch, (to, reviewers, lists) in zip(patches, answers):
        if os.path.basename(patch) in security:
            add(patch, [SECURITY, *to], [])
        else:
            everywhere.update(dict.fromkeys(lists))
            add(patch, to, reviewers + lists)
    for cover in set(mails) - set(patches):
        add(cover, list(everywhere), [])


if __name__ == "__main__":
    main()
