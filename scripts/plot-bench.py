#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Draw what bench.py has measured: bars for C, Rust and the floor of each scenario."""

import argparse
import json

COLOURS = {"c": "#4477aa", "rust": "#ee6677", "floor": "#bbbbbb"}
NAMES = {"c": "C", "rust": "Rust", "floor": "floor: copy and clear alone"}
WIDTH = 0.27


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="bench.json")
    parser.add_argument("plot", help="SVG to write")
    args = parser.parse_args()

    # It is in an environment of its own, and takes its time.
    import matplotlib  # pylint: disable=import-outside-toplevel
    matplotlib.use("svg")
    import matplotlib.pyplot as plt  # pylint: disable=import-outside-toplevel

    with open(args.results) as file:
        results = [result for result in json.load(file) if result["floor"] is not None]
    # The same input gives the same file.
    plt.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    for at, column in enumerate(("c", "rust", "floor")):
        axes.bar([place + (at - 1) * WIDTH for place in range(len(results))],
                 [result[column] / 1e6 for result in results], WIDTH, label=NAMES[column], color=COLOURS[column])
    axes.set_xticks(range(len(results)), [result["scenario"] for result in results], rotation=30, ha="right")
    unit = results[0]["unit"]
    axes.set_ylabel("million instructions" if unit == "instructions" else "ms")
    axes.set_title("madvise(MADV_COLLAPSE) of 2 MiB: collapse_file() in C and in Rust")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(args.plot, metadata={"Date": None})


if __name__ == "__main__":
    main()
