"""Debian's Dovecot with a configuration of its own: LMTP into mailboxes, and passwords for a submission server.

    with running_dovecot() as dovecot:
        dovecot.port                    LMTP (STARTTLS offered), for the MAILBOXES at any domain
        dovecot.mail(message_id)
        dovecot.sasl                    where Postfix asks about USERNAME and PASSWORD, by AUTH LOGIN only

The mailbox FULL has no room left. With `polled=True` (IMAP and POP3 are fetched, not installed):

        dovecot.imap, .imaps, .pop3, .pop3s     STARTTLS or TLS; POLLED and PASSWORD
        dovecot.left(POLLED)                    the mails that lie in that mailbox
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import daemon
from tests.fakes.daemon import Certificates, Receiver
from tests.fakes.ports import free_port

DOVECOT = Path("/usr/sbin/dovecot")
LMTP = Path("/usr/lib/dovecot/lmtp")
USERNAME, PASSWORD = "app@sender.test", "pass w ord"
FULL = "full"
#: a mailbox that takes bounces+anything, as LMTP's recipient_delimiter says
POLLED = "bounces"
USER = "nobody"


@dataclass
class Dovecot(Receiver):
    sasl: tuple[str, int] = ("", 0)
    imap: int = 0
    imaps: int = 0
    pop3: int = 0
    pop3s: int = 0

    def left(self, mailbox: str) -> list[bytes]:
        folder = self.home / "mail" / mailbox
        return [p.read_bytes() for name in ("new", "cur") for p in sorted((folder / name).glob("*"))]


@contextlib.contextmanager
def running_dovecot(polled: bool = False) -> Iterator[Dovecot]:
    daemon.need_root()
    daemon.need(DOVECOT, LMTP)
    with daemon.home("dovecot") as home:
        shutil.chown(home / "mail", USER)
        certificates = Certificates.make(home / "tls", daemon.HOST, "lmtp.receiver.test")
        sasl = ("127.0.0.1", free_port())
        dovecot = Dovecot("dovecot", home, certificates, free_port(), 0, 0, sasl)
        people = [f"{name}:::::::" for name in daemon.MAILBOXES]
        people.append(f"{POLLED}:::::::")
        people.append(f"{FULL}:::::::userdb_quota_rule=*:bytes=10")
        (home / "people").write_text("\n".join(people) + "\n")
        (home / "passwords").write_text(f"{USERNAME}:{{PLAIN}}{PASSWORD}\n{POLLED}:{{PLAIN}}{PASSWORD}\n")
        for name in ("people", "passwords"):
            (home / name).chmod(0o644)
        configuration = _CONFIGURATION
        start: list[str | Path] = [DOVECOT, "-F", "-c", home / "dovecot.conf"]
        if polled:
            for name in ("imap", "imaps", "pop3", "pop3s"):
                setattr(dovecot, name, free_port())
            configuration += _POLLED
            start = [*daemon.installed(home, {}), *start]
        (home / "dovecot.conf").write_text(
            configuration.format(home=home, user=USER, lmtp=dovecot.port, dovecot=dovecot, **vars(certificates))
        )
        with daemon.running("dovecot", start, home, daemon.greets(dovecot.port)):
            yield dovecot


_CONFIGURATION = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log/mail
protocols = lmtp
ssl = yes
ssl_cert = <{chain}
ssl_key = <{key}
mail_location = maildir:{home}/mail/%n
mail_home = {home}/mail/%n
mail_uid = {user}
mail_gid = nogroup
first_valid_uid = 1
first_valid_gid = 1
mail_plugins = quota
plugin {{
  quota = maildir:User quota
}}
auth_mechanisms = login
passdb {{
  driver = passwd-file
  args = username_format=%u {home}/passwords
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {home}/people
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1, ::1
    port = {lmtp}
  }}
}}
service auth {{
  inet_listener sasl {{
    address = 127.0.0.1
    port = {dovecot.sasl[1]}
  }}
}}
# a wrong password is part of a test, not a reason to wait
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""

_POLLED = """\
protocols = lmtp imap pop3
auth_mechanisms = plain
recipient_delimiter = +
protocol lmtp {{
  mail_plugins = quota
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {dovecot.imap}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {dovecot.imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {dovecot.pop3}
  }}
  inet_listener pop3s {{
    address = 127.0.0.1
    port = {dovecot.pop3s}
    ssl = yes
  }}
}}
"""
