"""Debian's Dovecot with a configuration of its own: LMTP into mailboxes, and passwords for a submission server.

    with running_dovecot() as dovecot:
        dovecot.port                    LMTP (STARTTLS offered), for the MAILBOXES at any domain
        dovecot.mail(message_id)
        dovecot.sasl                    where Postfix asks about USERNAME and PASSWORD, by AUTH LOGIN only

The mailbox FULL has no room left.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import daemon
from tests.fakes.daemon import Certificates, Receiver

DOVECOT = Path("/usr/sbin/dovecot")
LMTP = Path("/usr/lib/dovecot/lmtp")
USERNAME, PASSWORD = "app@sender.test", "pass w ord"
FULL = "full"
USER = "nobody"


@dataclass
class Dovecot(Receiver):
    sasl: tuple[str, int] = ("", 0)


@contextlib.contextmanager
def running_dovecot() -> Iterator[Dovecot]:
    daemon.need_root()
    daemon.need(DOVECOT, LMTP)
    with daemon.home("dovecot") as home:
        shutil.chown(home / "mail", USER)
        certificates = Certificates.make(home / "tls", daemon.HOST, "lmtp.receiver.test")
        sasl = ("127.0.0.1", daemon.free_port())
        dovecot = Dovecot("dovecot", home, certificates, daemon.free_port(), 0, 0, sasl)
        people = [f"{name}:::::::" for name in daemon.MAILBOXES]
        people.append(f"{FULL}:::::::userdb_quota_rule=*:bytes=10")
        (home / "people").write_text("\n".join(people) + "\n")
        (home / "passwords").write_text(f"{USERNAME}:{{PLAIN}}{PASSWORD}\n")
        for name in ("people", "passwords"):
            (home / name).chmod(0o644)
        (home / "dovecot.conf").write_text(
            _CONFIGURATION.format(home=home, user=USER, lmtp=dovecot.port, sasl=sasl[1], **vars(certificates))
        )
        start = [DOVECOT, "-F", "-c", home / "dovecot.conf"]
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
    port = {sasl}
  }}
}}
service stats {{
  process_min_avail = 0
}}
"""
