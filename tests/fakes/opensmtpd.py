"""Debian's OpenSMTPD with a configuration of its own: one mailbox for every domain below .test, nothing leaves the
machine.

    with running_opensmtpd() as opensmtpd:
        opensmtpd.port, opensmtpd.clear_port, opensmtpd.mail(message_id)

Debian 12 builds 6.8 against OpenSSL 3, with which it offers STARTTLS and breaks off every handshake
(OpenSMTPD issue 1239). Servers like that are in the world, so this one is welcome as it is.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from tests.fakes import daemon
from tests.fakes.daemon import Certificates, Receiver
from tests.fakes.ports import free_port

USER = "nobody"


@contextlib.contextmanager
def running_opensmtpd() -> Iterator[Receiver]:
    with daemon.home("opensmtpd") as home:
        for folder in ("spool", "lib", "run", "lib/opensmtpd", "lib/opensmtpd/empty", "seen"):
            (home / folder).mkdir()
        mounts = {"/var/spool": home / "spool", "/var/lib": home / "lib", "/run": home / "run"}
        command = daemon.installed(home, mounts)
        (home / "spool" / "smtpd").mkdir(mode=0o711)
        shutil.chown(home / "mail", USER)
        (home / "seen").chmod(0o777)
        certificates = Certificates.make(home / "tls", daemon.HOST)
        ports = [free_port() for _ in range(3)]
        opensmtpd = Receiver("opensmtpd", home, certificates, *ports, smtputf8=False, handshakes=False)
        (home / "greylist.sh").write_text(_GREYLIST)
        (home / "greylist.sh").chmod(0o755)
        listeners = [
            f"listen on {address} port {port} {tls} filter greylist hostname {daemon.HOST}"
            for address in ("127.0.0.1", "::1")
            for port, tls in (
                (opensmtpd.port, "tls pki good"),
                (opensmtpd.clear_port, ""),
                (opensmtpd.wrong_port, "tls pki wrong"),
            )
        ]
        # it does not know SMTPUTF8 (RFC 6531), so nobody can write to the others
        known = [name for name in daemon.MAILBOXES if name.isascii()]
        (home / "mailboxes").write_text("".join(f"{name} {USER}\n" for name in known))
        (home / "addresses").write_text("".join(f"{name}@*.test\n" for name in known))
        (home / "smtpd.conf").write_text(
            _CONFIGURATION.format(
                home=home, size=daemon.MAX_OCTETS, listeners="\n".join(listeners), **vars(certificates)
            )
        )
        (home / "smtpd.conf").chmod(0o644)
        start = [*command, "smtpd", "-d", "-f", home / "smtpd.conf"]
        with daemon.running("opensmtpd", start, home, daemon.greets(*ports)):
            yield opensmtpd


_CONFIGURATION = """\
pki good cert "{chain}"
pki good key "{key}"
pki wrong cert "{wrong_chain}"
pki wrong key "{wrong_key}"
table mailboxes file:{home}/mailboxes
table addresses file:{home}/addresses
smtp max-message-size {size}
filter greylist proc-exec "{home}/greylist.sh {home}/seen"
{listeners}
action "store" maildir "{home}/mail/all" virtual <mailboxes>
match from any for rcpt-to <addresses> action "store"
"""

#: smtpd-filters(7): a triplet is refused once; the reverse-path of a session waits in a file for its recipient
_GREYLIST = r"""#!/bin/sh
while IFS='|' read -r kind version _ _ phase session token argument; do
  if [ "$kind" = config ]; then
    if [ "$version" = ready ]; then
      echo 'register|filter|smtp-in|mail-from'
      echo 'register|filter|smtp-in|rcpt-to'
      echo 'register|ready'
    fi
    continue
  fi
  answer=proceed
  case "$phase|$argument" in
    mail-from*) printf '%s' "$argument" | tr -dc 'a-z0-9' > "$1/$session" ;;
    'rcpt-to|grey@'* | 'rcpt-to|<grey@'*)
      read -r sender < "$1/$session" || :
      mkdir "$1/$sender-$(printf '%s' "$argument" | tr -dc 'a-z0-9')" 2>/dev/null &&
        answer='reject|450 4.2.0 Greylisted, try again later' ;;
  esac
  echo "filter-result|$session|$token|$answer"
done
"""
