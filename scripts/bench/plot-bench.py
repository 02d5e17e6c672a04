#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Draw the results of bench.py: for each scenario a bar for C and one for Rust, on top of the floor."""

import argparse
import json

COLOURS = {"c": "#4477aa", "rust": "#ee6677", "floor": "#bbbbbb"}
NAMES = {"c": "C", "rust": "Rust", "floor": "copy and clear, the same in both"}
WIDTH = 0.4
# These scenarios cost ten times as much as all others.
TOO_HIGH = ("mapped-by-64",)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="bench.json")
    parser.add_argument("plot", help="SVG to write")
    args = parser.parse_args()

    # matplotlib is in a separate environment, and importing it is slow.
    import matplotlib  # pylint: disable=import-outside-toplevel
    matplotlib.use("svg")
    import matplotlib.pyplot as plt  # pylint: disable=import-outside-toplevel

    with open(args.results) as file:
        results = [result for result in json.load(file)
                   if result["floor"] is not None and result["scenario"] not in TOO_HIGH]
    # With a fixed salt the same input gives the same file.
    plt.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    floors = [result["floor"] / 1e6 for result in results]
    for at, column in enumerate(("c", "rust")):
        places = [place + (at - 0.5) * WIDTH for place in range(len(results))]
        axes.bar(places, floors, WIDTH, color=COLOURS["floor"], label=NAMES["floor"] if at == 0 else None)
        axes.bar(places, [result[column] / 1e6 - floor for result, floor in zip(results, floors)], WIDTH,
                 bottom=floors, label=NAMES[column], color=COLOURS[column])
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
