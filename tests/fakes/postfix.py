"""Debian's Postfix with a configuration of its own: mailboxes for every domain below .test, nothing leaves the machine.

    with running_postfix() as postfix:
        postfix.port, postfix.clear_port, postfix.mail(message_id)

`sasl` (host, port of Dovecot's auth) adds a submission port that relays for nobody and takes mail after AUTH only.
`returns` (domain, port on loopback) adds `late_port`, which takes every recipient and only later finds out: unknown
ones bounce, mail for delay.test waits for a server that is away, and the reports about both go to that domain, there.
"""

from __future__ import annotations

import contextlib
import pwd
import re
import shutil
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import daemon
from tests.fakes.daemon import Certificates, Receiver
from tests.fakes.ports import free_port

MASTER = Path("/usr/lib/postfix/sbin/master")
_QUEUES = "active bounce corrupt defer deferred flush hold incoming private saved trace".split()


@dataclass
class Postfix(Receiver):
    submission_port: int = 0
    #: behind postscreen, which makes a stranger wait for its greeting and come a second time
    screened_port: int = 0
    #: takes every recipient below .test, and says later who is unknown
    late_port: int = 0


@contextlib.contextmanager
def running_postfix(sasl: tuple[str, int] | None = None, returns: tuple[str, int] | None = None) -> Iterator[Postfix]:
    daemon.need_root()
    daemon.need(MASTER)
    with daemon.home("postfix") as home, _greylist() as policy_port:
        postfix = Postfix(
            "postfix",
            home,
            Certificates.make(home / "tls", daemon.HOST, "smtp.receiver.test"),
            *(free_port() for _ in range(6)),
        )
        _lay_out(postfix, policy_port, sasl, returns)
        ports = [postfix.port, postfix.clear_port, postfix.wrong_port]
        if sasl:
            ports.append(postfix.submission_port)
        if returns:
            ports.append(postfix.late_port)
        with daemon.running("postfix", [MASTER, "-c", home / "etc", "-d"], home, daemon.greets(*ports)):
            yield postfix


def _lay_out(postfix: Postfix, policy_port: int, sasl: tuple[str, int] | None, returns: tuple[str, int] | None) -> None:
    home, owner = postfix.home, "postfix"
    for name, user, group, mode in (
        ("etc", None, None, 0o755),
        ("data", owner, None, 0o700),
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
    shutil.chown(home / "mail", owner)
    shutil.chown(home / "log", owner)
    # the C library's expressions know no letter above ASCII in this locale: any octet serves in its place
    known = "|".join(re.sub(r"[^ -~]", lambda m: "." * len(m[0].encode()), name) for name in daemon.MAILBOXES)
    (home / "etc" / "mailboxes").write_text(f"/^({known})@/ all/\n")
    (home / "etc" / "domains").write_text("/\\.test$/ ours\n")
    account = pwd.getpwnam(owner)
    (home / "etc" / "main.cf").write_text(
        _MAIN.format(
            home=home,
            host=daemon.HOST,
            uid=account.pw_uid,
            gid=account.pw_gid,
            size=daemon.MAX_OCTETS,
            policy=policy_port,
            sasl=f"smtpd_sasl_path = inet:{sasl[0]}:{sasl[1]}" if sasl else "",
            **vars(postfix.certificates),
        )
    )
    if returns:
        (home / "etc" / "transport").write_text(
            f"/@{re.escape(returns[0])}$/ smtp:[127.0.0.1]:{returns[1]}\n"
            f"/@delay\\.test$/ smtp:[127.0.0.1]:{free_port()}\n"  # nobody listens there
        )
        with (home / "etc" / "main.cf").open("a") as main:
            main.write(_RETURNS.format(home=home))
    (home / "etc" / "master.cf").write_text(
        "\n".join(
            [
                *_listener(postfix.port),
                *_listener(postfix.clear_port, smtpd_tls_security_level="none"),
                *_listener(
                    postfix.wrong_port,
                    smtpd_tls_chain_files=f"{postfix.certificates.wrong_key},{postfix.certificates.wrong_chain}",
                ),
                *(
                    _listener(
                        postfix.submission_port,
                        smtpd_sasl_auth_enable="yes",
                        smtpd_tls_auth_only="yes",
                        smtpd_client_restrictions="permit_sasl_authenticated,reject",
                    )
                    if sasl
                    else ()
                ),
                *(
                    _listener(
                        postfix.late_port,
                        smtpd_reject_unlisted_recipient="no",
                        smtpd_recipient_restrictions="reject_unauth_destination",
                    )
                    if returns
                    else ()
                ),
                f"127.0.0.1:{postfix.screened_port} inet n - n - 1 postscreen",
                _SERVICES,
            ]
        )
    )


def _listener(port: int, **options: str) -> list[str]:
    said = [f"  -o {name}={value}" for name, value in options.items()]
    lines = []
    for address in ("127.0.0.1", "[::1]"):
        lines += [f"{address}:{port} inet n - n - - smtpd", *said]
    return lines


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
myhostname = {host}
myorigin = $myhostname
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1, ::1
inet_protocols = ipv4, ipv6
alias_maps =
local_recipient_maps =
# nothing leaves the machine, not even a bounce
default_transport = error:this server only receives
relay_transport = error:this server only receives
notify_classes =
smtpd_peername_lookup = no
virtual_mailbox_domains = regexp:{home}/etc/domains
virtual_mailbox_maps = regexp:{home}/etc/mailboxes
virtual_mailbox_base = {home}/mail
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
message_size_limit = {size}
smtputf8_enable = yes
smtpd_error_sleep_time = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
    reject_unauth_destination, reject_unlisted_recipient, check_policy_service inet:127.0.0.1:{policy}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {key}, {chain}
smtpd_tls_session_cache_database =
tls_random_source = dev:/dev/urandom
postscreen_greet_wait = 1s
postscreen_greet_action = enforce
postscreen_pipelining_enable = yes
postscreen_pipelining_action = enforce
postscreen_non_smtp_command_enable = yes
postscreen_bare_newline_enable = yes
postscreen_bare_newline_action = enforce
smtpd_sasl_type = dovecot
{sasl}
smtpd_sasl_security_options = noanonymous
"""

#: the least that Postfix waits before it tries again, and tells the sender
_RETURNS = """\
transport_maps = regexp:{home}/etc/transport
delay_warning_time = 1s
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
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
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
smtp      unix  - - n - - smtp
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
smtpd     pass  - - n - - smtpd
dnsblog   unix  - - n - 0 dnsblog
tlsproxy  unix  - - n - 0 tlsproxy
postlog   unix-dgram n - n - 1 postlogd
"""


# --- greylisting, as a policy service says it (SMTPD_POLICY_README) ---------------------------------------------


class _Policy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Question)
        self.seen: set[tuple[str, str]] = set()


class _Question(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        asked: dict[str, str] = {}
        for raw in self.rfile:
            name, equals, value = raw.decode(errors="replace").rstrip("\n").partition("=")
            if equals:
                asked[name] = value
                continue
            self.wfile.write(f"action={self._action(asked)}\n\n".encode())
            asked = {}

    def _action(self, asked: dict[str, str]) -> str:
        server = self.server
        assert isinstance(server, _Policy)
        triplet = (asked.get("sender", ""), asked.get("recipient", ""))
        if not triplet[1].startswith("grey@") or triplet in server.seen:
            return "DUNNO"
        server.seen.add(triplet)
        return "450 4.2.0 Greylisted, try again later"


@contextlib.contextmanager
def _greylist() -> Iterator[int]:
    with _Policy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
