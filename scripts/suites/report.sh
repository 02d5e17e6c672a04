#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests of report.py, with results and without. The page must show all failures, and must not show
# results of commands that were not run.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

report="$TOP/scripts/tests/report.py"
dir=$tap_dir/results
page=$dir/index.html
mkdir "$dir"

# The log of a run has a suite on the host, a guest that does not count, and a guest that counts.
cells() { printf '%.s'"$1" {1..64}; }
{
	printf '%s\n' '#suite parser host' 'ok 1 one' 'ok 2 two <script>' '#end parser host 0'
	printf '%s\n' '#suite collapse_file rust' 'not ok 1 of another guest' '#booted-again'
	printf '%s\n' '#suite collapse_file rust' '1..4' 'ok 1 fine' '# said before' $'# in colours \e[31mand\x01' 'not ok 2 broken' 'ok 3 other # SKIP no swap' 'ok 4 # SKIP huge (no pages)' '#end collapse_file rust 1'
	printf '%s\n' '#suite collapse_file_results c' '1..1' '# x:reached COPY_MC by copy_mc' '# x:not reached: STORE_FAILED' 'ok 1 all' '#end collapse_file_results c 0'
	printf '%s\n' '#suite collapse_fuzz rust' '1..1' '# # fuzz-result: truncated=41' '# # fuzz-result: truncated=1' 'ok 1 fuzz' '#end collapse_fuzz rust 0'
	printf '%s\n' '#suite demo rust' '' 'memfd: of all kinds; collapse_file() in Rust'
	printf '  %-8s%s\n' before "$(cells 4)" '' "$(cells s)" '' "$(cells f)" '' "$(cells .)"
	printf '%s\n' '  madvise(MADV_COLLAPSE) = 0'
	printf '  %-8s%s\n' after "$(cells H)" '' "$(cells H)"
	printf '%s\n' '' 'scenario C Rust' 'memfd ok ok' '#end demo rust 0'
} >"$dir/test.ktap"

# Write the files that run-tests.py writes next to the log.
results_of_log() {
	PYTHONPATH=$TOP/scripts/lib:$TOP/scripts/tests python3 - "$dir" "$@" <<'PYTHON'
import importlib
import json
import sys

import ktap

run = ktap.Run()
for line in open(sys.argv[1] + "/test.ktap"):
    run.line(line.rstrip("\n"))
with open(sys.argv[1] + "/test.json", "w") as file:
    json.dump(importlib.import_module("run-tests").told(run.suites, sys.argv[2:], [], {"linux": "7.3.4"}), file)
with open(sys.argv[1] + "/results.json", "w") as file:
    json.dump({suite.impl: suite.reached for suite in run.suites if suite.reached}, file)
PYTHON
}

# xpath COUNT PATH: junit.xml has COUNT elements that match PATH.
xpath() {
	python3 - "$dir/junit.xml" "$@" <<'PYTHON'
import sys
import xml.etree.ElementTree as ElementTree

found = ElementTree.parse(sys.argv[1]).getroot().findall(sys.argv[3])
print(len(found), [element.attrib for element in found])
sys.exit(len(found) != int(sys.argv[2]))
PYTHON
}

balanced() {
	python3 - "$page" <<'PYTHON'
import html.parser
import sys


class Check(html.parser.HTMLParser):
    """Checks that elements are closed in the right order."""
    open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())


check = Check()
check.feed(open(sys.argv[1]).read())
sys.exit(str(check.open) if check.open else 0)
PYTHON
}

has() { grep -qF -- "$1" "$page"; }
has_not() { ! has "$1"; }

tap "nothing was run" "$report" --results "$dir"
tap "the page says so" has 'not run: <code>make bench</code>'

tap "there is a run" results_of_log "a guest that fell silent"
tap "it is reported" "$report" --results "$dir"
tap "the page's elements are balanced" balanced
tap "and need no other file" has_not 'src='
tap "and no URL" has_not '://'
tap "the sums include all that counts" has '2 failed</b><span class=faint>6 passed, 2 skipped'
tap "a failure is shown" has 'collapse_file (Rust): broken'
tap "with the output before it" has '# said before'
tap "other problems are shown" has 'a guest that fell silent'
tap "the previous guest does not count" has_not 'of another guest'
tap "names are escaped" has_not '<script>'
tap "the reason of a skipped test is shown" has 'no swap'
tap "a result that was reached" has 'copy_mc'
tap "a result that was not reached" has 'not reached</span>'
tap "the histogram of the fuzzer" has '<span class=mono>42</span>'
tap "the pictures: small pages" has '<rect class=small x=0 y=0 width=448 height=8 />'
tap "a hole" has '<rect class=hole x=0 y=24 width=448 height=8 />'
tap "and a huge page in one piece" has '<rect class=huge width=448 height=16 />'
tap "a command that was not run is marked" has 'not run: <code>make fuzz</code>'

tap "junit.xml has all tests, and one for the run" xpath 10 ".//testcase"
tap "two failures" xpath 2 ".//testcase/failure"
tap "with the output before them" grep -q '# said before' "$dir/junit.xml"
tap "a skipped test, with the reason" xpath 1 ".//skipped[@message='no swap']"
tap "also if its name comes last" xpath 1 ".//testcase[@name='huge']/skipped[@message='no pages']"
tap "sums" xpath 1 ".[@tests='10'][@failures='2'][@skipped='2']"
tap "a suite for each implementation" xpath 1 ".//testsuite[@name='collapse_file.rust']"

echo '{' >"$dir/bench.json"
cat >"$dir/host.json" <<'EOT'
{"tests": [{"name": "4 pages: a", "mode": "dfs exhaustive", "schedules": 1234},
 {"name": "4 pages: b", "mode": "dfs exhaustive to 1 preemptions", "schedules": 1}], "passed": 2, "failed": 0, "skipped": 0}
EOT
cat >"$dir/bench_locks.json" <<'EOT'
[{"scenario": "mapped", "unit": "page-cache locks", "c": 1000, "rust": 40, "ratio": 0.04, "floor": null},
 {"scenario": "nothing", "unit": "bytes", "c": 0, "rust": 4, "ratio": null, "floor": null}]
EOT
tap "a broken result does not stop the report" "$report" --results "$dir"
tap "the page names it" has 'bench.json cannot be read'
tap "tests on the host" has '1,235 executions, 1 test exhaustive'
tap "with their modes" has '1 with all interleavings, 1 with all interleavings up to 1 preemption'
tap "locks in C and in Rust" has '40 (0.040 of C)'
tap "the page's elements are still balanced" balanced

# part_is_kept: a run of some tests does not replace the result of a full run.
part_is_kept() {
	PYTHONPATH=$TOP/scripts/lib:$TOP/scripts/tests python3 - "$dir" <<'PYTHON'
import os
import sys

import results

results.RESULTS = sys.argv[1]
results.write("whole", [1])
results.write("whole", [2], part=True)
for name, data in (("whole", [1]), ("whole-part", [2])):
    result = results.Result(name, "make whole", results.RESULTS)
    assert result.data == data and result.commit == results.commit(), (name, result.data, result.commit)
assert sorted(os.listdir(results.RESULTS)).count("commits.json.new") == 0
PYTHON
}
tap "a part does not replace the whole" part_is_kept
oldest=$(git -C "$TOP" rev-list --max-parents=0 HEAD 2>/dev/null | head -n 1)
if [ -n "$oldest" ]; then
	printf '{"host": "%s"}\n' "$oldest" >"$dir/commits.json"
	tap "a result has a commit" "$report" --results "$dir"
	tap "the page names it, and that the sources have changed since" has "commit $oldest, of an earlier version"
else
	skip "a result has a commit" "not a git repository"
fi

tap "wrong arguments" fails 2 '^usage: report.py' "$report" --wrong
tap "no such directory" fails 1 '^error: a directory is missing .*/none.; run .make test.' "$report" --results "$tap_dir/none"
tap_end
