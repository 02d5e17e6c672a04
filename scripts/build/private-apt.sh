# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Fetch packages of a suite that this machine's apt need not have configured. The mirror is that of
# this machine's apt, and apt checks the signatures. Lists and cache are private, and the machine's
# configuration does not change. Scripts source this file after lib.sh.

# Prepare a directory below DIR, which is removed when the shell exits. Sets $apt to its path, and
# ${options[@]} to the options with which apt-get uses it.
#   private_apt DIR SUITE ARCHITECTURE HOW-TO-FIX
private_apt() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror
	command -v apt-get >/dev/null || die "a tool is missing (apt-get), so packages cannot be fetched; $4"
	[ -r "$keyring" ] || die "a keyring is missing ($keyring); install the package debian-archive-keyring, or $4"
	# Without downloaded lists the machine does not know the origin. The address is checked then.
	# shellcheck disable=SC2016
	mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(CODENAME)' |
		awk -F'|' '$1 !~ /security/ && ($2 == "Debian" || ($2 == "" && $1 ~ /\/debian\/?$/)) { print $1; exit }')
	[ -n "$mirror" ] || die "apt's configuration has no Debian mirror; add one, or $4"

	apt=$(mktemp -d "$1/apt.XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$apt'" EXIT
	mkdir -p "$apt/lists/partial" "$apt/archives/partial"
	echo "deb [signed-by=$keyring] $mirror $2 main" >"$apt/sources.list"
	options=(-o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" -o APT::Sandbox::User=root
		-o Acquire::Languages=none -o Acquire::Retries=3
		-o APT::Architecture="$3" -o APT::Architectures="$3")
}
