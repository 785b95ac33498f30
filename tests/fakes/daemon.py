"""What every real daemon under test needs: a home that its users may enter, ports of the kernel, an end by pid.

The mail servers here start as root and work as users of their own, so their home is no folder of pytest's (closed to
others) but one of mkdtemp, opened for passing through, and removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
import trustme

#: the certificates' name, and that of the MX host in the tests' DNS
HOST = "mx.receiver.test"
#: what the servers take at most, in octets; each announces it as SIZE
MAX_OCTETS = 200_000
#: local parts that the servers know, in every domain below .test; `grey` is refused once per triplet
MAILBOXES = ("anna", "grey", "größe")
#: where fetch_receivers.sh lays down the servers that cannot be installed side by side
FETCHED = Path(__file__).parents[2] / "var" / "receivers"

#: bounds of a failure, not of a machine that is busy
START_S = 120.0
#: nothing of a test's mail is worth waiting for (Dovecot takes 6 s to part)
STOP_S = 2.0
KILLED_S = 0.3
ARRIVE_S = 120.0


def missing(why: str) -> NoReturn:
    """Skip; where everything is required (and possible: as root), fail."""
    if os.environ.get("REQUIRE_ALL") == "1" and os.geteuid() == 0:
        pytest.fail(f"REQUIRE_ALL=1, and {why}")
    pytest.skip(why)


def need_root() -> None:
    if os.geteuid() != 0:
        missing("this mail server starts as root only")


def need(*programs: str | Path) -> None:
    for program in programs:
        if not os.access(program, os.X_OK):
            missing(f"there is no {program}")


@dataclass(frozen=True)
class Certificates:
    """Files that any user may read; `wrong` is for another host, by the same authority."""

    ca: Path
    chain: Path
    key: Path
    wrong_chain: Path
    wrong_key: Path

    @classmethod
    def make(cls, folder: Path, *names: str) -> Certificates:
        folder.mkdir()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        for word, certificate in (
            ("", authority.issue_cert(*names)),
            ("wrong-", authority.issue_cert("other.receiver.test")),
        ):
            # with the authority itself: what DANE-TA goes by (RFC 7672 §3.1.2)
            chain = b"".join(c.bytes() for c in (*certificate.cert_chain_pems, authority.cert_pem))
            (folder / f"{word}chain.pem").write_bytes(chain)
            certificate.private_key_pem.write_to_path(folder / f"{word}key.pem")
            (folder / f"{word}key.pem").chmod(0o600)
        return cls(*(folder / f"{f}.pem" for f in ("ca", "chain", "key", "wrong-chain", "wrong-key")))


@dataclass
class Receiver:
    """A mail server that runs. On both loopbacks: `port` offers STARTTLS, `clear_port` does not, `wrong_port` offers
    it with a certificate for another host."""

    name: str
    home: Path
    certificates: Certificates
    port: int
    clear_port: int
    wrong_port: int
    smtputf8: bool = field(default=True, kw_only=True)  #: RFC 6531
    handshakes: bool = field(default=True, kw_only=True)  #: whether its STARTTLS ever comes to an end

    def mail(self, message_id: str) -> bytes:
        """The one mail with this Message-ID, as it lies in the mailbox; waits until it has come."""
        end = time.monotonic() + ARRIVE_S
        while not (found := self.mails(message_id)):
            assert time.monotonic() < end, f"{self.name} took it and delivered nothing\n{self.log()}"
            time.sleep(0.02)
        assert len(found) == 1
        return found[0]

    def mails(self, message_id: str) -> list[bytes]:
        wanted = message_id.encode()
        contents = [p.read_bytes() for p in sorted((self.home / "mail").glob("**/new/*"))]
        return [c for c in contents if wanted in c.partition(b"\n\n")[0].replace(b"\r\n", b"\n")]

    def log(self) -> str:
        return _said(self.home)


@contextlib.contextmanager
def home(name: str) -> Iterator[Path]:
    """A folder for configuration, spool, mailboxes and logs, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"mailapi-{name}-"))
    folder.chmod(0o755)
    (folder / "log").mkdir()
    (folder / "mail").mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def running(name: str, command: Sequence[str | Path], folder: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """The daemon in the foreground and in a session of its own; at the end the session ends, whoever is in it."""
    with (folder / "log" / "output").open("wb") as out:
        # a test run that is killed takes the daemon along
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *map(str, command)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=folder,
        )  # fmt: skip
        try:
            end = time.monotonic() + START_S
            while not ready():
                said = _said(folder)
                assert daemon.poll() is None, f"{name} ended at once ({daemon.returncode}):\n{said}"
                assert time.monotonic() < end, f"{name} does not answer:\n{said}"
                time.sleep(0.02)
            yield
        finally:
            _end(daemon)


def _said(folder: Path) -> str:
    return "".join(p.read_text(errors="replace")[-4000:] for p in sorted((folder / "log").iterdir()))


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.wait(STOP_S)
    # whoever did not follow is in its session still, under its number
    end = time.monotonic() + KILLED_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:  # a dead one counts until somebody has asked for its end
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.poll()
            time.sleep(0.02)
    daemon.wait()


def greets(*ports: int) -> Callable[[], bool]:
    """Whether every port says 220 on both loopbacks."""

    def ready() -> bool:
        try:
            for port in ports:
                for address in ("127.0.0.1", "::1"):
                    with socket.create_connection((address, port), 5) as connection:
                        if not connection.recv(4).startswith(b"220"):
                            return False
        except OSError:
            return False
        return True

    return ready


# --- servers that are not installed, only fetched ---------------------------------------------------------------

#: users that their packages would have made; the numbers are of no account on this machine
USERS = {"Debian-exim": 64_901, "opensmtpd": 64_902, "opensmtpq": 64_903}


def installed(home: Path, mounts: dict[str, Path]) -> list[str]:
    """The beginning of a command that runs as if the fetched packages were installed, for this process tree alone.

    A mount namespace of its own: `var/receivers/usr` lies over /usr, the packages' users stand in /etc/passwd, and
    each of `mounts` (place → folder) is hidden behind a folder of the test. Names are asked of nobody: the address of
    a connection is no reason to talk to the machine's nameserver.
    """
    need_root()
    if not (FETCHED / "complete").exists():
        missing("var/receivers is not there: tests/e2e/fetch_receivers.sh fetches it")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        missing("this machine gives no mount namespaces")
    place = home / "machine"
    place.mkdir()
    users = "".join(f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n" for name, number in USERS.items())
    groups = "".join(f"{name}:x:{number}:\n" for name, number in USERS.items())
    (place / "passwd").write_text(Path("/etc/passwd").read_text() + users)
    (place / "group").write_text(Path("/etc/group").read_text() + groups)
    (place / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    lines = [f"mount --bind {place}/{name} /etc/{name}" for name in ("passwd", "group", "resolv.conf")]
    lines += [f"mount --bind {folder} {where}" for where, folder in mounts.items()]
    lines += [f"mount -t overlay -o ro,lowerdir={FETCHED}/usr:/usr overlay /usr", 'exec "$@"']
    return ["unshare", "--mount", "sh", "-ec", "\n".join(lines), "sh"]
