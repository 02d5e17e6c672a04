#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# checkpatch --strict, of the kernel tree TREE, on the series in build/patches. What it
# says has to be explained in patches/checkpatch; how often each explanation was
# needed is told.
#
#   checkpatch.sh TREE

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -eq 1 ] && [ -f "${1:-}/scripts/checkpatch.pl" ] || usage "checkpatch.sh KERNEL-TREE"
tree=$(cd "$1" && pwd)
compgen -G "$BUILD/patches/*.patch" >/dev/null || die "build/patches has no patches: run 'make patches'"
cd "$BUILD/patches"

types=() globs=() reasons=() counts=()
while IFS='|' read -r type glob why; do
	types+=("${type// /}")
	glob=${glob# }
	globs+=("${glob% }")
	reasons+=("${why# }")
	counts+=(0)
done < <(grep -v '^#' "$TOP/patches/checkpatch")

# Which explanation there is for TYPE in a patch with SUBJECT?
explanation() {
	local i
	for i in "${!types[@]}"; do
		# shellcheck disable=SC2053
		if [ "${types[i]}" = "$1" ] && [[ $2 == ${globs[i]} ]]; then
			echo "$i"
			return
		fi
	done
	return 1
}

bad=0
for patch in *.patch; do
	[[ $patch != *0000-cover-letter.patch ]] || continue
	subject=$(git mailinfo /dev/null /dev/null <"$patch" | sed -n 's/^Subject: //p')
	while read -r line; do
		type=$(sed -nE 's/.*: (ERROR|WARNING|CHECK):([A-Z_]+): .*/\2/p' <<<"$line")
		if i=$(explanation "$type" "$subject"); then
			counts[i]=$((counts[i] + 1))
		else
			echo "$line"
			bad=1
		fi
		# Its standard error is about a script that wants Python modules not everybody has.
	done < <(perl "$tree/scripts/checkpatch.pl" "--root=$tree" --strict --no-summary --terse --show-types "$patch" 2>/dev/null |
		grep -E ': (ERROR|WARNING|CHECK):')
done
for i in "${!types[@]}"; do
	[ "${counts[i]}" -eq 0 ] || echo "    ${types[i]} (${counts[i]}): ${reasons[i]}"
done
[ $bad -eq 0 ] || die "checkpatch has something to say of the series, see above: mend it, or explain it in patches/checkpatch"
say "checkpatch --strict: clean, but for what is explained above"
