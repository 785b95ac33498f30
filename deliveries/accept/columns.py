"""Drafts → the arrays that the statement takes: a row of each array is a mail, a forward-path or an attachment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings

from deliveries.accept.drafts import Draft, Idempotency, Reports
from deliveries.mime.address import Address, folded
from deliveries.models.fields import uuid7
from deliveries.routing import static

_NAMES = (
    "m_id m_domain m_message_id m_from m_to m_cc m_bcc m_reply_to m_subject m_tags m_metadata m_stream m_lane "
    "m_size m_files m_scheduled m_before m_html m_text m_headers m_raw m_leave m_redact m_untracked d_id d_message "
    "d_position d_field d_recipient d_address d_destination d_event a_id a_message a_position a_name a_type a_cid "
    "a_content r_delivery r_message r_return r_envid r_whole r_notify r_orcpt"
).split()


def columns(
    secret_hash: bytes, ids: Sequence[UUID], drafts: Sequence[Draft], idempotency: Idempotency | None
) -> dict[str, Any]:
    """Columns as arrays: m_* a mail each, d_* a forward-path each, a_* an attachment each, r_* a report each."""
    p: dict[str, Any] = {name: [] for name in _NAMES}
    for message_id, draft in zip(ids, drafts, strict=True):
        p["m_id"].append(message_id)
        p["m_domain"].append(draft.sender.domain)
        p["m_message_id"].append(message_id_of(message_id, draft))
        p["m_from"].append(draft.sender.header())
        for name in ("to", "cc", "bcc", "reply_to"):
            p[f"m_{name}"].append(json.dumps([a.header() for a in getattr(draft, name)]))
        p["m_subject"].append(draft.subject)
        p["m_tags"].append(json.dumps([{"name": n, "value": v} for n, v in draft.tags]))
        p["m_metadata"].append(json.dumps(dict(draft.metadata)))
        p["m_stream"].append(draft.stream)
        p["m_lane"].append(int(draft.lane))
        p["m_size"].append(_size(draft))
        p["m_files"].append(len(draft.attachments))
        p["m_scheduled"].append(draft.scheduled_at)
        p["m_before"].append(draft.deliver_before)
        p["m_html"].append(draft.html)
        p["m_text"].append(draft.text)
        p["m_headers"].append(json.dumps(draft.headers))
        p["m_raw"].append(draft.raw)
        p["m_leave"].append(draft.leave)
        p["m_redact"].append(int(draft.redact))
        p["m_untracked"].append(int(draft.untracked))
        for position, (field, address) in enumerate(_forward_paths(draft)):
            p["d_id"].append(uuid7())
            p["d_message"].append(message_id)
            p["d_position"].append(position)
            p["d_field"].append(field)
            p["d_recipient"].append(address.addr_spec)
            p["d_address"].append(folded(address.addr_spec))
            p["d_destination"].append(_home(address.domain))
            p["d_event"].append(uuid7())
            if draft.reports is not None and address.addr_spec in draft.reports.wanted:
                _report(p, message_id, draft.reports, address.addr_spec)
        for position, attachment in enumerate(draft.attachments):
            p["a_id"].append(uuid7())
            p["a_message"].append(message_id)
            p["a_position"].append(position)
            p["a_name"].append(attachment.filename)
            p["a_type"].append(attachment.content_type)
            p["a_cid"].append(attachment.content_id)
            p["a_content"].append(attachment.content)
    p["secret_hash"] = secret_hash
    p["lab"] = settings.SANDBOX_SMTP is not None
    p["private"] = settings.PRIVACY
    p["max_age_s"] = settings.RETRY.max_age_s
    p["idem_id"] = uuid7()
    p["idem_endpoint"] = idempotency.endpoint if idempotency else None
    p["idem_key"] = idempotency.key if idempotency else None
    p["idem_hash"] = idempotency.body_hash if idempotency else None
    p["idem_answer"] = json.dumps({"ids": [str(i) for i in ids]}) if idempotency else None
    return p


def _report(p: dict[str, Any], message_id: UUID, reports: Reports, addr_spec: str) -> None:
    notify, orcpt = reports.wanted[addr_spec]
    p["r_delivery"].append(p["d_id"][-1])
    p["r_message"].append(message_id)
    p["r_return"].append(reports.return_to)
    p["r_envid"].append(reports.envid)
    p["r_whole"].append(reports.whole)
    p["r_notify"].append(notify)
    p["r_orcpt"].append(orcpt)


def message_id_of(ident: UUID, draft: Draft) -> str:
    """Without angle brackets; a Message-ID among the sender's headers takes the place of ours, as in the mail."""
    own = [value.strip(" \t<>") for name, value in draft.headers if name.lower() == "message-id"]
    return own[-1] if own else f"{ident.hex}@{draft.sender.domain}"


def _forward_paths(draft: Draft) -> list[tuple[str, Address]]:
    """Each address once: a person who stands in To and Cc gets one copy (local parts are case-sensitive)."""
    paths: dict[str, tuple[str, Address]] = {}
    for field in ("to", "cc", "bcc"):
        for address in getattr(draft, field):
            paths.setdefault(address.addr_spec, (field, address))
    if not draft.envelope:
        return list(paths.values())
    # whom the header does not name is a blind copy
    return [paths.get(key, ("bcc", address)) for key, address in {a.addr_spec: a for a in draft.envelope}.items()]


def _home(domain: str) -> str:
    """Where the queue keeps mail for `domain`: its fixed route; else the domain, until its MX site is learned."""
    sandbox_domain = settings.SANDBOX_DOMAIN if settings.SANDBOX_SMTP else ""
    site = static.home(_routes(settings.MAIL_ROUTES), domain, settings.MAIL_ROUTE == "sandbox", sandbox_domain)
    return site or domain


@lru_cache(maxsize=4)
def _routes(text: str) -> dict[str, static.StaticRoute]:
    return static.parse(text)


def _size(draft: Draft) -> int:
    """Octets of content; base64 grows attachments by a third, headers are small beside it."""
    if draft.raw is not None:
        return len(draft.raw)
    texts = len((draft.html or "").encode()) + len((draft.text or "").encode())
    return texts + sum(len(a.content) * 4 // 3 for a in draft.attachments) + 1024
