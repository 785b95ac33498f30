"""Postfix and OpenDKIM from Debian, with configuration, queue and data in a folder of the run; fsync as by default.

Tuned: 10 transactions at a time to the sink from the first one, no connection cache, in_flow_delay = 0. Its transport
names the sink's address, because Postfix asks the resolver of the machine and not the benchmark's: that saves it the
look-ups that we make.

Four doors: plain, signed (through OpenDKIM), and both again for mail that is put on hold at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.parts import BULK, MASTER, WIRE, Guarded, answers, free_port, program, until

SENDER_DOMAIN = "bench.example"
_QUEUES = "active bounce corrupt defer deferred flush hold incoming private saved trace".split()

_MAIN = """\
compatibility_level = 3.6
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file_prefixes = {home}
maillog_file = {home}/log/mail
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.bench.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
relay_transport = error:this server only forwards to the sink
default_transport = smtp:[{bulk}]:{port}
transport_maps = inline:{{ {{wire.bench.test = smtp:[{wire}]:{port} }} }}
notify_classes =
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtp_tls_security_level = none
smtpd_tls_security_level = none
in_flow_delay = 0
initial_destination_concurrency = 10
smtp_destination_concurrency_limit = 10
smtp_connection_cache_on_demand = no
milter_default_action = tempfail
"""

_SERVICES = """\
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
showq     unix  n - n - - showq
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

_OPENDKIM = """\
Syslog no
Background no
Mode s
Canonicalization relaxed/relaxed
Domain {domain}
Selector bench
KeyFile {key}
RequireSafeKeys no
InternalHosts 127.0.0.0/8
Socket local:{home}/milter/opendkim.sock
UMask 000
UserID opendkim
PidFile {home}/opendkim.pid
"""


class Postfix:
    """`plain`, `signed`, `plain_held`, `signed_held` are ports; `release` lets go what is held."""

    def __init__(self, home: Path, sink_port: int) -> None:
        self.home = home
        self.plain, self.signed, self.plain_held, self.signed_held = (free_port() for _ in range(4))
        home.mkdir()
        home.chmod(0o755)
        self._lay_out(sink_port)
        self.opendkim = Guarded([program("opendkim"), "-f", "-x", home / "opendkim.conf"], home / "opendkim.log")
        until((home / "milter" / "opendkim.sock").exists, "opendkim")
        self.master = Guarded([MASTER, "-c", home / "etc", "-d"], home / "master.log")
        until(lambda: all(answers("127.0.0.1", p) for p in self.doors), "postfix")

    @property
    def doors(self) -> tuple[int, ...]:
        return self.plain, self.signed, self.plain_held, self.signed_held

    def pids(self, signed: bool) -> list[int]:
        return [self.master.process.pid, *([self.opendkim.process.pid] if signed else [])]

    def release(self) -> None:
        """All that is held becomes due now."""
        for command in (
            ["postsuper", "-c", self.home / "etc", "-H", "ALL"],
            ["postqueue", "-c", self.home / "etc", "-f"],
        ):
            subprocess.run(
                [program(str(command[0])), *map(str, command[1:])], check=True, capture_output=True, timeout=120
            )

    def empty(self) -> bool:
        return not any(
            files
            for queue in ("incoming", "active", "deferred", "hold")
            for _, _, files in os.walk(self.home / "queue" / queue)
        )

    def log(self) -> str:
        return (self.home / "log" / "mail").read_text(errors="replace")[-3000:]

    def end(self) -> None:
        self.master.end()
        self.opendkim.end()

    def _lay_out(self, sink_port: int) -> None:
        home, owner = self.home, "postfix"
        for name, user, group, mode in (
            ("etc", None, None, 0o755),
            ("log", owner, None, 0o755),
            ("data", owner, None, 0o700),
            ("milter", "opendkim", None, 0o755),
            ("queue", None, None, 0o755),
            ("queue/pid", None, None, 0o755),
            ("queue/public", owner, "postdrop", 0o710),
            ("queue/maildrop", owner, "postdrop", 0o730),
            *((f"queue/{queue}", owner, None, 0o700) for queue in _QUEUES),
        ):
            (home / name).mkdir()
            (home / name).chmod(mode)
            if user:
                shutil.chown(home / name, user, group)
        (home / "etc" / "main.cf").write_text(_MAIN.format(home=home, bulk=BULK, wire=WIRE, port=sink_port))
        sign = ["  -o", f"smtpd_milters=unix:{home}/milter/opendkim.sock"]
        hold = ["  -o", "smtpd_sender_restrictions=static:HOLD"]
        doors = [(self.plain, []), (self.signed, [sign]), (self.plain_held, [hold]), (self.signed_held, [sign, hold])]
        lines = [
            "\n".join([f"127.0.0.1:{port} inet n - n - - smtpd", *(" ".join(o) for o in options)])
            for port, options in doors
        ]
        (home / "etc" / "master.cf").write_text("\n".join([*lines, _SERVICES]))
        key = home / "bench.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        shutil.chown(key, "opendkim")
        key.chmod(0o600)
        text = _OPENDKIM.format(domain=SENDER_DOMAIN, key=key, home=home)
        (home / "opendkim.conf").write_text(text)
