"""What would become of a mail, without sending it: its size, its routes, and what an expert would object to.

    rehearsed = rehearse(tenant_id, drafts, lab=False)

Nothing is stored and no receiver is spoken to; the ways to the recipients' domains are deliveries/accept/ways.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from deliveries.accept.drafts import Draft
from deliveries.accept.turns import Turns
from deliveries.accept.ways import Way, look
from deliveries.errors import ComposeError
from deliveries.mime import raw
from deliveries.mime.address import folded
from deliveries.mime.compose import Composed, Mail, compose
from deliveries.models import SendingDomain, Suppression
from deliveries.models.erasure import hashed
from deliveries.models.fields import uuid7
from deliveries.read.domains import signing_key
from deliveries.routing.published import Standing
from deliveries.routing.route import Routed, Unroutable
from deliveries.smtp.hop import Tls
from deliveries.states import Lane

#: Gmail shows no more of a mail's html, and puts a link in place of the rest
_CLIPPED_OCTETS = 102 * 1024
#: what most receivers take; some take less
_LARGE_OCTETS, _TOO_LARGE_OCTETS = 10 * 1024 * 1024, 25 * 1024 * 1024

_turns = Turns(2, "", "to check mail")

ERROR, WARNING, ADVICE = "error", "warning", "advice"


@dataclass(frozen=True, slots=True)
class Objection:
    """`level`: error = it will not arrive so; warning = it may not, or looks wrong; advice = it could be better."""

    level: str
    code: str
    field: str  #: in the caller's words; empty for the whole mail
    message: str


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """`mails`: how many messages it is; `size_octets`: of the largest, as composed, before its signature."""

    mails: int
    size_octets: int
    recipients: tuple[tuple[str, str, str], ...]  #: (address, field, queued or suppressed)
    ways: tuple[Way, ...]
    objections: tuple[Objection, ...]


def rehearse(tenant_id: UUID, drafts: Sequence[Draft], lab: bool = False) -> Rehearsed:
    """`drafts` are the mails of one request, alike but for their recipients; `lab`: a test key's."""
    first = drafts[0]
    domain = SendingDomain.objects.filter(tenant_id=tenant_id, name=first.sender.domain).first()
    paths = [(a.addr_spec, field) for d in drafts for field in ("to", "cc", "bcc") for a in getattr(d, field)]
    paths = list({address: (address, field) for address, field in reversed(paths)}.values())[::-1]
    suppressed = _suppressed(tenant_id, first.stream, [address for address, _ in paths])
    floor = Tls(domain.tls) if domain else Tls.MAY
    names = sorted({a.rpartition("@")[2] for a, _ in paths if folded(a) not in suppressed})
    with _turns.taken():
        ways, found = look(tenant_id, names, lab, floor)
    size, wrong = _composed(drafts)
    return Rehearsed(
        mails=len(drafts),
        size_octets=size,
        recipients=tuple((a, f, "suppressed" if folded(a) in suppressed else "queued") for a, f in paths),
        ways=ways,
        objections=(
            *wrong,
            *_about_sender(domain, first),
            *_about_recipients(paths, suppressed, found),
            *_about_content(domain, first, size),
        ),
    )


# --- what an expert would say -----------------------------------------------------------------------------------


def _composed(drafts: Sequence[Draft]) -> tuple[int, list[Objection]]:
    try:
        return max(_compose(draft).size_octets for draft in drafts), []
    except ComposeError as e:
        return 0, [Objection(ERROR, "not_composable", "", f"It cannot be rendered: {e}")]


def _compose(draft: Draft) -> Composed:
    ident, now = uuid7(), timezone.now()
    message_id = f"{ident.hex}@{draft.sender.domain}"
    if draft.raw is not None:
        return raw.composed(draft.raw, message_id, now)
    return compose(
        Mail(
            id=ident, message_id=message_id, date=now, from_header=draft.sender.header(),
            to=tuple(a.header() for a in draft.to), cc=tuple(a.header() for a in draft.cc),
            reply_to=tuple(a.header() for a in draft.reply_to), subject=draft.subject, html=draft.html,
            text=draft.text, headers=draft.headers, attachments=draft.attachments,
        )
    )  # fmt: skip


def _about_sender(domain: SendingDomain | None, draft: Draft) -> Iterator[Objection]:
    name = draft.sender.domain
    if domain is None:
        yield Objection(
            ERROR, "domain_not_verified", "from", f"{name} is no domain of this account; add and verify it."
        )
        return
    if domain.verified_at is None:
        yield Objection(ERROR, "domain_not_verified", "from", f"{name} is not verified; publish its DNS records first.")
    if domain.suspended_at is not None:
        yield Objection(ERROR, "domain_suspended", "from", f"{name} is suspended; nothing is sent from it.")
    signing = signing_key(list(domain.dkim_keys.defer("private_key")))
    if signing is None:
        yield Objection(
            ERROR,
            "no_dkim",
            "from",
            f"{name} has no active DKIM key: mail goes unsigned and fails DMARC (RFC 7489 §3.1).",
        )
    # DKIM signs for the domain of From, so it is aligned; SPF is only where bounces go to a host below it
    if domain.return_path_verified_at is None:
        yield Objection(
            ADVICE, "spf_not_aligned", "from",
            f"Only DKIM carries DMARC for {name}: with MX and SPF of {domain.return_path}.{name} SPF is aligned too.",
        )  # fmt: skip
    for key, finding in domain.findings.items():
        if finding.get("status") in (Standing.FAILED, Standing.PENDING) and finding.get("advice"):
            # a key that waits for its record, or has retired, or is a second one, is not missed by anybody
            level = WARNING if key == "dmarc" or (signing and key == f"dkim:{signing.selector}") else ADVICE
            yield Objection(level, f"dns_{key.partition(':')[0]}", "from", finding["advice"])


def _about_recipients(
    paths: Sequence[tuple[str, str]], suppressed: dict[str, str], found: dict[str, Routed | Unroutable | None]
) -> Iterator[Objection]:
    places: dict[str, int] = {}
    for address, field in paths:
        place = f"{field}[{places.setdefault(field, 0)}]"
        places[field] += 1
        if reason := suppressed.get(folded(address)):
            yield Objection(
                WARNING, "suppressed", place, f"{address} is on the suppression list ({reason}) and would get nothing."
            )
            continue
        match found.get(address.rpartition("@")[2]):
            case Unroutable(permanent=True, text=text):
                yield Objection(ERROR, "no_route", place, f"It would bounce: {text}")
            case Unroutable(text=text):
                yield Objection(WARNING, "no_route_now", place, f"It would wait: {text}")
            case None:
                yield Objection(WARNING, "no_answer", place, "DNS gave no answer in time; ask again.")


def _about_content(domain: SendingDomain | None, draft: Draft, size_octets: int) -> Iterator[Objection]:
    if size_octets > _TOO_LARGE_OCTETS:
        yield Objection(
            WARNING, "too_large", "attachments", f"{_mb(size_octets)}: many receivers refuse it; send a link."
        )
    elif size_octets > _LARGE_OCTETS:
        yield Objection(
            WARNING, "large", "attachments", f"{_mb(size_octets)}: some receivers refuse it; a link is safer."
        )
    if not draft.subject.strip():
        yield Objection(
            WARNING, "no_subject", "subject", "Mail without a subject looks like spam to filters and people."
        )
    if draft.raw is not None:
        return
    if draft.html and not (draft.text or "").strip():
        yield Objection(
            WARNING,
            "no_text_part",
            "text",
            "There is html and no text: filters mark it down, and some readers show nothing.",
        )
    if draft.html and len(draft.html.encode()) > _CLIPPED_OCTETS:
        yield Objection(WARNING, "clipped", "html", "Gmail shows the first 102 KB of html only; shorten it.")
    by_stream = domain is not None and draft.stream in domain.unsubscribe_streams
    leave = by_stream if draft.leave is None else draft.leave
    has_exit = leave or any(name.lower() == "list-unsubscribe" for name, _ in draft.headers)
    if draft.lane == Lane.BULK and not has_exit:
        yield Objection(
            WARNING, "no_unsubscribe", "unsubscribe",
            "Gmail and Yahoo ask bulk mail for one-click unsubscribe (RFC 8058); set `unsubscribe`.",
        )  # fmt: skip


def _suppressed(tenant_id: UUID, stream: str, addresses: Sequence[str]) -> dict[str, str]:
    """Folded address → reason, as accept would find it."""
    asked = {folded(a): folded(a) for a in addresses}
    asked |= {hashed(tenant_id, low): low for low in asked}
    rows = Suppression.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=Now()), tenant_id=tenant_id, stream__in=("*", stream), brake_id=None,
        address__in=asked,
    )  # fmt: skip
    return {asked[address]: reason for address, reason in rows.values_list("address", "reason")}


def _mb(octets: int) -> str:
    return f"The mail has {octets / (1024 * 1024):.1f} MB"
