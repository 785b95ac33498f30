"""Debian's Exim with a configuration of its own: one mailbox for every domain below .test, nothing leaves the machine.

    with running_exim() as exim:
        exim.port, exim.clear_port, exim.mail(message_id)

`submission_port` takes mail after AUTH only (PLAIN or LOGIN, over TLS), for any recipient; USERNAME and PASSWORD.
`returns` (domain, port on loopback) adds `late_port`, which takes every recipient and only later finds out: unknown
ones bounce, those of next.test by the word of the next server, mail for delay.test waits for a server that is away, and
the reports about all of them go to that domain, at that port.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fakes import daemon
from tests.fakes.daemon import Certificates, Receiver
from tests.fakes.ports import free_port

USERNAME, PASSWORD = "app@sender.test", "päss:w ord"  # what a person may choose
USER = "nobody"


@dataclass
class Exim(Receiver):
    submission_port: int = 0
    #: takes every recipient below .test, and says later who is unknown
    late_port: int = 0


@contextlib.contextmanager
def running_exim(returns: tuple[str, int] | None = None) -> Iterator[Exim]:
    with daemon.home("exim") as home:
        command = daemon.installed(home, {})
        certificates = Certificates.make(home / "tls", daemon.HOST, "smtp.receiver.test")
        exim = Exim("exim", home, certificates, *(free_port() for _ in range(5)))
        for folder in ("spool", "log", "mail", "tls"):
            (home / folder).mkdir(exist_ok=True)
            shutil.chown(home / folder, USER)
        for key in (certificates.key, certificates.wrong_key):
            shutil.chown(key, USER)
        ports = (exim.port, exim.clear_port, exim.wrong_port, exim.submission_port, exim.late_port)
        (home / "exim.conf").write_text(
            _CONFIGURATION.format(
                home=home,
                host=daemon.HOST,
                user=USER,
                size=daemon.MAX_OCTETS,
                known=" : ".join(daemon.MAILBOXES),
                username=USERNAME,
                password=PASSWORD,
                port=exim.port,
                clear_port=exim.clear_port,
                wrong_port=exim.wrong_port,
                submission_port=exim.submission_port,
                late_port=exim.late_port,
                **_returning(exim, returns),
                **vars(certificates),
            )
        )
        (home / "exim.conf").chmod(0o644)
        start = [*command, "exim4", "-C", home / "exim.conf", "-bdf", "-q1s" if returns else "-q1h"]
        with daemon.running("exim", start, home, daemon.greets(*ports)):
            yield exim


def _returning(exim: Exim, returns: tuple[str, int] | None) -> dict[str, str]:
    """With `returns` the least that Exim waits before it tries again, and tells the sender."""
    if returns is None:
        return {"delay_warning": "24h", "retry": "1m", "routers": "", "transports": ""}
    known = " : !".join(daemon.MAILBOXES)
    return {
        "delay_warning": "1s",
        "retry": "1s",
        "routers": _ROUTERS.format(domain=returns[0], known=known, late_port=exim.late_port),
        "transports": _TRANSPORTS.format(back=returns[1], next=exim.port, dead=free_port()),
    }


_CONFIGURATION = """\
primary_hostname = {host}
exim_user = {user}
exim_group = nogroup
spool_directory = {home}/spool
log_file_path = {home}/log/%s
pid_file_path =
process_log_path = {home}/spool/process
timezone = UTC
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
daemon_smtp_ports = {port} : {clear_port} : {wrong_port} : {submission_port} : {late_port}
local_interfaces = <; 127.0.0.1 ; ::1
smtp_accept_max = 50
# as large as Postfix takes it
message_size_limit = {size}
smtputf8_advertise_hosts = *
tls_advertise_hosts = ${{if eq{{$received_port}}{{{clear_port}}}{{}}{{*}}}}
tls_certificate = ${{if eq{{$received_port}}{{{wrong_port}}}{{{wrong_chain}}}{{{chain}}}}}
tls_privatekey = ${{if eq{{$received_port}}{{{wrong_port}}}{{{wrong_key}}}{{{key}}}}}
auth_advertise_hosts = ${{if and{{{{eq{{$received_port}}{{{submission_port}}}}}{{def:tls_in_cipher}}}}{{*}}{{}}}}
acl_smtp_rcpt = recipient
acl_smtp_data = accept
prdr_enable = false
domainlist ours = *.test
# nothing leaves the machine, not even a bounce
ignore_bounce_errors_after = 0s
delay_warning = {delay_warning}

begin acl
recipient:
  accept  condition = ${{if eq{{$received_port}}{{{submission_port}}}}}
          authenticated = *
  deny    condition = ${{if eq{{$received_port}}{{{submission_port}}}}}
          message = 5.7.0 Authentication required
  deny    !domains = +ours
          message = 5.7.1 Relaying denied
  accept  condition = ${{if eq{{$received_port}}{{{late_port}}}}}
  deny    !local_parts = {known}
          message = 5.1.1 Unknown user
  defer   local_parts = grey
          !seen = 1h / key=${{sender_address}}_${{local_part}}@${{domain}}
          message = 4.2.0 Greylisted, try again later
  accept

begin routers
{routers}mailbox:
  driver = accept
  domains = +ours
  transport = maildir
refuse:
  driver = redirect
  allow_fail
  data = :fail: this server only receives

begin transports
{transports}maildir:
  driver = appendfile
  maildir_format
  directory = {home}/mail/all
  user = {user}
  group = nogroup
  create_directory
  delivery_date_add
  envelope_to_add
  return_path_add

begin retry
* * F,1h,{retry}

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{username}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{username}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
"""

_ROUTERS = """\
back:
  driver = manualroute
  domains = {domain}
  route_list = * 127.0.0.1
  self = send
  transport = back
next:
  driver = manualroute
  domains = next.test
  # from there it goes to the mailbox, if anywhere
  condition = ${{if eq{{$received_port}}{{{late_port}}}}}
  route_list = * 127.0.0.1
  self = send
  transport = next
delayed:
  driver = manualroute
  domains = delay.test
  route_list = * 127.0.0.1
  self = send
  transport = delayed
unknown:
  driver = redirect
  domains = +ours
  local_parts = !{known}
  allow_fail
  data = :fail: Unknown user
"""

_TRANSPORTS = """\
back:
  driver = smtp
  port = {back}
  allow_localhost
next:
  driver = smtp
  port = {next}
  allow_localhost
# nobody listens there
delayed:
  driver = smtp
  port = {dead}
  allow_localhost
"""
