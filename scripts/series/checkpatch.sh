#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run checkpatch --strict of the kernel tree TREE on build/patches, or on one posting in it.
# patches/checkpatch must explain each of its messages. The script prints how often each explanation
# was needed.
#
#   [SERIES=NAME] checkpatch.sh TREE

. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"

[ $# -eq 1 ] && [ -f "${1:-}/scripts/checkpatch.pl" ] || usage "checkpatch.sh KERNEL-TREE"
tree=$(cd "$1" && pwd)
compgen -G "$BUILD/patches/${SERIES:-*}/*.patch" >/dev/null || die "build/patches has no patches; run 'make patches'"
cd "$BUILD/patches"

types=() globs=() reasons=() counts=()
while IFS='|' read -r type glob why; do
	types+=("${type// /}")
	glob=${glob# }
	globs+=("${glob% }")
	reasons+=("${why# }")
	counts+=(0)
done < <(grep -v '^#' "$TOP/patches/checkpatch")

# Print the number of the explanation for TYPE in a patch with SUBJECT, or fail.
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
mapfile -t patches < <(compgen -G "${SERIES:-*}/*.patch")
for patch in "${patches[@]}"; do
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
		# Its stderr complains about a script that needs Python modules, which may be missing.
	done < <(perl "$tree/scripts/checkpatch.pl" "--root=$tree" --strict --no-summary --terse --show-types "$patch" 2>/dev/null |
		grep -E ': (ERROR|WARNING|CHECK):')
done
for i in "${!types[@]}"; do
	[ "${counts[i]}" -eq 0 ] || echo "    ${types[i]} (${counts[i]}): ${reasons[i]}"
done
[ $bad -eq 0 ] || die "checkpatch reported problems (see above); fix them, or explain them in patches/checkpatch"
say "checkpatch --strict: clean, except for the explained messages above"
