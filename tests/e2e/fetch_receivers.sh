#!/usr/bin/env bash
# Lays Exim and OpenSMTPD, as Debian builds them, into var/receivers/: apt would let only one mail server be installed,
# and that is Postfix. Nothing of them is installed or started here; the tests do that.
set -euo pipefail
cd "$(dirname "$0")/../.."
into=var/receivers
[ -e $into/complete ] && exit 0
packages=(exim4-daemon-light opensmtpd)
mkdir -p $into
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"  # apt downloads as a user of its own
# what each of them would bring along: libraries that are not here yet
needed=$(for package in "${packages[@]}"; do
  apt-get install -s --no-install-recommends "$package" | awk '/^Inst/ {print $2}'
done | sort -u)
(cd "$work" && chmod 777 . && apt-get download -qq $needed)
for file in "$work"/*.deb; do
  dpkg-deb --extract "$file" $into
done
touch $into/complete
