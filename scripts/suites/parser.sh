#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests of ktap.py, which parses the output of a suite, and of vm.py, which parses a console. Both
# must find all failures.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

# counts STATUS PASSED FAILED SKIPPED <OUTPUT: a suite with this output has these counts.
counts() {
	PYTHONPATH=$TOP/scripts/lib:$TOP/scripts/tests python3 - "$@" "$(cat)" <<'PYTHON'
import sys

import ktap

suite = ktap.Suite("suite", "rust")
for line in sys.argv[5].split("\n"):
    suite.line(line)
suite.end(int(sys.argv[1]))
print(suite.passed, suite.failed, suite.skipped, suite.failures)
sys.exit([suite.passed, suite.failed, suite.skipped] != [int(n) for n in sys.argv[2:5]])
PYTHON
}

# complains YES-OR-NO LINE: vm.py takes a line of the console for a report of a bug, or not.
complains() {
	echo "$2" >"$tap_dir/console"
	PYTHONPATH=$TOP/scripts/lib:$TOP/scripts/tests python3 -c '
import sys, vm
sys.exit(bool(vm.splats(sys.argv[2])) != (sys.argv[1] == "yes"))' "$1" "$tap_dir/console"
}

# lost COUNT <LOG: a log reports this number of leaks.
lost() {
	PYTHONPATH=$TOP/scripts/lib:$TOP/scripts/tests python3 -c '
import sys, ktap
run = ktap.Run()
for line in sys.stdin:
    run.line(line.rstrip("\n"))
sys.exit(len(run.leaks) != int(sys.argv[1]))' "$1"
}

# kunit PASSED FAILED SKIPPED <CONSOLE: the KUnit results in a console have these counts.
kunit() {
	cat >"$tap_dir/console"
	PYTHONPATH=$TOP/scripts/lib:$TOP/scripts/tests python3 - "$tap_dir/console" "$@" <<'PYTHON'
import importlib
import sys

suites = []
with open("/dev/null", "w") as log:
    importlib.import_module("run-tests").run_kunit(sys.argv[1], suites, log)
suite = suites[0]
print(suite.cases)
sys.exit([suite.passed, suite.failed, suite.skipped] != [int(n) for n in sys.argv[2:5]])
PYTHON
}

# kunit_console LINE: print a console with two KUnit suites. The first one ends with LINE.
kunit_console() {
	sed 's/^/[    1.234567] /' <<EOT
KTAP version 1
1..2
    KTAP version 1
    # Subtest: rust_mm_folio
    1..2
    ok 1 one
$1
ok 1 rust_mm_folio
    KTAP version 1
    # Subtest: rust_doctests_kernel
    1..1
    ok 1 rust_doctest_kernel_mm_folio_rs_0
ok 2 rust_doctests_kernel
EOT
}

tap "ok, not ok and SKIP" counts 1 1 1 1 <<'EOT'
1..3
ok 1 one
not ok 2 two
ok 3 three # SKIP no swap
EOT
tap "ok after a step that failed is a failure" counts 0 1 1 0 <<'EOT'
1..2
# Collapse PTE table... Fail
ok 1 collapse
ok 2 another
EOT
tap "ok after a step that timed out, in colours, is a failure" counts 0 0 1 0 < <(
	printf '1..1\n# Collapse PTE table....\e[31mTimeout\e[0m\nok 1 collapse\n')
tap "ok after wrong content is a failure" counts 0 0 1 0 <<'EOT'
1..1
# Page 3 is corrupted: 0x0
ok 1 collapse
EOT
tap "fewer results than planned" counts 0 1 1 0 <<'EOT'
1..2
ok 1 one
EOT
tap "bailing out" counts 1 1 1 0 <<'EOT'
1..2
ok 1 one
Bail out! open()
EOT
tap "a second try that succeeds" counts 0 2 0 0 <<'EOT'
1..2
ok 1 one
Bail out! another task has a reference
#again
1..2
ok 1 one
ok 2 two
EOT
tap "a third try that fails" counts 1 1 1 0 <<'EOT'
1..2
Bail out! another task has a reference
#again
1..2
Bail out! another task has a reference
#again
1..2
ok 1 one
Bail out! another task has a reference
EOT
tap "a time limit" counts 124 1 1 0 <<'EOT'
1..2
ok 1 one
EOT
tap "no KTAP, and success" counts 0 1 0 0 <<'EOT'
nr_pages: 10
EOT
tap "no KTAP, and failure" counts 1 0 1 0 <<'EOT'
nr_pages: 10
EOT
tap "all skipped" counts 4 0 0 1 <<'EOT'
nothing to do here
EOT

if [ -e "$BUILD/linux/tools/testing/kunit/kunit.py" ]; then
	tap "KUnit's results" kunit 3 0 0 < <(kunit_console "    ok 2 two")
	tap "KUnit's failure" kunit 2 1 0 < <(kunit_console "    not ok 2 two")
	tap "KUnit's skipped test" kunit 2 0 1 < <(kunit_console "    ok 2 two # SKIP not here")
	tap "KUnit's console ends in a test" kunit 1 2 0 < <(kunit_console "" | head -n 6)
	tap "a console without results of KUnit" kunit 0 1 0 <<<"[    1.000000] EXT4-fs (vda): mounted filesystem"
else
	skip "KUnit's results" "kunit.py is missing; run 'make source'"
fi

while IFS= read -r line; do
	tap "is a report of a bug: $line" complains yes "[   12.345678] $line"
done <<'EOT'
BUG: sleeping function called from invalid context at mm/shmem.c:1
WARNING: CPU: 0 PID: 1 at mm/khugepaged.c:1 collapse_file+0x1/0x2
kernel BUG at lib/xarray.c:764!
WARNING: possible circular locking dependency detected
BUG: Bad page state in process khugepaged  pfn:12345
Call trace:
watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [khugepaged:40]
INFO: task collapse_file:100 blocked for more than 120 seconds.
rust_kernel: panicked at mm/collapse_file.rs:1:1
Oops: general protection fault, probably for non-canonical address
EOT
tap "QEMU's warning is not" complains no "WARNING: Image format was not specified"
race=$'[    1.000000] BUG: KCSAN: data-race in a / b\n[    1.000000]  %s+0x1/0x2\n[    1.000000] ======='
tap "a data race of a collapse is a report of a bug" complains yes "${race/\%s/rust_collapse_file}"
tap "a data race of other code is not" complains no "${race/\%s/shmem_fault}"
tap "an ordinary line is not" complains no "[    1.000000] EXT4-fs (vda): mounted filesystem"
tap "objects in kmemleak's list are leaks" lost 2 < <(printf '%s\n' '#leaks' 'unreferenced object 0xffff (size 64):' \
	'  comm "cp", pid 1' 'unreferenced object (percpu) 0xffff (size 8):' '#leaks-end')
tap "an empty list has no leaks" lost 0 < <(printf '%s\n' '#leaks' '#leaks-end' 'unreferenced object')
tap_end
