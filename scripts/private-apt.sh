# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Packages of a suite that this machine need not have configured. The mirror is the
# one this machine's apt already uses and apt checks the signatures, but with lists
# and a cache of our own: the machine's configuration stays as it is. To be sourced,
# after lib.sh.

# Prepare a directory below DIR, which goes when the shell does: $apt, and ${options[@]}
# for apt-get to use it.
#   private_apt DIR SUITE ARCHITECTURE WAY-OUT
private_apt() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror
	command -v apt-get >/dev/null || die "apt-get is not here, so packages cannot be fetched: $4"
	[ -r "$keyring" ] || die "$keyring is missing: install the package debian-archive-keyring, or $4"
	# A machine with fresh sources and no downloaded lists knows no origin yet: then
	# the address has to do.
	# shellcheck disable=SC2016
	mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(CODENAME)' |
		awk -F'|' '$1 !~ /security/ && ($2 == "Debian" || ($2 == "" && $1 ~ /\/debian\/?$/)) { print $1; exit }')
	[ -n "$mirror" ] || die "apt's configuration names no Debian mirror to fetch packages from: $4"

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
