"""A sending domain as Resend's API shows it: where it stands, and each record with what DNS said of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db.models import Prefetch
from django.utils import timezone

from deliveries.mime.dkim import KeyType, dns_record
from deliveries.models import DkimKey, DomainClaim, InboundRoute, SendingDomain
from deliveries.read.emails import iso, keyset
from deliveries.routing import published
from deliveries.routing.mx import registrable
from deliveries.routing.published import Standing, Wanted

#: Resend's words for what a hop must offer; `verify` is ours alone
TLS_WORDS = {
    SendingDomain.Tls.MAY: "opportunistic",
    SendingDomain.Tls.MUST: "enforced",
    SendingDomain.Tls.VERIFY: "verify",
}


def page(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> tuple[list[dict[str, Any]], bool]:
    rows, more = keyset(SendingDomain.objects.filter(tenant_id=tenant_id), limit, after, before)
    receiving = set(InboundRoute.objects.filter(domain__in=rows).values_list("domain_id", flat=True))
    return [_line(row, row.id in receiving) for row in rows], more


def owned(tenant_id: UUID, name: str) -> bool:
    """Whether the tenant has a domain of that name (lower case, A-labels), verified or not."""
    return "\0" not in name and SendingDomain.objects.filter(tenant_id=tenant_id, name=name).exists()


def first_verified(tenant_id: UUID) -> str | None:
    """The name of the tenant's oldest domain that mail may be sent from."""
    rows = SendingDomain.objects.filter(tenant_id=tenant_id, verified_at__isnull=False, suspended_at=None)
    return rows.order_by("id").values_list("name", flat=True).first()


def one(tenant_id: UUID, domain_id: UUID) -> dict[str, Any] | None:
    """The domain with its records; None when the tenant has no such domain."""
    # the private keys stay in the database
    public = DkimKey.objects.defer("private_key").order_by("id")
    rows = SendingDomain.objects.filter(tenant_id=tenant_id, id=domain_id)
    row = rows.prefetch_related(Prefetch("dkim_keys", queryset=public)).first()
    return None if row is None else {"object": "domain", **shown(row)}


def shown(domain: SendingDomain) -> dict[str, Any]:
    """As it stands in answers and in `domain.updated`; its keys are prefetched."""
    return {
        **_line(domain, InboundRoute.objects.filter(domain=domain).exists()),
        "records": [_record(domain, wanted) for wanted in wanted_of(domain)],
        "open_tracking": domain.open_tracking,
        "click_tracking": domain.click_tracking,
        "unsubscribe_streams": domain.unsubscribe_streams,
        "redact_streams": domain.redact_streams,
        "dkim_ed25519": domain.dkim_ed25519,
        "tracking_subdomain": domain.tracking_label,
        "tls": TLS_WORDS[SendingDomain.Tls(domain.tls)],
        "custom_return_path": domain.return_path,
        "return_path_status": "verified" if domain.return_path_verified_at else "pending",
        "verified_at": iso(domain.verified_at),
        "missing_since": iso(domain.missing_since),
        "checked_at": iso(domain.checked_at),
        "next_check_at": iso(domain.next_check_at),
    }


def wanted_of(domain: SendingDomain) -> list[Wanted]:
    """What the tenant is to publish, the required record first. A retired key's record stays for its seven days."""
    keys = list(domain.dkim_keys.all())
    signing = signing_key(keys)
    wanted = [
        published.dkim(domain.name, key.selector, dns_record(key.public_key, key.key_type), key is signing)
        for key in sorted(keys, key=lambda k: (k is not signing, k.created_at))
    ]
    return wanted + published.around(
        domain.name,
        return_path=domain.return_path,
        mx_name=settings.MX_NAME,
        spf_domain=settings.BOUNCE_DOMAIN,
        tracking=domain.tracking_label,
        tracking_host=tracking_host(),
    )


def claim(tenant_id: UUID, domain_id: UUID) -> dict[str, Any] | None:
    """Resend's domain_claim; None where there is none."""
    row = DomainClaim.objects.filter(domain_id=domain_id, domain__tenant_id=tenant_id).select_related("domain").first()
    if row is None:
        return None
    ends = row.created_at + DomainClaim.LIFE
    if row.completed_at:
        status = "completed"
    elif ends <= timezone.now():
        status = "expired"
    else:
        status = "verified" if row.seen_at else "pending"
    record = claimed(row, row.domain)
    return {
        "object": "domain_claim",
        "id": str(row.id),
        "name": row.domain.name,
        "status": status,
        "domain_id": str(row.domain_id),
        "region": "self-hosted",
        "record": {"type": record.type, "name": record.name, "value": record.value, "ttl": "Auto"},
        "blocked_reason": None,
        "failure_reason": None,
        "created_at": iso(row.created_at),
        "expires_at": iso(ends),
    }


def claimed(row: DomainClaim, domain: SendingDomain) -> Wanted:
    return published.claim(domain.name, row.token)


def signing_key(keys: list[DkimKey]) -> DkimKey | None:
    """The newest active RSA key: without its record nothing may be sent."""
    return max((k for k in keys if k.active and k.key_type == KeyType.RSA), key=lambda k: k.id, default=None)


def tracking_host() -> str:
    """Where tracking links lead: the host of BASE_URL; HELO_NAME where that is no name that a CNAME may hold."""
    host = urlsplit(settings.BASE_URL).hostname or ""
    named = "." in host and not host.replace(".", "").isdigit() and ":" not in host
    return host if named else settings.HELO_NAME


def serves(host: str) -> bool:
    """Whether `host` is the tracking host of a verified domain whose CNAME leads here: the proxy may ask a certificate
    for it. Lower case."""
    label, _, name = host.partition(".")
    found = SendingDomain.objects.filter(
        name=name,
        tracking_label=label,
        verified_at__isnull=False,
        suspended_at=None,
        findings__tracking__status="verified",
    )
    return found.exists()


def _line(domain: SendingDomain, receives: bool) -> dict[str, Any]:
    return {
        "id": str(domain.id),
        "name": domain.name,
        "status": domain.status,
        "created_at": iso(domain.created_at),
        "region": "self-hosted",
        "capabilities": {"sending": "enabled", "receiving": "enabled" if receives else "disabled"},
    }


def _record(domain: SendingDomain, wanted: Wanted) -> dict[str, Any]:
    finding = domain.findings.get(wanted.key, {})
    zone = registrable(domain.name) or domain.name
    record = {
        "record": wanted.record,
        "name": wanted.name.removesuffix(f".{zone}"),
        "type": wanted.type,
        "value": wanted.value,
        "ttl": "Auto",
        "status": finding.get("status", Standing.NOT_STARTED.value),
        "fqdn": wanted.name,
        "required": wanted.required,
        "found": finding.get("found", []),
        "advice": finding.get("advice", ""),
    }
    if wanted.priority is not None:
        record["priority"] = wanted.priority
    return record
