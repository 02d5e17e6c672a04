#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Check that the documents agree with the sources: numbers of patches and of uses of unsafe, names of tests, links.

The figures of the README's results must also be in the documents that have all results.
"""

import glob
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *glob.glob("docs/*.md", root_dir=TOP)]
# Documents that give the number of fixes, and how.
FIXES = {"README.md": [r"\[(\d+) faults\]", r"first (\d+) patches"], "CHANGELOG.md": [r"- (\d+) fixes"],
         "docs/faults.md": [r"first (\d+) patches"], "patches/cover-letters/fixes": [r"found (\d+) faults", r"of patches 1-(\d+) fixes"]}
# Documents that give the number of uses of unsafe, and by how much that may be wrong.
UNSAFE = {"README.md": r"about (\d+) uses of `unsafe`", "patches/cover-letters/rfc": r"about (\d+) uses of unsafe"}
UNSAFE_SLACK = 0.1


def read(path):
    """The text of a file, with line breaks as spaces."""
    with open(os.path.join(TOP, path)) as file:
        return re.sub(r"\n *", " ", file.read())


def fixes():
    """The numbers of the patches that fix C. The selftests are in the same posting."""
    with open(os.path.join(TOP, "patches", "postings")) as file:
        first, last = next(line.split()[1:] for line in file if line.startswith("fixes "))
    names = sorted(glob.glob("*.patch", root_dir=os.path.join(TOP, "patches")))
    return [name[:4] for name in names if first <= name[:4] <= last and "-selftests-" not in name]


def uses_of_unsafe():
    """The number of uses of unsafe in the abstractions, without comments and tests."""
    uses = 0
    for path in glob.glob("rust/kernel/**/*.rs", root_dir=TOP, recursive=True):
        if os.path.basename(path) in ("kunit.rs", "tests.rs"):
            continue
        with open(os.path.join(TOP, path)) as file:
            code = re.sub(r"//.*", "", file.read().split("#[macros::kunit_tests")[0])
        uses += len(re.findall(r"\bunsafe\b", code))
    return uses


def unproven():
    """The figures in the README's table of results that neither of the documents with all results has."""
    known = read("docs/results.md") + read("docs/performance.md")
    suites = re.findall(r"^\| [\w-]+ \| (.*?) \| (.*?) \| .* \|$", section("docs/results.md", "## Suites"), re.MULTILINE)
    totals = [sum(int(cell.split()[0]) for cell in column if " ok" in cell) for column in zip(*suites)]
    known += " ".join(str(total) for total in totals)
    rows = [line.split("|") for line in section("README.md", "## Results").splitlines() if line.startswith("| ")]
    known += " ".join(row[4] for row in rows)
    figures = [figure for row in rows[1:] for cell in row[2:4] for figure in re.findall(r"\d[\d,.]*\d{2}(?![ \d]*%)", cell)]
    return [figure for figure in figures if not re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d,])", known)]


def section(path, heading):
    """The section of a document with a heading."""
    with open(os.path.join(TOP, path)) as file:
        return re.split(r"^## ", file.read().split(heading, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def properties():
    """The names of the properties that each execution of the host tests is checked for."""
    with open(os.path.join(TOP, "tools/testing/collapse_file/src/properties.rs")) as file:
        return set(re.findall(r"\bfn (\w+)", file.read()))


def main():
    if len(sys.argv) != 1:
        sys.exit("usage: facts.py")
    wrong, numbers = [], fixes()
    for path, patterns in FIXES.items():
        for pattern in patterns:
            found = re.search(pattern, read(path))
            if not found or int(found.group(1)) != len(numbers):
                wrong.append(f"{path}: {found.group(0) if found else pattern}, but {len(numbers)} patches are fixes")
    patches = len(glob.glob("patches/*.patch", root_dir=TOP))
    if f"series of {patches} patches" not in read("README.md"):
        wrong.append(f"README.md: it does not say that the series has {patches} patches")
    for path, pattern in UNSAFE.items():
        found, uses = re.search(pattern, read(path)), uses_of_unsafe()
        if not found or abs(int(found.group(1)) - uses) > UNSAFE_SLACK * uses:
            wrong.append(f"{path}: {found.group(0) if found else pattern}, but there are {uses}")
    wrong += [f"README.md: neither docs/results.md nor docs/performance.md has {figure}" for figure in unproven()]
    for name in re.findall(r"\| `(\w+)` \| [^|]* \| ", read("docs/testing.md").split("| property |")[1].split("Small")[0]):
        if name not in properties():
            wrong.append(f"docs/testing.md: there is no property {name}")
    with open(os.path.join(TOP, "docs", "faults.md")) as file:
        rows = [line.split("|") for line in file if re.match(r"\| \d{4} ", line)]
    if [row[1].strip() for row in rows] != numbers:
        wrong.append("docs/faults.md: the rows are not the patches that are fixes")
    sources = "".join(read(path) for path in glob.glob("tools/testing/selftests/mm/collapse_file*.c", root_dir=TOP))
    for row in rows:
        for name in re.findall(r"`([a-z_.*]+)`", row[3]):
            name = name.rsplit(".", 1)[-1]
            if not re.search(rf"\b{name}\b", sources) and not glob.glob(f"tools/testing/selftests/mm/{name}.c", root_dir=TOP):
                wrong.append(f"docs/faults.md: there is no test {name}")
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(document)):
            if not os.path.exists(os.path.join(TOP, os.path.dirname(document), link)):
                wrong.append(f"{document}: the link {link} leads nowhere")
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
