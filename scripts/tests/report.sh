#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What report.py makes of results, and of results that are not there: a page that
# overlooks failures, or tells of what was not run, is worse than none.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

report="$TOP/scripts/report.py"
dir=$tap_dir/results
page=$dir/index.html
mkdir "$dir"

# The log of a run: a suite on the host, a guest that does not count, and one that does.
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

# What run-tests.py would write beside it.
results_of_log() {
	PYTHONPATH=$TOP/scripts python3 - "$dir" "$@" <<'PYTHON'
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

# xpath COUNT PATH: how many elements of junit.xml there are.
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
    """Every element that is opened is closed, and in order."""
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
fails() {
	local status=$1 pattern=$2 got
	shift 2
	"$@" >"$tap_dir/out" 2>&1 </dev/null
	got=$?
	cat "$tap_dir/out"
	[ "$got" -eq "$status" ] && grep -qE "$pattern" "$tap_dir/out"
}

tap "nothing was run" "$report" --results "$dir"
tap "that is what the page says" has 'not run: <code>make bench</code>'

tap "there is a run" results_of_log "a guest that fell silent"
tap "it is reported" "$report" --results "$dir"
tap "the page's elements are balanced" balanced
tap "and need no other file" has_not 'src='
tap "no address either" has_not '://'
tap "the sums are of all that counts" has '2 failed</b><span class=faint>6 passed, 2 skipped'
tap "what failed is told" has 'collapse_file (Rust): broken'
tap "and what was said before" has '# said before'
tap "and what was wrong beside the tests" has 'a guest that fell silent'
tap "the guest before does not count" has_not 'of another guest'
tap "names are no HTML" has_not '<script>'
tap "why a test was skipped is told" has 'no swap'
tap "a result that was reached" has 'copy_mc'
tap "and one that was not" has 'not reached</span>'
tap "the histogram of the fuzzer" has '<span class=mono>42</span>'
tap "the pictures: small pages" has '<rect class=small x=0 y=0 width=448 height=8 />'
tap "a hole" has '<rect class=hole x=0 y=24 width=448 height=8 />'
tap "and a huge page in one piece" has '<rect class=huge width=448 height=16 />'
tap "what was not run is told so" has 'not run: <code>make fuzz</code>'

tap "junit.xml has every test, and the run's own" xpath 10 ".//testcase"
tap "two failures" xpath 2 ".//testcase/failure"
tap "with what was said" grep -q '# said before' "$dir/junit.xml"
tap "a skipped test, and why" xpath 1 ".//skipped[@message='no swap']"
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
tap "broken results are no reason to stop" "$report" --results "$dir"
tap "they are told" has 'bench.json cannot be read'
tap "host proof" has '1,235 executions, 1 test exhaustive'
tap "how it was had" has '1 in all orders, 1 in all with up to 1 preemption'
tap "locks in C and in Rust" has '40 (0.040 of C)'
tap "the page's elements are still balanced" balanced

# part_is_kept: a run of some tests only does not replace the result of a full one.
part_is_kept() {
	PYTHONPATH=$TOP/scripts python3 - "$dir" <<'PYTHON'
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
	tap "it is told, and that the sources have changed since" has "commit $oldest, of an earlier version"
else
	skip "a result has a commit" "this is no git repository"
fi

tap "wrong arguments" fails 2 '^usage: report.py' "$report" --wrong
tap "no such directory" fails 1 '^error: .*/none is not there: run .make test.' "$report" --results "$tap_dir/none"
tap_end
