"""The story of one message: who it went to, what was tried, what was said, who was told. Everything is bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Func, IntegerField, Q
from django.db.models.functions import Left, Length, Now

from deliveries.bounces.letter import read_letter
from deliveries.mime.address import folded
from deliveries.models import (
    Attachment,
    Attempt,
    Delivery,
    Event,
    Message,
    MessageContent,
    Queued,
    Suppression,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookTry,
)
from deliveries.read import archive
from deliveries.read.sentences import Standing, sentence
from deliveries.read.waits import Rest, rest_of, with_rests
from deliveries.states import EventType, Status

#: newest attempts shown with their transcripts (≤ 8 KB each)
MAX_ATTEMPTS = 60
MAX_EVENTS = 300
MAX_POSTS = 100
MAX_SUPPRESSIONS = 100
#: characters of the text part on the page
MAX_TEXT = 100_000

#: how an event reads in a timeline; None: the attempt beside it says it better
_EVENT_WORDS: dict[str, str] = {
    EventType.SCHEDULED: "Accepted, to be sent later",
    EventType.SENT: "Accepted by us",
    EventType.DELIVERY_DELAYED: "Delayed",
    EventType.DELIVERED: "Delivered",
    EventType.BOUNCED: "Bounced",
    EventType.FAILED: "Failed",
    EventType.SUPPRESSED: "Not sent: suppressed",
    EventType.COMPLAINED: "Reported as spam",
    EventType.OPENED: "Opened",
    EventType.CLICKED: "Link clicked",
    EventType.QUEUED: "Queued",
    EventType.EXPIRED: "Given up",
    EventType.CANCELED: "Canceled",
    EventType.UNSUBSCRIBED: "Unsubscribed",
    EventType.SUPPRESSION_ADDED: "Put on the suppression list",
    EventType.SUPPRESSION_REMOVED: "Taken off the suppression list",
}

_EVENT_TONE: dict[str, str] = {
    EventType.DELIVERED: "good",
    EventType.BOUNCED: "bad",
    EventType.FAILED: "bad",
    EventType.EXPIRED: "bad",
    EventType.COMPLAINED: "bad",
    EventType.DELIVERY_DELAYED: "wait",
    EventType.SUPPRESSED: "off",
    EventType.CANCELED: "off",
}

_LINE = re.compile(r"(\d+) ([CS*]): ?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the conversation: `who` is C (we), S (the server) or `*` (what happened beside the words)."""

    ms: str
    who: str
    text: str


@dataclass(frozen=True, slots=True)
class AttemptView:
    row: Attempt
    elapsed_ms: int
    reply: str
    lines: list[Line]

    @property
    def elapsed(self) -> str:
        return f"{self.elapsed_ms} ms" if self.elapsed_ms < 10_000 else f"{self.elapsed_ms / 1000:.1f} s"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One forward-path with its sentence. `verbs`: what an operator may do with it now."""

    row: Delivery
    sentence: str
    in_flight: bool
    verbs: tuple[str, ...]
    attempts: list[AttemptView]


@dataclass(frozen=True, slots=True)
class Moment:
    """An entry of the timeline. `tone`: good, bad, wait, off or empty."""

    at: datetime
    what: str
    recipient: str
    detail: str
    tone: str


@dataclass(frozen=True, slots=True)
class Post:
    """One event for one endpoint, with its tries."""

    row: WebhookDelivery
    url: str
    log: list[WebhookTry]


@dataclass(frozen=True, slots=True)
class File:
    id: UUID
    filename: str
    content_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Story:
    message: Message
    recipients: list[Recipient]
    timeline: list[Moment]
    posts: list[Post]
    files: list[File]
    headers: list[tuple[str, str]]
    has_html: bool
    text: str
    text_cut: bool
    attempts_cut: bool
    content_kept: bool  #: False once retention has dropped the content
    whole: bool  #: it came as a whole mail (raw MIME), whose own header fields stand in `headers`
    suppressed: list[Suppression]  #: what keeps mail of this stream from its recipients now


def story(message: Message, now: datetime, only: UUID | None = None) -> Story:
    """The story of `message`; `only` narrows the attempts to one delivery. Ten queries, whatever its size."""
    deliveries = list(Delivery.objects.filter(message_id=message.id).order_by("position", "id"))
    ids = [d.id for d in deliveries]
    open_rows = Queued.objects.filter(delivery_id__in=[d.id for d in deliveries if not d.final])
    leases = {q.delivery_id: q for q in with_rests(open_rows, now)}
    wanted = [only] if only in ids else ids
    attempts = list(Attempt.objects.filter(delivery_id__in=wanted).order_by("-id")[: MAX_ATTEMPTS + 1])
    cut = len(attempts) > MAX_ATTEMPTS
    by_delivery: dict[UUID, list[Attempt]] = {}
    for attempt in attempts[:MAX_ATTEMPTS]:
        by_delivery.setdefault(attempt.delivery_id, []).append(attempt)

    recipients = []
    for delivery in deliveries:
        own = by_delivery.get(delivery.id, [])
        queued = leases.get(delivery.id)
        in_flight = queued is not None and queued.lease_id is not None
        recipients.append(
            Recipient(
                delivery,
                sentence(_standing(delivery, own, in_flight, rest_of(queued)), now),
                in_flight,
                verbs(delivery, in_flight),
                [
                    AttemptView(
                        a,
                        int((a.finished_at - a.started_at).total_seconds() * 1000),
                        spoken(a),
                        lines(a.transcript),
                    )
                    for a in own
                ],
            )
        )

    events = list(Event.objects.filter(message_id=message.id).order_by("-id")[:MAX_EVENTS])
    content = (
        MessageContent.objects.filter(id=message.id)
        .annotate(cut=Left("text", MAX_TEXT), octets=Length("text"), html_length=Length("html"))
        .values_list("cut", "octets", "html_length", "headers", "raw")
        .first()
    )
    attached = _files(message) if message.attachment_count and message.archived_at is None else []
    if message.archived_at is not None:
        held = archive.fetched(message)
        attached = [File(f.id, f.filename, f.content_type, len(f.content)) for f in held.files]
        content = _measured(held.content)
    text, length, html_length, headers, whole = content or ("", 0, 0, [], None)
    if whole is not None:  # it came whole: its parts are read from its octets
        letter = read_letter(bytes(whole))
        text, length, html_length = (letter.text or "")[:MAX_TEXT], len(letter.text or ""), len(letter.html or "")
        headers = [list(item) for item in letter.headers.items()]
    return Story(
        message=message,
        recipients=recipients,
        timeline=_timeline(message, events, recipients),
        posts=_posts(events),
        files=attached,
        headers=[(str(h[0]), str(h[1])) for h in headers if isinstance(h, list) and len(h) == 2],
        has_html=bool(html_length),
        text=text or "",
        text_cut=(length or 0) > MAX_TEXT,
        attempts_cut=cut,
        content_kept=content is not None,
        whole=whole is not None,
        suppressed=_suppressed(message, deliveries),
    )


def verbs(delivery: Delivery, in_flight: bool = False) -> tuple[str, ...]:
    """What a person may ask for: the verbs of record.operator that apply to this status."""
    if delivery.final or in_flight:
        return ()
    match Status(delivery.status):
        case Status.HELD:
            return ("release", "cancel")
        case Status.QUEUED:
            return ("hold", "cancel")
        case _:
            return ("retry", "hold", "cancel")


def spoken(attempt: Attempt) -> str:
    """The reply with its code in front, once."""
    code = str(attempt.code or "")
    return attempt.reply if attempt.reply.startswith(code) else f"{code} {attempt.reply}".strip()


def lines(transcript: str) -> list[Line]:
    """The conversation line by line; what does not look like a line belongs to the one before it."""
    found: list[Line] = []
    for raw in transcript.split("\n"):
        if match := _LINE.fullmatch(raw):
            found.append(Line(*match.groups()))
        elif found:
            last = found.pop()
            found.append(Line(last.ms, last.who, f"{last.text}\n{raw}"))
        elif raw:
            found.append(Line("", "*", raw))
    return found


def _standing(d: Delivery, attempts: Sequence[Attempt], in_flight: bool, rest: Rest | None) -> Standing:
    rest = None if d.status == Status.HELD else rest  # that waits for a person first
    accepted = next((a for a in attempts if a.status == d.status), None)
    return Standing(
        status=Status(d.status),
        recipient=d.recipient,
        host=d.host,
        category=d.category,
        reason=d.reason,
        reply=d.reply,
        tls=accepted.tls if accepted else "",
        attempts=d.attempts,
        late=d.late,
        duplicate_possible=d.duplicate_possible,
        in_flight=in_flight,
        created_at=d.created_at,
        expires_at=d.expires_at,
        next_attempt_at=d.next_attempt_at,
        settled_at=d.settled_at,
        complained_at=d.complained_at,
        rests_why=rest.reason if rest else "",
        rests_until=rest.until if rest else None,
    )


def _timeline(message: Message, events: Sequence[Event], recipients: Sequence[Recipient]) -> list[Moment]:
    several = len(recipients) > 1
    moments = [
        Moment(
            e.created_at,
            _EVENT_WORDS.get(e.type, e.type),
            e.recipient if several else "",
            _detail(e.data),
            _EVENT_TONE.get(e.type, ""),
        )
        for e in reversed(events)
    ]
    for r in recipients:
        for a in r.attempts:
            where = a.row.host or r.row.recipient.rpartition("@")[2]
            said = spoken(a.row)
            moments.append(
                Moment(
                    a.row.finished_at,
                    f"Attempt {a.row.number} with {where}",
                    r.row.recipient if several else "",
                    said,
                    "",
                )
            )
    moments.sort(key=lambda m: m.at)
    return moments


def _detail(data: Any) -> str:
    """What an event carries, in one line of text."""
    if not isinstance(data, dict) or not data:
        return ""
    if "attempt" in data:  # the attempt beside it says the rest
        return f"category: {data['category']}" if data.get("category") else ""
    return ", ".join(f"{k}: {v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)}" for k, v in data.items())


def _posts(events: Sequence[Event]) -> list[Post]:
    if not events:
        return []
    rows = list(WebhookDelivery.objects.filter(event_id__in=[e.id for e in events]).order_by("-id")[:MAX_POSTS])
    if not rows:
        return []
    urls = dict(WebhookEndpoint.objects.filter(id__in={r.endpoint_id for r in rows}).values_list("id", "url"))
    log: dict[UUID, list[WebhookTry]] = {}
    for entry in WebhookTry.objects.filter(delivery_id__in=[r.id for r in rows]).order_by("-id")[: 5 * MAX_POSTS]:
        log.setdefault(entry.delivery_id, []).append(entry)
    return [Post(r, urls.get(r.endpoint_id, "(an endpoint that was deleted)"), log.get(r.id, [])) for r in rows]


def _suppressed(message: Message, deliveries: Sequence[Delivery]) -> list[Suppression]:
    return list(
        Suppression.objects.filter(
            Q(expires_at=None) | Q(expires_at__gt=Now()),
            tenant_id=message.tenant_id,
            stream__in=("*", message.stream),
            address__in={folded(d.recipient) for d in deliveries},
        ).order_by("address", "stream")[:MAX_SUPPRESSIONS]
    )


def _measured(row: MessageContent | None) -> Any:
    """As the columns above, of a content that came from the store."""
    return row and ((row.text or "")[:MAX_TEXT], len(row.text or ""), len(row.html or ""), row.headers, row.raw)


def _files(message: Message) -> list[File]:
    size = Func(F("content"), function="octet_length", output_field=IntegerField())
    return [
        File(*row)
        for row in Attachment.objects.filter(message_id=message.id)
        .annotate(size=size)
        .order_by("position")
        .values_list("id", "filename", "content_type", "size")
    ]
