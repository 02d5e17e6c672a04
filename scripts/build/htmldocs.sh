#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Render the documents of the series with Sphinx. Fails if one of them has a warning.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"

[ $# -eq 0 ] || usage "htmldocs.sh"

out=$BUILD/htmldocs
log=$LOGS/htmldocs.log
mkdir -p "$out" "$LOGS"
: >"$log"
for dir in rust mm admin-guide/mm; do
	say "rendering Documentation/$dir"
	PATH=$(dirname "$SPHINX"):$PATH make -C "$BUILD/linux" O="$out" htmldocs SPHINXDIRS="$dir" </dev/null >>"$log" 2>&1 ||
		die "Sphinx failed; the whole log is ${log#"$TOP"/}"
done
# Each page has to be there: Sphinx leaves out a page that no index names.
for page in rust/page-cache mm/rust-collapse-file admin-guide/mm/rust-collapse-file; do
	html=$out/Documentation/output/$page.html
	[ -e "$html" ] || die "Documentation/$page.rst was not rendered: does an index.rst name it?"
	say "${html#"$TOP"/}"
done
if grep -E '/(page-cache|rust-collapse-file)\.rst:' "$log"; then
	die "Sphinx warned, see above; the whole log is ${log#"$TOP"/}"
fi
