#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Write the results in build/results as an HTML page, and as JUnit XML for a CI.

index.html needs no scripts and no other files. junit.xml has the tests of `make test`, and
junit-NAME.xml those of `make test DEBUG=NAME`. The page lists commands that were not run as such.
"""

import argparse
import collections
import html
import os
import re
import sys
import time
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import ktap  # noqa: E402
import results  # noqa: E402
from results import Result, plural  # noqa: E402

FUZZ = re.compile(r"fuzz-result: (\S+)=(\d+)$")
SCENARIO = re.compile(r"^(\S.*); collapse_file\(\) in (C|Rust)$")
MAP = re.compile(r"^  (before|after|) *([.sf4H]{64})$")
NOT_REACHED = re.compile(r"not reached: (.*)$")
# The letters in the demo's maps: CSS class and description.
CELLS = {"4": ("small", "small page"), "H": ("huge", "huge page"), "s": ("swap", "swapped out"),
         "f": ("alloc", "allocated, never written"), ".": ("hole", "hole")}
# XML cannot represent these characters.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
NAMES = {"rust": "Rust", "c": "C", "host": "host"}

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1c2024; --faint: #606a74; --line: #d9dee3;
  --panel: #f5f7f9; --good: #17713b; --bad: #b3261e; --skip: #606a74; --rust: #c8553d; --c: #3b6ea5;
  --floor: #aab4be; --small: #7aa6d8; --huge: #17713b; --swap: #c9a227; --alloc: #b98bc9; --hole: #e8ecf0; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181c; --text: #e2e7ec; --faint: #98a3ae; --line: #333b43; --panel: #1d2329;
    --good: #66c78a; --bad: #ff8a80; --skip: #98a3ae; --rust: #e07a5f; --c: #6fa0d6; --floor: #5b6670;
    --small: #4f7fb5; --huge: #4caf73; --swap: #d4b13f; --alloc: #a678b8; --hole: #2a3138; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 68rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p { margin: .4rem 0; } .faint { color: var(--faint); } code, pre, .mono { font: 13px/1.45 ui-monospace, monospace; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; white-space: nowrap; } td:first-child { white-space: nowrap; } td.n, th.n { text-align: right; white-space: nowrap; }
.sums { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; }
.sum { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; min-width: 9rem; }
.sum b { display: block; font-size: 1.5rem; line-height: 1.3; }
.wide span { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .skip { color: var(--skip); }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; overflow-x: auto; margin: .4rem 0; }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: .2rem .8rem; }
.bars .first, .bars .first + div { padding-top: .35rem; }
.bars div { display: flex; align-items: center; gap: .6rem; white-space: nowrap; }
.bar { height: .8rem; border-radius: 2px; flex: none; min-width: 1px; width: calc((100% - 13rem) * var(--share)); }
.key { display: inline-flex; align-items: center; gap: .35rem; margin-right: 1.1rem; color: var(--faint); }
.key i { width: .8rem; height: .8rem; border-radius: 2px; display: inline-block; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; } .pictures figure { margin: 0; } figcaption { color: var(--faint); margin-bottom: .2rem; }
.pictures svg { width: 29rem; max-width: 100%; height: auto; display: block; }
.small { --x: var(--small); } .huge { --x: var(--huge); } .swap { --x: var(--swap); } .alloc { --x: var(--alloc); } .hole { --x: var(--hole); }
.small, .huge, .swap, .alloc, .hole { background: var(--x); fill: var(--x); }
.of-rust { background: var(--rust); } .of-c { background: var(--c); } .of-floor { background: var(--floor); } .of-both { background: var(--small); }
.grid { stroke: var(--ground); stroke-width: 1; }
details { margin: .4rem 0; } summary { cursor: pointer; }
"""


class Tests:
    """A run of the suites: its sums, and the output of each test."""

    def __init__(self, name, command, directory):
        self.name, self.command = name, command
        self.result = Result(name, command, directory)
        self.log = ktap.Run()
        self.fuzz, self.demo, self.not_reached = {}, [], {}
        try:
            with open(os.path.join(directory, name + ".ktap"), errors="replace") as file:
                for text in file:
                    self.line(text.rstrip("\n"))
        except OSError:
            pass
        self.log.ended()

    def line(self, text):
        """Parses one line of the log."""
        self.log.line(text)
        suite = self.log.current
        if not suite:
            return
        fuzz, missing = FUZZ.search(text), NOT_REACHED.search(text)
        if fuzz:
            self.fuzz[fuzz.group(1)] = self.fuzz.get(fuzz.group(1), 0) + int(fuzz.group(2))
        if missing and suite.name == "collapse_file_results":
            self.not_reached.setdefault(missing.group(1), set()).add(suite.impl)
        if suite.name == "demo":
            self.demo.append(text)

    def __bool__(self):
        return bool(self.result)

    def known(self, suite, key, default):
        """Returns a value that test.json has for a suite and the log does not."""
        return next((told.get(key, default) for told in self.result.data["suites"]
                     if (told["name"], told["impl"]) == (suite.name, suite.impl)), default)

    def wrong(self):
        """Returns the problems of the run that are not failures of tests."""
        data = self.result.data
        return list(data.get("wrong", ())) + ["the kernel said: " + line for line in data.get("said", ())]


def text_of(value):
    """Escapes a value for HTML."""
    return html.escape(str(value), quote=True)


def table(head, rows, numbers=()):
    """Returns a table. The rows are HTML, and `numbers` lists the columns that are aligned right."""
    def cells(tag, row):
        return "".join(f"<{tag}{' class=n' if at in numbers else ''}>{cell}</{tag}>" for at, cell in enumerate(row))
    return ("<div class=wide><table><thead><tr>" + cells("th", head) + "</tr></thead><tbody>" +
            "".join(f"<tr>{cells('td', row)}</tr>" for row in rows) + "</tbody></table></div>")


def not_run(result):
    """Returns a paragraph for a result that is missing."""
    return f"<p class=faint>{text_of(result.why)}: <code>{text_of(result.command)}</code></p>"


def source_line(result):
    """Returns a paragraph with the source of a section's figures."""
    return f"<p class=faint><code>{text_of(result.command)}</code>, {text_of(result.provenance().split(', ', 1)[-1])}</p>"


def outcome_cell(suite):
    """Returns the table cell of a suite."""
    if suite is None:
        return "<span class=faint>–</span>"
    parts = [f"<span class=good>{suite['passed']} ok</span>"]
    if suite["failed"]:
        parts.append(f"<span class=bad>{suite['failed']} failed</span>")
    if suite["skipped"]:
        parts.append(f"<span class=skip>{suite['skipped']} skipped</span>")
    if suite.get("tries", 1) > 1:
        parts.append(f"<span class=skip>{suite['tries']} tries</span>")
    return ", ".join(parts)


def summary(tests):
    """Returns the sums of each run."""
    out = []
    for run in tests:
        if run:
            passed, failed, skipped = results.sums(run.result.data)
            verdict = f"<b class={'bad' if failed else 'good'}>{f'{failed} failed' if failed else 'passed'}</b>"
            rest = f"{passed} passed, {skipped} skipped"
        else:
            verdict, rest = f"<b class=skip>{text_of(run.result.why)}</b>", ""
        out.append(f"<div class=sum><code>{text_of(run.command)}</code>{verdict}<span class=faint>{rest}</span></div>")
    return f"<div class=sums>{''.join(out)}</div>"


def about(run):
    """Returns a paragraph on the kernel that was tested, and the time."""
    if not run:
        return ""
    told = run.result.data.get("run", {})
    words = [f"Linux {told['linux']}" if told.get("linux") else "", f"kernel “{told['kernel']}”" if told.get("kernel") else "",
             {"kvm": "KVM", "tcg": "emulated"}.get(told.get("accel"), ""),
             f"{told['cpus']} CPUs, {told['memory']}" if told.get("accel") else "",
             f"sources {told['commit']}" if told.get("commit") else "", run.result.provenance().split(", ", 1)[-1]]
    return f"<p class=faint>{text_of(' · '.join(word for word in words if word))}</p>"


def failures(tests):
    """Returns a section with each failure and the output before it, or nothing."""
    out = []
    for run in tests:
        if not run:
            continue
        told = []
        for suite in run.log.suites:
            told += [(f"{suite.name} ({NAMES[suite.impl]}): {name}", detail)
                     for name, outcome, detail in suite.cases if outcome == "failed"]
        told += [(what, "") for what in run.wrong()]
        for what, detail in told:
            out.append(f"<p class=bad>{text_of(run.command)}: {text_of(what)}</p>" +
                       (f"<pre>{text_of(detail)}</pre>" if detail else ""))
    return "<h2>Failures</h2>" + "".join(out) if out else ""


def suites_section(tests):
    """Returns the tables of suites and implementations."""
    out = ["<h2>Suites</h2>"]
    for run in tests:
        if not run:
            out.append(not_run(run.result))
            continue
        suites = run.result.data["suites"]
        impls, rows = results.suite_table(suites)
        found = {(suite["name"], suite["impl"]): suite for suite in suites}
        rows = [[text_of(row[0])] + [outcome_cell(found.get((row[0], impl))) for impl in impls] +
                [f"{sum(s.get('seconds', 0) for s in suites if s['name'] == row[0]):.0f} s"] for row in rows]
        out.append(source_line(run.result) + table(["suite"] + [NAMES[impl] for impl in impls] + ["time"], rows, [len(impls) + 1]))
        skipped = [f"{suite.name} ({NAMES[suite.impl]}): {name}: {why}" for suite in run.log.suites
                   for name, outcome, why in suite.cases if outcome == "skipped"]
        if skipped:
            out.append(f"<details><summary>{plural(len(skipped), 'test')} skipped, and why</summary><pre>" +
                       text_of("\n".join(skipped)) + "</pre></details>")
    return "".join(out)


def reached_section(result, run):
    """Returns the table of collapse_file()'s results and implementations."""
    out = ["<h2>Results of collapse_file() that were reached</h2>"]
    if not result:
        return "".join(out) + not_run(result)
    impls = [impl for impl in results.IMPLS if impl in result.data]
    names = list(dict.fromkeys(name for impl in impls for name in result.data[impl]))
    names += [name for name in run.not_reached if name not in names]
    rows = [[f"<code>{text_of(name)}</code>"] +
            [f"<span class=good>{text_of(result.data[impl][name])}</span>" if name in result.data[impl]
             else "<span class=bad>not reached</span>" for impl in impls] for name in names]
    return "".join(out) + source_line(result) + table(["result", *(f"{NAMES[impl]}: reached by" for impl in impls)], rows)


def bars(rows):
    """Draws horizontal bars from rows of name, share of the width, text after the bar, and class."""
    return "<div class=bars>" + "".join(
        f"<span class='mono{' first' if name else ''}'>{text_of(name)}</span>"
        f"<div><i class='bar {kind}' style='--share:{share:.4f}'></i><span class=mono>{text_of(value)}</span></div>"
        for name, share, value, kind in rows) + "</div>"


def histogram(counts):
    """Draws how many collapses ended with each result."""
    most = max(counts.values())
    return bars([(name, count / most, f"{count:,}", "of-both") for name, count in sorted(counts.items(), key=lambda item: -item[1])])


def fuzz_section(result, run):
    """Returns the section on random histories."""
    out = ["<h2>Random histories, with C and with Rust</h2>"]
    if result:
        out.append(source_line(result) + f"<p>{text_of(results.fuzz_words(result.data))}</p>")
        if result.data["by_result"]:
            out.append(histogram(result.data["by_result"]))
    else:
        out.append(not_run(result))
    if run and run.fuzz:
        out.append("<h3>Histories of the tests</h3>" + source_line(run.result) + histogram(run.fuzz))
    return "".join(out)


def key(classes):
    """Returns the legend of the colours."""
    return "<p>" + "".join(f"<span class=key><i class={name}></i>{text_of(what)}</span>" for name, what in classes) + "</p>"


def plot(lines):
    """Draws C, Rust and the floor, if any, next to each other, relative to C."""
    # C has the full width, unless Rust is higher in a scenario.
    most = max(1, max(line["ratio"] for line in lines))
    rows, names = [], [("of-c", "C"), ("of-rust", "Rust")]
    for line in lines:
        rows.append((line["scenario"], 1 / most, f"{line['c']:,}", "of-c"))
        rows.append(("", line["ratio"] / most, f"{line['rust']:,} ({line['ratio']:.3f} of C)", "of-rust"))
        if line.get("floor") is not None:
            rows.append(("", line["floor"] / line["c"] / most, f"{line['floor']:,}", "of-floor"))
    if any(line.get("floor") is not None for line in lines):
        names.append(("of-floor", "floor: copying and clearing alone"))
    return key(names) + bars(rows)


def bench_section(result, locks):
    """Returns the section on the cost of a collapse."""
    out = ["<h2>Cost of a collapse</h2>"]
    for part in (result, locks):
        if not part:
            out.append(not_run(part))
            continue
        out.append(source_line(part))
        for unit in dict.fromkeys(line["unit"] for line in part.data):
            plotted = [line for line in part.data if line["unit"] == unit and line["ratio"] is not None]
            if plotted:
                out.append(f"<h3>{text_of(unit[0].upper() + unit[1:])}</h3>" + plot(plotted))
        out.append("<details><summary>the figures</summary>" + table(
            ["scenario", "unit", "C", "Rust", "Rust/C", "95 % interval"],
            [[text_of(line["scenario"]), text_of(line["unit"]), f"{line['c']:,}", f"{line['rust']:,}",
              "–" if line["ratio"] is None else f"{line['ratio']:.3f}",
              "{:.3f}–{:.3f}".format(*line["ratio_interval"]) if line.get("ratio_interval") else "–"]
             for line in part.data], [2, 3, 4, 5]) + "</details>")
    return "".join(out)


def picture(rows):
    """Draws a map of the page cache: a square for each page, or one rectangle for a huge page."""
    if set("".join(rows)) == {"H"}:
        cells = f"<rect class=huge width=448 height={len(rows) * 8} />"
    else:
        # Equal neighbours are one rectangle, and the lines of a grid are drawn over it.
        cells = "".join(f"<rect class={CELLS[run.group(1)][0]} x={run.start() * 7} y={y * 8} width={len(run.group()) * 7} height=8 />"
                        for y, row in enumerate(rows) for run in re.finditer(r"(.)\1*", row))
        lines = "".join(f"M{x * 7} 0v{len(rows) * 8}" for x in range(1, 64)) + "".join(f"M0 {y * 8}h448" for y in range(1, len(rows)))
        cells += f"<path class=grid d='{lines}' />"
    return f"<svg viewBox='0 0 448 {len(rows) * 8}' role=img>{cells}</svg>"


def pictures(lines):
    """Returns the pictures and the text of each scenario of the demo, and then its table."""
    scenarios, table_lines = [], []
    for line in lines:
        head, cells = SCENARIO.match(line), MAP.match(line)
        if head:
            scenarios.append((head.groups(), [], []))
        elif line.startswith("scenario") or table_lines:
            table_lines.append(line)
        elif scenarios and cells:
            maps = scenarios[-1][1]
            if cells.group(1):
                maps.append((cells.group(1), []))
            if maps:
                maps[-1][1].append(cells.group(2))
        elif scenarios and line.strip():
            scenarios[-1][2].append(line.strip())
    out = []
    for (name, impl), maps, words in scenarios:
        out.append(f"<h3>{text_of(name)}: {impl}</h3><div class=pictures>" +
                   "".join(f"<figure><figcaption>{caption}</figcaption>{picture(rows)}</figure>" for caption, rows in maps) +
                   f"</div><pre>{text_of(chr(10).join(words))}</pre>")
    return "".join(out) + (f"<pre>{text_of(chr(10).join(table_lines))}</pre>" if table_lines else "")


def demo_section(run):
    """Returns the pictures of the page cache before and after collapses."""
    out = ["<h2>The page cache, before and after</h2>"]
    if not run or not run.demo:
        return "".join(out) + f"<p class=faint>not run: suite demo of <code>{text_of(run.command)}</code></p>"
    return ("".join(out) + source_line(run.result) + "<p class=faint>2 MiB of a file, a square for each page.</p>" +
            key(CELLS.values()) +
            pictures(run.demo))


def mode_words(mode):
    """Describes how a test explores the interleavings of its tasks."""
    bounded = re.match(r"dfs exhaustive to (\d+) preemptions", mode)
    if bounded:
        return f"with all interleavings up to {bounded.group(1)} preemption{'s' if bounded.group(1) != '1' else ''}"
    return {"dfs exhaustive": "with all interleavings", "pct": "with random priorities", "random": "at random",
            "sequential": "with one task"}.get(mode, mode)


def host_section(result):
    """Returns the section on the tests on the host."""
    out = ["<h2>The sources on the host, interleaved with other tasks</h2>"]
    if not result:
        return "".join(out) + not_run(result)
    by_config = {}
    for test in result.data["tests"]:
        by_config.setdefault(test["name"].split(": ")[0], []).append(test)
    rows = []
    for config, tests in by_config.items():
        modes = collections.Counter(mode_words(test["mode"]) for test in tests)
        rows.append([text_of(config), f"{len(tests)}", f"{sum(test['schedules'] for test in tests):,}",
                     text_of(", ".join(f"{count} {mode}" for mode, count in modes.most_common()))])
    every = [[text_of(test["name"]), text_of(mode_words(test["mode"])), f"{test['schedules']:,}"] for test in result.data["tests"]]
    return ("".join(out) + source_line(result) + f"<p>{text_of(results.host_words(result.data))}</p>" +
            table(["size", "tests", "executions", "how"], rows, [1, 2]) +
            "<details><summary>all tests</summary>" + table(["test", "how", "executions"], every, [2]) + "</details>")


def others_section(lines):
    """Returns the table of results that have one line each."""
    rows = [[text_of(title), text_of(words(result.data)) if result else f"<span class=faint>{text_of(result.why)}</span>",
             f"<code>{text_of(result.command)}</code>" + (f"<br><span class=faint>{text_of(result.provenance().split(', ', 1)[-1])}</span>" if result else "")]
            for title, words, result in lines]
    return "<h2>Further checks</h2>" + table(["what", "outcome", "command"], rows)


def page(tests, directory):
    """Returns the whole page."""
    first = tests[0]
    found = {name: Result(name, command, directory) for name, _, command, _ in results.LINES}
    others = [(title, words, found[name]) for name, title, _, words in results.LINES
              if name not in ("results", "host", "fuzz")]
    body = [summary(tests), failures(tests), suites_section(tests), reached_section(found["results"], first),
            host_section(found["host"]), fuzz_section(found["fuzz"], first),
            bench_section(Result("bench", "make bench", directory), Result("bench_locks", "make bench-locks", directory)),
            demo_section(first), others_section(others)]
    return ("<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width, initial-scale=1'>"
            f"<title>collapse_file() in Rust: results</title><style>{STYLE}</style></head><body>"
            f"<h1>collapse_file() in Rust: results</h1>{about(first)}{''.join(body)}</body></html>\n")


def clean(value):
    """Replaces the characters that XML cannot represent."""
    return CONTROL.sub("?", value)


def junit(run):
    """Returns the tests of a run in JUnit's XML format."""
    top = ElementTree.Element("testsuites", name=run.command)
    totals = {"tests": 0, "failures": 0, "skipped": 0}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(run.result.time))

    def add(name, cases, seconds=0):
        counts = {"tests": len(cases), "failures": sum(case[1] == "failed" for case in cases),
                  "skipped": sum(case[1] == "skipped" for case in cases)}
        suite = ElementTree.SubElement(top, "testsuite", name=name, timestamp=stamp, time=f"{seconds:.1f}", errors="0",
                                       **{what: str(count) for what, count in counts.items()})
        for what, count in counts.items():
            totals[what] += count
        for case, outcome, detail in cases:
            element = ElementTree.SubElement(suite, "testcase", classname=name, name=clean(case) or "?")
            if outcome == "failed":
                ElementTree.SubElement(element, "failure", message=clean(case)).text = clean(detail)
            elif outcome == "skipped":
                ElementTree.SubElement(element, "skipped", message=clean(detail))

    for suite in run.log.suites:
        add(f"{suite.name}.{suite.impl}", suite.cases, run.known(suite, "seconds", 0))
    # Problems that fail the run and are not failures of tests.
    add("run", [(what, "failed", "") for what in run.wrong()] or [("nothing else went wrong", "passed", "")])
    for what, count in totals.items():
        top.set(what, str(count))
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="utf-8", xml_declaration=True).decode() + "\n"


def save(path, text):
    """Replaces a file atomically, because a browser may be reading it."""
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".part", path)


def write(directory=results.RESULTS):
    """Writes the page and the XML files."""
    tests = [Tests(name, command, directory) for name, command in results.TESTS.items()]
    save(os.path.join(directory, "index.html"), page(tests, directory))
    written = ["index.html"]
    for run in tests:
        if run:
            written.append("junit" + run.name[len("test"):] + ".xml")
            save(os.path.join(directory, written[-1]), junit(run))
    print(f"==> {', '.join(written)} in {os.path.relpath(directory, results.TOP)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--results", default=results.RESULTS, metavar="DIR", help="directory of the results (%(default)s)")
    args = parser.parse_args()
    if not os.path.isdir(args.results):
        sys.exit(f"error: a directory is missing ({args.results}); run 'make test', or give another one with --results")
    write(args.results)


if __name__ == "__main__":
    main()
