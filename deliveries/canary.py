"""A canary: one mail by HTTPS to a mailbox that it reads, as an application and its customer would see it.

    post   the API takes it                  → seconds to the 2xx
    wait   the mailbox has it (IMAP, POP3)   → seconds from the post to its being there
           or the receiver lab's spool, in a trial

It stands outside: it knows the URL, a key and a mailbox, and neither database nor broker. The mailbox is its own; of
what lies there it takes away canary mails alone, those of earlier runs that came late included.
"""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deliveries.bounces.mailbox import Account, Kind, Security, open_mailbox
from deliveries.errors import MailboxFailed, MailNotFetched
from deliveries.smtp.reply import clean

#: what its subjects begin with, and what follows: the token of one run
SUBJECT = "mailapi canary"
_SUBJECT = re.compile(rb"(?im)^subject:[ \t]*mailapi canary ([0-9a-f]{32})\r?$")
_POLL_S = 1.0
_ANSWER_OCTETS = 65_536

#: scheme of a mailbox → how it is reached, and the usual port
_WAYS = {
    "imaps": (Kind.IMAP, Security.IMPLICIT, 993), "imap": (Kind.IMAP, Security.STARTTLS, 143),
    "pop3s": (Kind.POP3, Security.IMPLICIT, 995), "pop3": (Kind.POP3, Security.STARTTLS, 110),
}  # fmt: skip


class State(IntEnum):
    """Exit codes of monitoring plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds from which on each is a warning; from `critical_s` on the mail counts as lost."""

    accept_s: float
    arrival_s: float
    critical_s: float


@dataclass(frozen=True, slots=True)
class Flight:
    """One run. Seconds are None for what did not happen; `late` counts mails of earlier runs that came meanwhile."""

    state: State
    words: str
    accept_s: float | None = None
    arrival_s: float | None = None
    late: int = 0
    ident: str = ""

    def line(self, bounds: Bounds) -> str:
        """As the guidelines of monitoring plugins want it: state, words, figures with their bounds."""
        figures = []
        if self.accept_s is not None:
            figures.append(f"accept={self.accept_s:.3f}s;{bounds.accept_s:g};{bounds.critical_s:g};0")
        if self.arrival_s is not None:
            figures.append(f"arrival={self.arrival_s:.3f}s;{bounds.arrival_s:g};{bounds.critical_s:g};0")
        return f"MAILAPI {self.state.name} - {self.words}" + (f" | {' '.join(figures)}" if figures else "")


#: what stands in the text file, so that alerts can be held against it
METRICS = {
    "mailapi_canary_ok": "1 where the last canary arrived in time.",
    "mailapi_canary_accept_seconds": "From the post to the 2xx.",
    "mailapi_canary_arrival_seconds": "From the post to the mailbox.",
    "mailapi_canary_run_timestamp_seconds": "When the last canary flew.",
}

#: tokens that have arrived; called again and again
Arrivals = Callable[[], set[str]]


def fly(post: Callable[[str], str], arrivals: Arrivals, bounds: Bounds) -> Flight:
    """Post a mail with a token and wait for it. `post` raises OSError or ValueError with words for a person."""
    token = uuid.uuid4().hex
    late: set[str] = set()
    try:
        late |= arrivals()  # that the mailbox can be read is known before the clock runs
    except (MailboxFailed, OSError) as e:
        return Flight(State.CRITICAL, f"the mailbox cannot be read: {clean(str(e))}")
    begun = time.monotonic()
    try:
        ident = post(token)
    except (OSError, ValueError) as e:
        return Flight(State.CRITICAL, f"not accepted: {clean(str(e))[:300]}", late=len(late))
    accept_s = time.monotonic() - begun
    trouble = ""
    while True:
        try:
            came, trouble = arrivals(), ""
            late |= came - {token}
            if token in came:
                break
        except (MailboxFailed, OSError) as e:  # the mail may well be there
            trouble = f"; the mailbox cannot be read: {clean(str(e))}"
        if time.monotonic() - begun >= bounds.critical_s:
            words = f"accepted in {accept_s:.3f} s as {ident}, not arrived after {bounds.critical_s:g} s{trouble}"
            return Flight(State.CRITICAL, words, accept_s, None, len(late), ident)
        time.sleep(_POLL_S)
    arrival_s = time.monotonic() - begun
    slow = accept_s >= bounds.accept_s or arrival_s >= bounds.arrival_s
    words = f"accepted in {accept_s:.3f} s, arrived after {arrival_s:.3f} s"
    if late:
        words += f", {len(late)} of earlier runs late"
    return Flight(State.WARNING if slow else State.OK, words, accept_s, arrival_s, len(late), ident)


def poster(url: str, key: str, sender: str, to: str, ca_file: str | None, timeout_s: float) -> Callable[[str], str]:
    """POST /emails at `url`; the mail's id. ValueError for an answer that is not 2xx, OSError where there is none."""
    context = ssl.create_default_context(cafile=ca_file) if url.startswith("https://") else None

    def post(token: str) -> str:
        mail = {"from": sender, "to": to, "subject": f"{SUBJECT} {token}", "text": "It flies.\n"}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Idempotency-Key": token}
        request = urllib.request.Request(f"{url}/emails", json.dumps(mail).encode(), headers)  # noqa: S310 – by the caller
        try:
            with urllib.request.urlopen(request, timeout=timeout_s, context=context) as answer:  # noqa: S310
                return str(json.loads(answer.read(_ANSWER_OCTETS))["id"])
        except urllib.error.HTTPError as e:
            raise ValueError(f"{e.code} {_message(e.read(_ANSWER_OCTETS))}") from None
        except (KeyError, TypeError, json.JSONDecodeError):
            raise ValueError("the answer is not one of ours") from None

    return post


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def account(text: str, password: str, ca_file: str | None) -> Account:
    """`imaps://user@host[:port][/folder]`; imap and pop3 ask for STARTTLS, in clear on this machine. ValueError."""
    parts = urlsplit(text)
    if parts.scheme not in _WAYS or not parts.hostname or not parts.username:
        raise ValueError(f"{text!r} is not like imaps://user@host (imap, imaps, pop3, pop3s)")
    if parts.password is not None:
        raise ValueError("the password does not belong on a command line; see CANARY_PASSWORD")
    kind, security, port = _WAYS[parts.scheme]
    return Account(
        kind, parts.hostname, parts.port or port, security, unquote(parts.username), password,
        folder=unquote(parts.path.strip("/")) or "INBOX", ca_file=ca_file, allow_private=True,
    )  # fmt: skip


def of_mailbox(box: Account) -> Arrivals:
    """Looks into it in a session of its own each time; canary mails are deleted, others stay and are looked at once."""
    seen: set[str] = set()

    def arrivals() -> set[str]:
        found = set()
        with open_mailbox(box) as session:
            for key in session.keys(seen):
                try:
                    octets = session.fetch(key)
                except MailNotFetched:
                    continue
                if token := _token(octets):
                    found.add(token)
                    session.acknowledge(key)
                else:
                    seen.add(key)
            session.finish()
        return found

    return arrivals


def of_spool(folder: Path) -> Arrivals:
    """The lab's, which keeps what it accepted."""
    seen: set[str] = set()

    def arrivals() -> set[str]:
        found = set()
        for path in sorted(folder.glob("*.eml")):
            if path.name not in seen:
                seen.add(path.name)
                if token := _token(path.read_bytes()):
                    found.add(token)
        return found

    # mails of earlier runs lie there for good: they are not late
    arrivals()
    return arrivals


def _token(octets: bytes) -> str:
    found = _SUBJECT.search(octets.partition(b"\r\n\r\n")[0])
    return found[1].decode() if found else ""


def textfile(flight: Flight, now: float) -> str:
    """For node_exporter's collector of text files."""
    values = {
        "mailapi_canary_ok": 0 if flight.state is State.CRITICAL else 1,
        "mailapi_canary_accept_seconds": flight.accept_s,
        "mailapi_canary_arrival_seconds": flight.arrival_s,
        "mailapi_canary_run_timestamp_seconds": round(now, 3),
    }
    lines = []
    for name, help_text in METRICS.items():
        if (value := values[name]) is not None:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", f"{name} {value}"]
    return "\n".join(lines) + "\n"
