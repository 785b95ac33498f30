"""From claimed rows to what is to be sent. Whatever changed since accept is checked here once more."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings

from deliveries import named
from deliveries.deliver.personal import Tracked, leaving, links_url, personal, unrendered
from deliveries.errors import ComposeError, Unreadable
from deliveries.mime import links, verp
from deliveries.mime.deliverable import Prepared, prepare
from deliveries.mime.dkim import Signer
from deliveries.models.erasure import HASHED
from deliveries.models.fields import decrypt
from deliveries.models.sql import execute
from deliveries.queue import Claimed
from deliveries.read import contents
from deliveries.record.settle import Result
from deliveries.smtp.hop import Tls
from deliveries.smtp.outcome import Verdict
from deliveries.smtp.sources import Source
from deliveries.states import Category, Lane, Status

log = logging.getLogger(__name__)

#: composed messages kept for their other deliveries and retries
_KEEP_MESSAGES = 64
_KEEP_OCTETS = 32 * 1024 * 1024
#: how soon a rotated key signs, and a changed domain counts
_SENDER_TTL_S = 30.0
#: for so long after the last possible attempt a DSN may come back and act by its token
_TOKEN_DAYS = 30


@dataclass(frozen=True, slots=True)
class Sender:
    """What the mails of one domain share. `bounce_domain` is its own return path once that is verified, else ours."""

    signer: Signer | None
    bounce_domain: str
    tls: Tls = Tls.MAY  #: the least that a hop of it must offer
    broken: str = ""  #: why nothing of it can be sent now, in words; else empty
    links_url: str = ""  #: its own tracking host where that is verified and served; else empty, and BASE_URL serves


@dataclass(frozen=True, slots=True)
class Job:
    """One delivery, ready to go. `prepared` is shared by the deliveries of a message."""

    delivery_id: UUID
    lease_id: UUID
    destination: str
    recipient: str
    domain: str
    size: int
    prepared: Prepared
    sender: Sender
    token: str
    ends: float  #: when it is too late for it, by time.monotonic(); read off the database's clock
    fields: tuple[bytes, ...] = ()  #: header fields of this delivery alone
    lab: bool = False  #: a test key sent it: to the receiver lab and nowhere else
    proven: bool = True  #: its site is known to answer
    tenant_id: UUID | None = None
    lane: Lane = Lane.NORMAL
    sources: tuple[Source, ...] | None = None  #: what it leaves from, one of a family; None: any address of the host


@dataclass(frozen=True, slots=True)
class Named:
    """A delivery that was claimed by name, and what `load` would read of it."""

    claimed: Claimed
    destination_id: int
    row: dict[str, Any]


#: rows of _LOADED
Found = Sequence[dict[str, Any]]


def load(rows: Sequence[Claimed], lease_id: UUID, found: Found | None = None) -> tuple[list[Job], list[Result]]:
    """Jobs, and results for those that are not sent: too old, suppressed, held, or not to be rendered. `found` where
    the claim brought it along."""
    by_id = {row.delivery_id: row for row in rows}
    if found is None:
        found = execute(_LOAD, {"ids": list(by_id), "kept": list(_kept)}).fetchall()
    now = time.monotonic()
    ready, refused = [], []
    for row in found:
        if refusal := _refusal(row):
            verdict, reason = refusal
            refused.append(Result(row["id"], lease_id, verdict, host=row["host"], reason=reason))
        else:
            ready.append(row)
    messages = _messages(found, {row["message"] for row in ready})
    senders = _senders({row["domain_id"] for row in ready if row["domain_id"]})
    nobody = Sender(None, settings.BOUNCE_DOMAIN)
    keys = verp.keys_of(settings.VERP_KEYS)
    loaded = []
    for row in ready:
        sender = senders.get(row["domain_id"], nobody)
        if sender.broken:
            verdict = Verdict(Status.DEFERRED, "dkim-key", text=sender.broken)
            refused.append(Result(row["id"], lease_id, verdict, reason=sender.broken))
            continue
        prepared = personal(messages[row["message"]], row["id"], sender.links_url)
        if isinstance(prepared, Verdict):
            refused.append(Result(row["id"], lease_id, prepared, reason=prepared.text))
            continue
        claimed = by_id[row["id"]]
        loaded.append(
            Job(
                delivery_id=row["id"],
                lease_id=lease_id,
                destination=claimed.destination,
                recipient=row["recipient"],
                domain=row["recipient"].rpartition("@")[2],
                size=max(claimed.size, prepared.size_octets),
                prepared=prepared,
                sender=sender,
                token=verp.mint(keys, row["id"], row["expires_at"] + timedelta(days=_TOKEN_DAYS)),
                ends=now + row["left_s"],
                fields=leaving(prepared, row["id"], sender.links_url) if row["unsubscribe"] else (),
                lab=row["test"],
                proven=claimed.proven,
                tenant_id=claimed.tenant_id,
                lane=claimed.lane,
            )
        )
    return loaded, refused


def take(lease_id: UUID, ids: Sequence[UUID], octets: int, in_flight: Mapping[str, int], processes: int) -> list[Named]:
    """Claims those of `ids` that may go at once, each with its content; deliveries.named tells which."""
    found = execute(
        _TAKE,
        {
            "names": list(ids),
            "kept": [],  # it has only just come
            "octets": octets,
            "busy": list(in_flight),
            "used": list(in_flight.values()),
            "processes": processes,
            "lease_id": lease_id,
            "lease_s": settings.LEASE_S,
        },
    ).fetchall()
    return [
        Named(
            Claimed(row["id"], Lane(row["lane"]), row["destination"], row["octets"], True, row["of_tenant"]),
            row["destination_id"],
            row,
        )
        for row in found
    ]


def _refusal(row: dict[str, Any]) -> tuple[Verdict, str] | None:
    """A verdict that keeps the peer's last words as they were, and the reason in ours; None where it may go."""
    last = {"text": row["reply"], "enhanced": row["enhanced"]}
    if row["expired"]:
        reason = "It could not be delivered in time" + (
            f"; the last answer was: {row['reply']}" if row["reply"] else "."
        )
        return Verdict(Status.EXPIRED, "age", Category.EXPIRED, **last), reason
    if row["suppressed"]:
        reason = f"The address is on the suppression list ({row['suppressed']})."
        return Verdict(Status.SUPPRESSED, "suppression", **last), reason
    if row["domain_removed"]:
        reason = "The sender domain was removed from the account before this was sent."
        return Verdict(Status.FAILED, "domain-removed", **last), reason
    for what, words in _SUSPENDED.items():
        if row[f"{what}_suspended"]:
            return (
                Verdict(Status.HELD, f"{what}-suspended", **last),
                f"The {words} is suspended; held until it is released.",
            )
    return None


#: what may be suspended, as rules name it → in words; record.brakes releases by these rules
_SUSPENDED = {"tenant": "account", "domain": "sender domain", "key": "API key"}

_HASHED = HASHED.format(tenant="d.tenant_id", address="folded_address(d.recipient)")

# a message's content comes with one of its deliveries, and not at all where it is kept
_LOADED = f"""
SELECT d.id, d.recipient, d.expires_at, d.reply, d.enhanced, d.host, m.domain_id, m.unsubscribe,
       d.expires_at <= now() AS expired, extract(epoch FROM d.expires_at - now())::float8 AS left_s,
       t.suspended_at IS NOT NULL AS tenant_suspended, o.suspended_at IS NOT NULL AS domain_suspended,
       k.suspended_at IS NOT NULL AS key_suspended, m.test OR k.test IS TRUE AS test,
       m.domain_id IS NOT NULL AND o.id IS NULL AS domain_removed,
       (SELECT s.reason FROM suppression s
         WHERE s.tenant_id = d.tenant_id
           AND s.address IN (folded_address(d.recipient), CASE WHEN t.erased THEN {_HASHED} END)
           AND s.stream IN ('*', m.stream)
           AND (s.expires_at IS NULL OR s.expires_at > now()) AND s.brake_id IS NULL LIMIT 1) AS suppressed,
       d.first, c.id IS NOT NULL AS has_content, {contents.COLUMNS}{{further}}
  FROM (SELECT d.*, row_number() OVER (PARTITION BY d.message_id) = 1 AND d.message_id <> ALL (%(kept)s::uuid[])
               AS first
          FROM delivery d WHERE d.id = ANY ({{ids}})) d
  JOIN message m ON m.id = d.message_id JOIN tenant t ON t.id = d.tenant_id
  LEFT JOIN sending_domain o ON o.id = m.domain_id
  LEFT JOIN api_key k ON k.id = m.api_key_id
  LEFT JOIN message_content c ON c.id = m.id AND d.first
"""
_LOAD = _LOADED.format(ids="%(ids)s::uuid[]", further="")
_CLAIMED = ", n.lane, n.destination, n.size AS octets, n.tenant_id AS of_tenant, n.destination_id"
_TAKE = f"""
WITH {named.TAKEN} {_LOADED.format(ids="ARRAY(SELECT delivery_id FROM taken)", further=_CLAIMED)}
  JOIN taken n ON n.delivery_id = d.id
"""

# --- contents ---------------------------------------------------------------------------------------------------


class _Kept:
    """Composed messages, up to _KEEP_MESSAGES and _KEEP_OCTETS; whose turn is longest ago goes first. It counts as it
    goes: to look at each of them cost a lone mail as much as to be composed."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[UUID, Prepared | Tracked] = OrderedDict()
        self._octets = 0

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._by_id)

    def get(self, ident: UUID) -> Prepared | Tracked | None:
        if (message := self._by_id.get(ident)) is not None:
            self._by_id.move_to_end(ident)
        return message

    def put(self, ident: UUID, message: Prepared | Tracked) -> None:
        self._by_id[ident] = message
        self._octets += message.size_octets
        while len(self._by_id) > _KEEP_MESSAGES or (len(self._by_id) > 1 and self._octets > _KEEP_OCTETS):
            _, oldest = self._by_id.popitem(last=False)
            self._octets -= oldest.size_octets

    def clear(self) -> None:
        self._by_id.clear()
        self._octets = 0


_kept = _Kept()


def _messages(rows: Sequence[dict[str, Any]], ids: set[UUID]) -> dict[UUID, Prepared | Tracked | Verdict]:
    """Of these ids, composed once per message: every retry is the same mail, so what was composed stays right."""
    found: dict[UUID, Prepared | Tracked | Verdict] = {}
    missing = []
    for ident in ids:
        if (message := _kept.get(ident)) is not None:
            found[ident] = message
        else:
            missing.append(ident)
    if not missing:
        return found
    came = [row for row in rows if row["has_content"] and row["message"] in ids]
    for ident, content in contents.of_rows(came).items():
        try:
            found[ident] = prepared = _prepared(content)
        except ComposeError as e:
            found[ident] = unrendered(e)
        else:
            _kept.put(ident, prepared)
    for ident in missing:
        found.setdefault(ident, Verdict(Status.FAILED, "content-gone", text="Its content is no longer stored."))
    return found


def _prepared(content: contents.Stored) -> Prepared | Tracked:
    mail = content.mail
    if content.tracking or (mail is not None and links.leads_out(mail.html, mail.text)):
        return Tracked(content, content.tracking, content.size)
    return prepare(content.composed())


# --- senders ----------------------------------------------------------------------------------------------------

_sender_cache: dict[UUID, tuple[float, Sender]] = {}


def _senders(domain_ids: set[UUID]) -> dict[UUID, Sender]:
    """The sender of each domain that is there; without a signer where it has no active key."""
    fresh = time.monotonic() - _SENDER_TTL_S
    stale = [i for i in domain_ids if i not in _sender_cache or _sender_cache[i][0] < fresh]
    for row in execute(_SENDERS, {"ids": stale}).fetchall() if stale else ():
        signer, broken = None, ""
        if row["selector"]:
            signer = _signer(row["name"], row["selector"], row["private_key"], _second(row))
            if signer is None:  # unsigned it would fail DMARC and be told as if it had been signed
                broken = f"The DKIM key of {row['name']} cannot be read, so its mail waits; give the domain a new key."
        bounce_domain = row["bounce_domain"] or settings.BOUNCE_DOMAIN
        sender = Sender(signer, bounce_domain, Tls(row["tls"]), broken, links_url(row["links_host"]))
        _sender_cache[row["id"]] = (time.monotonic(), sender)
    return {i: _sender_cache[i][1] for i in domain_ids if i in _sender_cache}


def _second(row: dict[str, Any]) -> Signer | None:
    """Nothing waits for it: mail that only the RSA key signed passes as well."""
    return _signer(row["name"], row["ed_selector"], row["ed_key"]) if row["ed_selector"] else None


def _signer(domain: str, selector: str, sealed: bytes, beside: Signer | None = None) -> Signer | None:
    """None where the key cannot be read; the log says so."""
    try:
        return Signer(domain, selector, decrypt(bytes(sealed)), beside)
    except (Unreadable, ValueError) as e:
        log.error("the DKIM key %s of %s cannot be read: %s", selector, domain, e)
        return None


_SENDERS = """
SELECT DISTINCT ON (d.id) d.id, d.name, d.tls, k.selector, k.private_key,
       e.selector AS ed_selector, e.private_key AS ed_key,
       CASE WHEN d.findings -> 'tracking' ->> 'status' = 'verified'
            THEN d.tracking_label || '.' || d.name END AS links_host,
       CASE WHEN d.return_path_verified_at IS NOT NULL THEN d.return_path || '.' || d.name END AS bounce_domain
  FROM sending_domain d
  LEFT JOIN dkim_key k ON k.domain_id = d.id AND k.active AND k.key_type = 'rsa'
  LEFT JOIN dkim_key e ON e.domain_id = d.id AND e.active AND e.key_type = 'ed25519'
       AND d.next_check_at IS NOT NULL  -- else nobody would notice that its record is gone
 WHERE d.id = ANY (%(ids)s::uuid[])
 ORDER BY d.id, k.id DESC, e.id DESC
"""
