"""Webhook endpoints: made, changed, given new secrets, removed. What they hear is written by record and accept."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import unquote, urlsplit
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deliveries import fetch
from deliveries.errors import AddressRefused, BadInput, Fault
from deliveries.models import AuditEntry, WebhookEndpoint
from deliveries.models.fields import Sealed
from deliveries.states import FORMAT_EVENTS, EventType

Format = WebhookEndpoint.Format

#: each event of a tenant is written once for each of its endpoints
MOST = 20
#: how long the secret before the newest still signs, and the longest that may be asked for
OVERLAP = timedelta(hours=24)
MOST_OVERLAP = timedelta(days=7)
_SECRET_OCTETS = 32
#: RFC 3986 §3.2.1; what else stands before an @ is read differently by different parsers
_USERINFO = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*")


def new_secret(form: str = Format.NATIVE) -> str:
    """`whsec_` and 256 random bits in base64, the form that the verifiers of Standard Webhooks read; of SendGrid's
    format a private key (base64 of DER), of Mailgun's 256 random bits in hex."""
    if form == Format.SENDGRID:
        key = ec.generate_private_key(ec.SECP256R1())
        octets = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return base64.b64encode(octets).decode("ascii")
    if form == Format.MAILGUN:
        return secrets.token_hex(_SECRET_OCTETS)
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_OCTETS)).decode("ascii")


def create(
    tenant_id: UUID, url: str, events: Sequence[str], actor: str, form: str = Format.NATIVE
) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and what its receiver verifies with. BadInput when the URL can never be posted to, or an event is
    unknown. Without `events` an endpoint of a foreign format hears those that its format has words for.

    A user and a password in the URL are taken out of it, kept encrypted, and sent as Basic authentication.
    """
    url, credentials = _parted(url)
    _check(url, events, bool(credentials))
    secret = new_secret(form)
    events = events or sorted(FORMAT_EVENTS.get(form, ()))
    with transaction.atomic():
        if WebhookEndpoint.objects.filter(tenant_id=tenant_id).count() >= MOST:
            fault = Fault("endpoint", "too_many", f"There are {MOST} webhooks already; remove one first.")
            raise BadInput([fault])
        endpoint = WebhookEndpoint.objects.create(
            tenant_id=tenant_id, url=url, events=sorted(set(events)), secret=secret.encode("ascii"), format=form,
            credentials=credentials or None,
        )  # fmt: skip
        AuditEntry.objects.create(tenant_id=tenant_id, actor=actor, action="webhook.created", subject=url[:300])
    return endpoint, endpoint.verifier


def update(
    tenant_id: UUID,
    endpoint_id: UUID,
    actor: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> bool:
    """Change what is not None; False when the tenant has no such endpoint. BadInput as create().

    Another URL, and switching on, forget what failed before: the five days begin anew. What came while an endpoint
    was off is not told by itself; a replay of that window tells it (deliveries.notify.ask).

    A URL without user and password keeps those that the endpoint has while it stays at the same host, and loses them
    with another: whoever may change a URL is not to learn them. An empty pair (`https://@host/`) ends them.
    """
    url, credentials = (None, None) if url is None else _parted(url)
    with transaction.atomic():
        row = WebhookEndpoint.objects.select_for_update().filter(tenant_id=tenant_id, id=endpoint_id).first()
        if row is None:
            return False
        kept = None if row.credentials is None or isinstance(row.credentials, Sealed) else bytes(row.credentials)
        if credentials is None and url is not None and _origin(url) == _origin(row.url):
            credentials = kept
        _check(url, events or (), bool(credentials))
        told = []
        if url is not None and (credentials or None) != kept:
            row.credentials, row.failing_since = credentials or None, None
            told.append("with another password" if credentials else "without password")
        if url is not None and url != row.url:
            row.url, row.failing_since = url, None
            told.append(f"to {url}")
        if events is not None:
            row.events = sorted(set(events))
            told.append("events " + (", ".join(row.events) or "all but the opt-in ones"))
        if enabled is not None and enabled != row.enabled:
            row.enabled, row.failing_since = enabled, None
            row.disabled_reason = "" if enabled else f"Switched off by {actor}."[:300]
            told.append("on" if enabled else "off")
        if told:
            row.save(update_fields=["url", "credentials", "events", "enabled", "disabled_reason", "failing_since"])
            subject = f"{row.url}: {'; '.join(told)}"
            AuditEntry.objects.create(tenant_id=tenant_id, actor=actor, action="webhook.changed", subject=subject[:300])
    return True


def rotate(tenant_id: UUID, endpoint_id: UUID, actor: str, overlap: timedelta = OVERLAP) -> str | None:
    """What the receiver verifies with from now on; None when the tenant has no such endpoint.

    For `overlap` the one before signs too, so that a receiver verifies with either (docs/rfc.md, rule 33); zero ends it
    now, for a secret that leaked. There are two at most: one that was replaced twice signs nothing any more. SendGrid's
    and Mailgun's formats carry one signature, so there the new secret signs alone, at once.
    """
    with transaction.atomic():
        row = WebhookEndpoint.objects.select_for_update().filter(tenant_id=tenant_id, id=endpoint_id).first()
        if row is None:
            return None
        kept = timedelta() < overlap
        secret = new_secret(row.format)
        row.previous_secret = row.secret if kept else None
        row.previous_until = timezone.now() + overlap if kept else None
        row.secret = secret.encode("ascii")
        row.save(update_fields=["secret", "previous_secret", "previous_until"])
        AuditEntry.objects.create(
            tenant_id=tenant_id, actor=actor, action="webhook.secret_rotated", subject=row.url[:300]
        )
    return row.verifier


def remove(tenant_id: UUID, endpoint_id: UUID, actor: str) -> bool:
    """False when the tenant has no such endpoint. What still waits for it is not sent any more."""
    with transaction.atomic():
        endpoint = WebhookEndpoint.objects.filter(tenant_id=tenant_id, id=endpoint_id).first()
        if endpoint is None:
            return False
        WebhookEndpoint.objects.filter(id=endpoint_id).delete()
        AuditEntry.objects.create(
            tenant_id=tenant_id, actor=actor, action="webhook.removed", subject=endpoint.url[:300]
        )
    return True


def _parted(url: str) -> tuple[str, bytes | None]:
    """The URL without its userinfo (RFC 3986 §3.2.1), and that as `user:password`; empty where it stands there empty,
    None where it does not stand there."""
    try:
        parts = urlsplit(url)
        userinfo, found, host = parts.netloc.rpartition("@")
    except ValueError:  # fetch says what is wrong with it
        return url, None
    if not found:
        return url, None
    user, _, password = (unquote(word) for word in userinfo.partition(":"))
    if not _USERINFO.fullmatch(userinfo) or ":" in user or not f"{user}{password}".isprintable():
        # RFC 7617 §2: the first colon parts them, and control characters belong in neither
        message = "User and password may have letters, digits and -._~!$&'()*+,;= only, percent-encode all else; the "
        raise BadInput([Fault("endpoint", "invalid_url", f"{message}user has no colon.")])
    pair = f"{user}:{password}" if user or password else ""
    return parts._replace(netloc=host).geturl(), pair.encode()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def _check(url: str | None, events: Sequence[str], secretly: bool = False) -> None:
    """`secretly`: it goes with a password, which a network in between must not read."""
    faults = []
    if url is not None:
        try:
            fetch.check_url(url, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
        except AddressRefused as refused:
            faults.append(Fault("endpoint", "invalid_url", f"This URL cannot be used: {refused}."))
        if secretly and not settings.WEBHOOK_ALLOW_PRIVATE and urlsplit(url).scheme.lower() == "http":
            message = "A URL with user and password must be https: over http everybody on the way reads them."
            faults.append(Fault("endpoint", "invalid_url", message))
    known = ", ".join(sorted(EventType))
    faults += [
        Fault(f"events[{i}]", "unknown_event", f"There is no such event; known are {known}.")
        for i, name in enumerate(events)
        if name not in EventType.__members__.values()
    ]
    if faults:
        raise BadInput(faults)
