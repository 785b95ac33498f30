"""One plain sentence for where a delivery stands. Pure: values in, text out; never HTML.

Whatever the peer said stands between “ ” and is text from outside; who prints it must escape it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deliveries.states import Category, Status

#: longest piece of a peer's reply in a sentence; the whole of it stands below, with the attempt
_QUOTE = 160


@dataclass(frozen=True, slots=True)
class Standing:
    """What a sentence is made of. Times are aware; `tls` is empty when the session was in clear."""

    status: Status
    recipient: str
    host: str = ""
    category: str = ""
    reason: str = ""
    reply: str = ""
    tls: str = ""
    attempts: int = 0
    late: bool = False
    duplicate_possible: bool = False
    in_flight: bool = False
    created_at: datetime | None = None
    expires_at: datetime | None = None
    next_attempt_at: datetime | None = None
    settled_at: datetime | None = None
    complained_at: datetime | None = None
    #: why and until when its receiver is left alone; empty where it takes mail, None where a person must resume it
    rests_why: str = ""
    rests_until: datetime | None = None


#: what a refusal or a delay of that category means, after "mx.example.org"
_SAID: dict[str, str] = {
    Category.BAD_MAILBOX: "says that there is no such mailbox",
    Category.BAD_DOMAIN: "does not exist or takes no mail",
    Category.INACTIVE: "says that the mailbox is no longer in use",
    Category.MAILBOX_FULL: "says that the mailbox is full",
    Category.MESSAGE_TOO_LARGE: "says that the mail is too large",
    Category.CONTENT_SPAM: "took the mail for spam",
    Category.POLICY_AUTH: "refused us by its policy (SPF, DKIM, DMARC or reverse DNS)",
    Category.IP_REPUTATION: "distrusts our address",
    Category.RATE_LIMITED: "asked us to slow down",
    Category.GREYLISTED: "asked us to come back later (greylisting)",
    Category.RELAY_DENIED: "does not take mail for this domain",
    Category.DNS_ERROR: "gave no usable DNS answer",
    Category.NETWORK: "could not be reached, or the connection broke",
    Category.TLS: "did not offer the encryption that is required",
    Category.PROTOCOL: "broke the rules of SMTP, or refused a command",
    Category.UNKNOWN: "said no, in words that no rule knows",
}


def sentence(s: Standing, now: datetime) -> str:
    """Where it stands, since when, and what comes next."""
    text = _BY_STATUS[s.status](s, now)
    if s.rests_why:
        end = when(s.rests_until, now) if s.rests_until else "when a person resumes it"
        text += f" Nothing is sent there just now:{_quote(s.rests_why)}; goes on {end}."
    if s.complained_at:
        text += f" The recipient reported it as spam {when(s.complained_at, now)}."
    if s.duplicate_possible:
        text += " It may have arrived twice."
    return text


def when(moment: datetime | None, now: datetime) -> str:
    """`at 10:02:07` on the same day, `on Thu 26 Nov at 09:00` else; the year where it differs."""
    if moment is None:
        return "at an unknown time"
    moment = moment.astimezone(now.tzinfo)
    if moment.date() == now.date():
        return f"at {moment:%H:%M:%S}"
    year = f" {moment.year}" if moment.year != now.year else ""
    return f"on {moment:%a} {moment.day} {moment:%b}{year} at {moment:%H:%M}"


def _who(s: Standing) -> str:
    return s.host or s.recipient.rpartition("@")[2] or "The receiver"


def _did(s: Standing) -> str | None:
    if s.category == Category.NETWORK and s.reply[:3].isdigit():  # who answers was reached
        return "had trouble of its own"
    return _SAID.get(s.category)


def _quote(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > _QUOTE:
        text = text[:_QUOTE].rstrip() + "…"
    return f" “{text}”" if text else ""


def _scheduled(s: Standing, now: datetime) -> str:
    return f"Will be sent {when(s.next_attempt_at, now)}, as the sender asked."


def _queued(s: Standing, now: datetime) -> str:
    if s.in_flight:
        return "Is being sent right now."
    if s.next_attempt_at and s.next_attempt_at > now:
        return f"Waits; attempt {s.attempts + 1} {when(s.next_attempt_at, now)}."
    return f"Waits for its turn since {when(s.created_at, now).removeprefix('at ').removeprefix('on ')}."


def _deferred(s: Standing, now: datetime) -> str:
    if s.in_flight:
        return f"Is being tried again right now. Before, {_said(s)}."
    return f"{_said(s)}. {_next(s, now)}"


def _said(s: Standing) -> str:
    said = _did(s) or "did not take it"
    quote = _quote(s.reply or s.reason)
    return f"{_who(s)} {said}{':' + quote if quote else ''}"


def _next(s: Standing, now: datetime) -> str:
    if s.next_attempt_at is None:
        return "No further attempt is planned."
    again = "due now" if s.next_attempt_at <= now else when(s.next_attempt_at, now)
    end = f"; gives up {when(s.expires_at, now)}" if s.expires_at else ""
    return f"Attempt {s.attempts + 1} {again}{end}."


def _delivered(s: Standing, now: datetime) -> str:
    over = f" over {_tls(s.tls)}" if s.tls else " in clear (no TLS)" if s.attempts else ""
    quote = _quote(s.reply)
    return f"{_who(s)} accepted it {when(s.settled_at, now)}{over}{', saying' + quote if quote else ''}."


def _tls(words: str) -> str:
    """`TLSv1.3 TLS_AES_256_GCM_SHA384, verified` → `TLS 1.3 (certificate verified)`; the cipher stands below."""
    version = words.split(" ", 1)[0].replace("TLSv", "TLS ")
    return f"{version} (certificate verified)" if words.endswith(", verified") else version


def _bounced(s: Standing, now: datetime) -> str:
    said = _did(s) or "refused it"
    quote = _quote(s.reply or s.reason)
    if s.late:
        return (
            f"Accepted first, then returned {when(s.settled_at, now)}: {_who(s)} {said}{':' + quote if quote else ''}."
        )
    return f"{_who(s)} {said}, {when(s.settled_at, now)}{':' + quote if quote else ''}."


def _failed(s: Standing, now: datetime) -> str:
    return f"Could not be sent, {when(s.settled_at, now)}:{_quote(s.reason or s.reply) or ' no reason was recorded'}."


def _expired(s: Standing, now: datetime) -> str:
    tries = "1 attempt" if s.attempts == 1 else f"{s.attempts} attempts"
    last = f" The last answer of {_who(s)}:{_quote(s.reply)}." if s.reply else f"{_quote(s.reason)}" if s.reason else ""
    return f"Given up {when(s.settled_at or s.expires_at, now)} after {tries}.{last}"


def _suppressed(s: Standing, now: datetime) -> str:
    # it may have been taken off since
    return f"Not sent: {s.recipient} was on the suppression list.{_quote(s.reason)}"


def _canceled(s: Standing, now: datetime) -> str:
    why = f" {s.reason}" if s.reason else ""
    return f"Canceled {when(s.settled_at, now)}, and not sent any more.{why}"


def _held(s: Standing, now: datetime) -> str:
    return f"Held until a person releases it:{_quote(s.reason) or ' no reason was recorded'}."


def _unknown(s: Standing, now: datetime) -> str:
    lost = f"{_who(s)} gave no usable answer after the whole mail was sent: it may have arrived."
    if s.next_attempt_at is None:
        return f"{lost} It is not sent again, so that it does not arrive twice."
    return f"{lost} It is sent once more {when(s.next_attempt_at, now)}, with the same Message-ID."


_BY_STATUS = {
    Status.SCHEDULED: _scheduled,
    Status.QUEUED: _queued,
    Status.DEFERRED: _deferred,
    Status.DELIVERED: _delivered,
    Status.BOUNCED: _bounced,
    Status.FAILED: _failed,
    Status.EXPIRED: _expired,
    Status.SUPPRESSED: _suppressed,
    Status.CANCELED: _canceled,
    Status.HELD: _held,
    Status.UNKNOWN: _unknown,
}
