#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Check that a module of the kernel crate imports only from lower layers.

Each line of LAYERS lists the modules of one layer, the lowest first. A module may use the modules
of earlier lines, but not those of its own line or of later lines. The script does not check
modules that are not listed, such as the kernel's own. It ignores tests: it cuts them off at their
cfg attribute. It prints each import that points upwards, and fails if there is one.
"""

import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAYERS = [
    ["xarray::state"],
    ["mm::folio"],
    ["mm::mapping"],
    ["mm::rmap", "mm::shmem"],
    ["mm::page_cache"],
    ["mm::page_cache_map", "mm::collapse::control"],
    ["mm::collapse::new_folio", "mm::collapse::patience", "mm::collapse::missing", "mm::collapse::batch"],
    ["mm::collapse::old_folios", "mm::collapse::checks"],
    ["mm::collapse::gather", "mm::collapse::replace"],
]
# The modules that `mm::collapse` re-exports these names from.
OWNERS = {"ScanResult": "control", "CollapseControl": "control", "trace_collapse_file": "control",
          "NewFolio": "new_folio", "HugeFolio": "new_folio", "Patience": "patience",
          "OldFolios": "old_folios", "Gathering": "old_folios", "Charged": "old_folios", "Copied": "old_folios",
          "ReplacedFolios": "old_folios", "LastLock": "replace", "FilledRange": "replace",
          "CountedRange": "replace", "SealedRange": "replace"}
TESTS = "#[cfg(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST)]"


def sources(root, module):
    """Returns the files of a module: its own file and all files in its directory."""
    path = os.path.join(root, "rust", "kernel", *module.split("::"))
    files = [path + ".rs"]
    if os.path.isdir(path):
        files += [os.path.join(path, name) for name in sorted(os.listdir(path))]
    return files


def paths(tree, prefix=""):
    """Yields each path of a use tree, such as a::{b, c::{d, e}}."""
    depth, part = 0, ""
    for char in tree + ",":
        if char == "," and depth == 0:
            part = part.strip()
            if part.endswith("}"):
                head, inner = part[:-1].split("{", 1)
                yield from paths(inner, prefix + head)
            elif part:
                yield prefix + part
            part = ""
            continue
        depth += (char == "{") - (char == "}")
        part += char


def imports(text, module):
    """Yields the modules that a file imports from, as names like those in LAYERS."""
    text = re.sub(r"//[^\n]*", "", text.split(TESTS)[0])
    for use in re.findall(r"^(?:pub )?use ([^;]+);", text, re.M):
        for path in paths(re.sub(r"\s+", " ", use)):
            path = path.replace(" ", "")
            parts = path.split("::")
            if parts[0] == "crate":
                parts = parts[1:]
            elif parts[0] == "super":
                parent = module.split("::")[:-1]
                if parent == ["mm", "collapse"] and len(parts) > 1 and parts[1] in OWNERS:
                    parts = ["mm", "collapse", OWNERS[parts[1]]]
                else:
                    parts = parent + parts[1:]
            yield "::".join(parts), path
    # Code may use a full path without an import.
    for path in re.findall(r"\bcrate::((?:\w+::)+\w+)", re.sub(r"^(?:pub )?use [^;]+;", "", text, flags=re.M)):
        yield path, "crate::" + path


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] and not os.path.isdir(sys.argv[1]):
        print("usage: layers.py [DIR]", file=sys.stderr)
        sys.exit(2)
    root = sys.argv[1] if len(sys.argv) == 2 else TOP
    rank = {module: number for number, layer in enumerate(LAYERS) for module in layer}
    bad = 0
    for module, own in rank.items():
        for file in sources(root, module):
            if not os.path.exists(file):
                sys.exit(f"error: a module is missing ({os.path.relpath(file, root)}); fix LAYERS in scripts/lint/layers.py")
            with open(file) as source:
                text = source.read()
            for found, path in imports(text, module):
                target = next((name for name in rank if found == name or found.startswith(name + "::")), None)
                if target and target != module and rank[target] >= own:
                    print(f"{os.path.relpath(file, root)}: imports {path} from {target}, which is not below {module}")
                    bad += 1
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
