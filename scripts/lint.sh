#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# rustfmt, checkpatch --strict, shellcheck, and for Python a compile. Clippy has had
# its say when the kernel was built: warnings are errors there.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/series.sh"

[ $# -eq 0 ] || usage "lint.sh"

cd "$TOP"
linux=$BUILD/linux
failed=0

# The files that git has or would take, so that nothing under build/ counts.
files() { git ls-files -co --exclude-standard -- "$@"; }

check() {
	local what=$1
	shift
	if "$@"; then
		say "$what: clean"
	else
		printf 'error: %s\n' "$what has something to say, see above" >&2
		failed=1
	fi
}

rustfmt_check() {
	files '*.rs' | xargs "$(dirname "$RUSTC")/rustfmt" --check --edition 2021 --config-path "$linux/.rustfmt.toml"
}

checkpatch=(perl "$linux/scripts/checkpatch.pl" "--root=$linux" --strict --no-summary --terse --quiet)

# Not used on the patches:
#   MISSING_SIGN_OFF, FROM_SIGN_OFF_MISMATCH  to sign off is for who mails them
#   PARENTHESIS_ALIGNMENT  a changed first line leaves the kernel's other lines as they are
#   EMBEDDED_FILENAME  it takes the path in mm/Kconfig's "source" for the file's own name
#   COMMIT_LOG_LONG_LINE  the paths of some files are long; see messages_fit()
#   FILE_PATH_CHANGES  the last patch names all files in MAINTAINERS
#   UNKNOWN_COMMIT_ID  there is no history of the kernel here
#   UNCOMMENTED_DEFINITION  a pointer to a lock is no definition of one
#   AVOID_BUG  XA_BUG_ON() is how test_xarray checks
#   COMPLEX_MACRO, in files: a macro that defines a function
#   UNDOCUMENTED_SETUP, in files: the patch to kernel-parameters.txt documents it
#   CAMELCASE  EMe is the kernel's name, and PRIu64 is C's, in files
#   SPLIT_STRING, in files: what a tool says to who uses it has lines of its own
# Its standard error is about a script that wants Python modules not everybody has.
checkpatch_patches() {
	local patch bad=0
	for patch in patches/*.patch; do
		# What brings only files along is no patch for checkpatch, which looks at the files below.
		[ -n "$(patched_by "$patch")" ] || continue
		# By its name it would be taken for a source file, as it is one of this repository.
		"${checkpatch[@]}" --ignore MISSING_SIGN_OFF,PARENTHESIS_ALIGNMENT,EMBEDDED_FILENAME,CAMELCASE,COMMIT_LOG_LONG_LINE,FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID,UNCOMMENTED_DEFINITION,AVOID_BUG \
			- <"$patch" 2>"$LOGS/lint.log" || { echo "in $patch"; bad=1; }
	done
	return "$bad"
}
# Not the host tests: their headers stand in for the kernel's and so break its rules for users of them,
# and rustfmt leaves long lines in tests.
checkpatch_files() {
	files '*.c' '*.h' '*.rs' '*.rst' Kconfig ':!tools/testing/collapse_file' | xargs "${checkpatch[@]}" --ignore UNDOCUMENTED_SETUP,COMPLEX_MACRO,CAMELCASE,SPLIT_STRING --file 2>>"$LOGS/lint.log"
}

# checkpatch's COMMIT_LOG_LONG_LINE, of the lines that are mailed and can be broken.
messages_fit() {
	awk 'FNR == 1 { message = 1 } /^---$/ { message = 0 }
		message && length > 75 && !/^(Subject|Overlay|Fixes): / { print FILENAME ":" FNR ": " $0; bad = 1 }
		END { exit bad }' patches/*.patch
}

# Only the forbid line may speak of unsafe code; the sample's macro brings its own.
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

# The code in the documentation is that of the sample, line by line.
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
check "checkpatch (patches)" checkpatch_patches
check "checkpatch (files)" checkpatch_files
check "messages of the patches" messages_fit
shellcheck_scripts() { files '*.sh' .ci/run | xargs shellcheck; }
python_compiles() { files '*.py' | xargs python3 -m py_compile; }

check shellcheck shellcheck_scripts
check python python_compiles
check "SPDX lines" spdx
check "every file belongs to a patch" overlay_is_whole
check "the documentation's example is the sample" example_is_the_sample
check "modules import from lower layers only" "$TOP/scripts/layers.py"
check "the sample has the header's numbers" sample_has_the_headers_numbers
check "no unsafe in the algorithm and the sample" no_unsafe
exit $failed
