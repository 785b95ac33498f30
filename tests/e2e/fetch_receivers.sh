#!/usr/bin/env bash
# Lays Exim and OpenSMTPD, as Debian builds them, into var/receivers/: apt would let only one mail server be installed,
# and that is Postfix. Dovecot's IMAP and POP3 come along, so that no package of it opens a port by itself.
# Nothing of them is installed or started here; the tests do that.
set -euo pipefail
cd "$(dirname "$0")/../.."
into=var/receivers
packages=(exim4-daemon-light opensmtpd dovecot-imapd dovecot-pop3d)
[ "$(cat $into/complete 2>/dev/null)" = "${packages[*]}" ] && exit 0
# a machine whose package lists were cleared knows none of them
apt-get install -s --no-install-recommends "${packages[@]:0:1}" >/dev/null 2>&1 || apt-get update -qq
mkdir -p $into
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"  # apt downloads as a user of its own
# what each of them would bring along: libraries that are not here yet
needed=$(for package in "${packages[@]}"; do
  apt-get install -s --no-install-recommends "$package" | awk '/^Inst/ {print $2}'
done | sort -u)
[ -n "$needed" ] || { echo "apt knows none of: ${packages[*]}" >&2; exit 1; }
(cd "$work" && chmod 777 . && apt-get download -qq $needed)
for file in "$work"/*.deb; do
  dpkg-deb --extract "$file" $into
done
echo "${packages[*]}" >$into/complete
