#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run rustfmt, clippy, checkpatch --strict and shellcheck, and compile the Python files. Clippy
# checks the host tests here, and with them the abstractions and the algorithm. A kernel build runs
# it on all Rust code.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../series/series.sh"

[ $# -eq 0 ] || usage "lint.sh"

cd "$TOP"
linux=$BUILD/linux
failed=0

# files GLOB...: print the files that git tracks or could add, which excludes build/.
files() { git ls-files -co --exclude-standard -- "$@"; }

check() {
	local what=$1
	shift
	if "$@"; then
		say "$what: clean"
	else
		printf 'error: %s\n' "$what reported problems; fix them, see above" >&2
		failed=1
	fi
}

rustfmt_check() {
	files '*.rs' | xargs "$(dirname "$RUSTC")/rustfmt" --check --edition 2021 --config-path "$linux/.rustfmt.toml"
}

# cargo clippy runs the clippy-driver of PATH, which must have the compiler's version.
host_clippy() {
	(
		cd tools/testing/collapse_file
		PATH=$(dirname "$RUSTC"):$PATH KSRC=$linux RUSTC=$RUSTC CARGO_TARGET_DIR=$BUILD/host \
			cargo clippy --quiet --workspace --all-targets -- -D warnings
	)
}

checkpatch=(perl "$linux/scripts/checkpatch.pl" "--root=$linux" --strict --no-summary --terse --quiet)

# checkpatch ignores these types:
#   MISSING_SIGN_OFF  patches.sh signs the patches off
#   PARENTHESIS_ALIGNMENT  if a first line changes, the kernel's following lines stay the same
#   EMBEDDED_FILENAME  it takes the path in mm/Kconfig's "source" for the file's own name
#   COMMIT_LOG_LONG_LINE  the paths of some files are long; see messages_fit()
#   FILE_PATH_CHANGES  a later patch names the files in MAINTAINERS
#   UNKNOWN_COMMIT_ID  this repository does not have the kernel's history
#   MISSING_FIXES_TAG  the commit that added the fault is not known
#   UNCOMMENTED_DEFINITION  it takes a pointer to a lock for the definition of a lock
#   AVOID_BUG  test_xarray checks with XA_BUG_ON()
#   COMPLEX_MACRO, in files: a macro that defines a function
#   UNDOCUMENTED_SETUP, in files: the patch to kernel-parameters.txt documents it
#   CAMELCASE  EMe is the kernel's name; in files, PRIu64 is from C
#   SPLIT_STRING, in files: the messages of tools have several lines
# Its stderr complains about a script that needs Python modules, which may be missing.
checkpatch_patches() {
	local patch bad=0
	for patch in patches/*.patch; do
		# A patch that only adds files has no diff. checkpatch_files() checks those files.
		[ -n "$(patched_by "$patch")" ] || continue
		# The patch comes on stdin, because checkpatch takes a file in this repository for a source file.
		"${checkpatch[@]}" --ignore MISSING_SIGN_OFF,PARENTHESIS_ALIGNMENT,EMBEDDED_FILENAME,CAMELCASE,COMMIT_LOG_LONG_LINE,FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID,MISSING_FIXES_TAG,UNCOMMENTED_DEFINITION,AVOID_BUG \
			- <"$patch" 2>"$LOGS/lint.log" || { echo "in $patch"; bad=1; }
	done
	return "$bad"
}
# The host tests are left out. Their headers replace the kernel's and so break its rules for users
# of those headers, and rustfmt leaves long lines in tests.
checkpatch_files() {
	files '*.c' '*.h' '*.rs' '*.rst' Kconfig ':!tools/testing/collapse_file' | xargs "${checkpatch[@]}" --ignore UNDOCUMENTED_SETUP,COMPLEX_MACRO,CAMELCASE,SPLIT_STRING --file 2>>"$LOGS/lint.log"
}

# Check what COMMIT_LOG_LONG_LINE checks, but only in lines that are mailed and can be wrapped.
messages_fit() {
	awk 'FNR == 1 { message = 1 } /^---$/ { message = 0 }
		message && length > 75 && !/^(Subject|Overlay|Fixes): / { print FILENAME ":" FNR ": " $0; bad = 1 }
		END { exit bad }' patches/*.patch
}

# In the algorithm only the forbid line may contain "unsafe". The sample's macro needs the word.
no_unsafe() {
	[ "$(grep -c unsafe mm/collapse_file.rs)" -eq 1 ] && grep -qx '#!\[forbid(unsafe_code)\]' mm/collapse_file.rs &&
		! grep -nE '\bunsafe (\{|fn|impl|extern)' samples/rust/rust_page_cache_map.rs
}

spdx() {
	local file bad=0
	for file in $(files '*.rs' '*.c' '*.h' '*.sh' '*.py' '*.rst' '*.md' '*.toml' '*.config' '*.txt' '*.gitignore' .shellcheckrc \
		Makefile Kconfig .ci/run patches/checkpatch); do
		head -n 3 "$file" | grep -q SPDX-License-Identifier || { echo "$file: no SPDX line"; bad=1; }
	done
	return "$bad"
}

# Lists of tests and of operations may be longer. In Rust, the tests in a file do not count.
files_are_short() {
	local file lines bad=0
	for file in $(files '*.c' '*.h' '*.rs' '*.sh' '*.py' '*.md' '*.rst' Makefile \
		':!*/tests.rs' ':!*/tests/sequential.rs' ':!scripts/guest/sample_test.py' \
		':!tools/testing/selftests/mm/collapse_'{file,file_fs,file_promises,file_results,fuzz_ops}.c); do
		lines=$(awk '/^#\[macros::kunit_tests/ { exit } { lines++ } END { print lines + 0 }' "$file")
		[ "$lines" -le 500 ] || { echo "$file has $lines lines; split it (at most 500)"; bad=1; }
	done
	return "$bad"
}

# The code in the documentation must match the sample, line by line.
example_is_the_sample() {
	python3 - Documentation/rust/page-cache.rst samples/rust/rust_page_cache_map.rs <<-'PYTHON'
		import re
		import sys

		text, sample = (open(path).read() for path in sys.argv[1:])
		sample = "\n".join(line.lstrip() for line in sample.split("\n"))
		blocks = re.findall(r"^\.\. code-block:: rust\n\n((?:    .*\n|\n)+)", text, re.M)
		missing = [block for block in blocks
		           if "\n".join(line.lstrip() for line in block.strip().split("\n")) not in sample]
		print("\n".join(missing), end="")
		sys.exit(bool(missing) or not blocks)
	PYTHON
}

# The sample has no bindings for its header, so it repeats the numbers.
sample_has_the_headers_numbers() {
	diff <(sed -nE 's/^#define (PAGE_CACHE_MAP_\w+)\s+(0x\w+|[0-9]+)$/\1 \2/p' samples/rust/page_cache_map.h | sort) \
		<(sed -nE 's/^const (PAGE_CACHE_MAP_\w+): \w+ = (0x\w+|[0-9]+);$/\1 \2/p' samples/rust/rust_page_cache_map.rs | sort)
}

check rustfmt rustfmt_check
check "clippy (host tests)" host_clippy
check "checkpatch (patches)" checkpatch_patches
check "checkpatch (files)" checkpatch_files
check "messages of the patches" messages_fit
shellcheck_scripts() { files '*.sh' .ci/run | xargs shellcheck; }
python_compiles() { files '*.py' | xargs python3 -m py_compile; }

check shellcheck shellcheck_scripts
check python python_compiles
check "SPDX lines" spdx
check "files are short" files_are_short
check "every file belongs to a patch" overlay_is_whole
check "the documentation's example is the sample" example_is_the_sample
check "modules import from lower layers only" "$TOP/scripts/lint/layers.py"
check "the sample has the header's numbers" sample_has_the_headers_numbers
check "no unsafe in the algorithm and the sample" no_unsafe
check "words and line lengths of prose" "$TOP/scripts/lint/prose.py"
check "documents agree with the sources" "$TOP/scripts/lint/facts.py"
exit $failed
