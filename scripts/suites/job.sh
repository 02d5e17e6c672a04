#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests of the LAVA job: it has all suites, and lava.py reports each test to LAVA. The tests use
# fake programs in place of a lab.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

lab=$tap_dir/lab
mkdir -p "$lab/scripts/tests" "$lab/build/bin" "$tap_dir/bin"
cp -r "$TOP"/scripts/{guest,lib} "$lab/scripts/"
cp "$TOP/scripts/tests/job.py" "$lab/scripts/tests/"
echo kernel >"$lab/bzImage"
touch "$lab/build/bin/collapse_file"

job() { "$lab/scripts/tests/job.py" --kernel "$lab/bzImage" "$@"; }
written() { grep -qF -- "$1" "$lab/build/job/$2"; }
each_suite() {
	local name
	[ "$(wc -l <<<"$suites")" -gt 10 ] || return 1
	for name in $suites; do
		written "- /opt/collapse_file/scripts/guest/lava.py $name" "$1" || { echo "$name"; return 1; }
	done
}
packed() { tar -tf "$lab/build/job/collapse_file-tests.tar.xz" | grep -x "opt/collapse_file/$1"; }
yaml_is_valid() { python3 -c 'import sys, yaml; [yaml.safe_load(open(path)) for path in sys.argv[1:]]' "$lab"/build/job/*.yaml; }
job_is_valid() {
	python3 -c 'import sys, yaml, lava_common.schemas as lava; lava.validate(yaml.safe_load(open(sys.argv[1])), strict=True)' \
		"$lab/build/job/job.yaml"
}
again_the_same() {
	cp -r "$lab/build/job" "$tap_dir/first" && job --rootfs file:///rootfs.ext4.xz --url http://lab && diff -r "$tap_dir/first" "$lab/build/job"
}

suites=$("$TOP/scripts/guest/tests.sh" -l | cut -d ' ' -f 1)
tap "a job is written" job --rootfs file:///rootfs.ext4.xz --url http://lab
tap "with each suite" each_suite job.yaml
tap "so is a definition of the tests" each_suite tests.yaml
tap "the job has the URL of the files" written 'url: http://lab/collapse_file-tests.tar.xz' job.yaml
tap "the tests are packed" packed build/bin/collapse_file
tap "with the program that runs them" packed scripts/guest/lava.py
tap "a second run gives the same files" again_the_same
if python3 -c 'import yaml' 2>/dev/null; then
	tap "it is YAML" yaml_is_valid
else
	skip "it is YAML" "python3 has no module yaml"
fi
if python3 -c 'import yaml, lava_common.schemas' 2>/dev/null; then
	tap "it is a valid job for LAVA" job_is_valid
else
	skip "it is a valid job for LAVA" "python3 has no module lava_common"
fi
tap "tuxrun's command is printed" fails 0 '^tuxrun --device .* -- /opt/collapse_file/scripts/guest/lava.py sysfs$' job --rootfs x sysfs
tap "no root file system" fails 2 '^error: ROOTFS is empty; run make job ROOTFS=URL' make -C "$TOP" job
tap "no such suite" fails 1 '^error: unknown suite .none-such.; choose from sysfs, ' job --rootfs x none-such
tap "no kernel" fails 1 '^error: a file is missing .*; run .make job' "$lab/scripts/tests/job.py" --kernel "$lab/none" --rootfs x
tap "wrong arguments" fails 2 '^usage: job.py' job --wrong

# Fake programs of a lab's machine, and suites that fail.
for program in lava-test-case lava-test-set; do
	printf '#!/bin/sh\necho "%s: $*"\n' "$program" >"$tap_dir/bin/$program"
done
# shellcheck disable=SC2016
printf '#!/bin/sh\n[ "$1" != --find ] || basename "$3"\n' >"$tap_dir/bin/losetup"
printf '#!/bin/sh\n' >"$tap_dir/bin/swapoff"
# The second line of the kernel's log appears only after the tests have begun.
cat >"$tap_dir/bin/dmesg" <<'EOT'
#!/bin/sh
echo '[    1.000000] WARNING: of the boot'
[ ! -e "$WORK/begun" ] || echo "[   12.345678] $SAID"
rm -f "$WORK/begun"
EOT
cat >"$lab/scripts/guest/tests.sh" <<'EOT'
#!/bin/bash
echo "$DISKS; $*"
touch "$WORK/begun"
printf '%s\n' '#suite a rust' 'ok 1 fine (or so)' 'not ok 2 bad' 'ok 3 left out # SKIP no swap' '#end a rust 1'
printf '%s\n' '#suite b c' 'ok 1 fine' "#end b c $STATUS" '#leaks' "$LEAK" '#leaks-end'
EOT
chmod +x "$tap_dir"/bin/*
ends=0 leak='' said='XFS (loop1): Mounting V5 Filesystem'
machine() { env PATH="$tap_dir/bin:$PATH" WORK="$tap_dir" STATUS="$ends" LEAK="$leak" SAID="$said" "$lab/scripts/guest/lava.py" a b; }
tap "lava.py fails if a test fails" fails 1 '^2 passed, 1 failed, 1 skipped$' machine
tap "it runs the given suites on its own disks" fails 1 '^ext4.img xfs.img swap.img xfs-small-blocks.img; a b$' machine
tap "a set for each suite" fails 1 '^lava-test-set: start a-rust$' machine
tap "a passed test" fails 1 '^lava-test-case: fine-or-so --result pass$' machine
tap "a failed test" fails 1 '^lava-test-case: bad --result fail$' machine
tap "a skipped test" fails 1 '^lava-test-case: left-out --result skip$' machine
tap "no leak" fails 1 '^lava-test-case: nothing-is-lost --result pass$' machine
tap "no report of the kernel" fails 1 '^lava-test-case: kernel-complains-of-nothing --result pass$' machine
said='BUG: sleeping function called from invalid context'
tap "a report of the kernel" fails 1 '^lava-test-case: kernel-complains-of-nothing --result fail$' machine
tap "with its text" fails 1 'complained: .* BUG: sleeping function called from invalid context$' machine
said=
leak='unreferenced object 0x1'
tap "a leak" fails 1 '^lava-test-case: nothing-is-lost --result fail$' machine
leak='' ends=124
tap "a suite at its time limit" fails 1 '^lava-test-case: exited-with-status-124-which-is-its-time-limit --result fail$' machine
tap "no directory for disks" fails 1 '^error: .*none' env WORK="$tap_dir/none" "$lab/scripts/guest/lava.py"
tap_end
