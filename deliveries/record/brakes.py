"""A brake is pulled, ends, is undone or confirmed; a tenant is held and released. Each tells the operator.

A brake on a site pauses the site (record.sites), so that not one of a million waiting mails is touched. The
suppressions that its refusals wrote stay on the list but keep no mail back until a person confirms them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from deliveries.models import ApiKey, AuditEntry, Brake, Delivery, SendingDomain, Site, Suppression, Tenant
from deliveries.record import operator, sites, suppressions, tally
from deliveries.record.notices import Notice, tell
from deliveries.states import Category, EventType, Status

log = logging.getLogger(__name__)

#: as it stands in the audit log and on the site
ACTOR = "brake"
#: how long a site is left alone where nobody decides; what is refused then once more pulls the brake once more
HELD = timedelta(hours=4)
#: rows per transaction of what undoes much
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Undone:
    """`removed` suppressions are gone; `refused` mails had bounced and were not sent again."""

    removed: int
    refused: int


def pull(site: str, category: Category, refused: int, reason: str, since: datetime, now: datetime) -> Brake | None:
    """Hold the mail of a site; None where it is held already."""
    try:
        with transaction.atomic():
            brake = Brake.objects.create(
                site=site, category=category, reason=reason, refused=refused, since=since, at=now, until=now + HELD
            )
            sites.pause_site(site, f"The brake was pulled: {reason}", ACTOR, brake.until)
            audit(ACTOR, "brake.pulled", f"{site}: {reason}")
    except IntegrityError:
        return None
    ids = {"event": "brake.site"}
    log.error("brake: mail to %s is held until %s: %s", site, brake.until, reason, extra=ids)
    doubt(brake)
    return brake


def doubt(brake: Brake) -> int:
    """Make the suppressions of its refusals provisional, those of mail in flight included; how many more."""
    rows = Suppression.objects.filter(
        site=brake.site, category=brake.category, created_at__gte=brake.since, brake_id=None, reason="bounce"
    )
    with transaction.atomic():
        doubted = list(rows.select_for_update().order_by("id").values_list("id", "tenant_id"))
        if not doubted:
            return 0
        told = set(Suppression.objects.filter(brake_id=brake.id).values_list("tenant_id", flat=True).distinct())
        Suppression.objects.filter(id__in=[i for i, _ in doubted]).update(brake_id=brake.id)
        data = {"brake": str(brake.id), "site": brake.site, "reason": brake.reason}
        tell([Notice(t, EventType.SITE_HELD, data) for t in sorted({t for _, t in doubted} - told)])
    return len(doubted)


def undo(brake_id: UUID, actor: str) -> Undone:
    """The refusals were false: their suppressions go, mail goes on. What bounced is not sent again."""
    brake = _decide(brake_id, Brake.State.UNDONE, actor)
    if brake is None:
        return Undone(0, 0)
    doubt(brake)
    removed = 0
    while ids := list(Suppression.objects.filter(brake_id=brake.id).values_list("id", flat=True)[:_BATCH]):
        removed += suppressions.remove(ids, actor)
    tally.forget(brake.site, brake.category, brake.since)
    return Undone(removed, brake.refused)


def confirm(brake_id: UUID, actor: str) -> int:
    """The refusals were true: their suppressions count from now on, mail goes on; how many suppressions."""
    brake = _decide(brake_id, Brake.State.CONFIRMED, actor)
    if brake is None:
        return 0
    doubt(brake)
    return Suppression.objects.filter(brake_id=brake.id).update(brake_id=None)


def _decide(brake_id: UUID, state: Brake.State, actor: str) -> Brake | None:
    """The brake on a site, now decided; None where it was already, or there is none. One that ended can still be."""
    with transaction.atomic():
        brake = Brake.objects.select_for_update().filter(id=brake_id).exclude(site="").first()
        if brake is None or brake.state not in (Brake.State.OPEN, Brake.State.ENDED):
            return None
        was_open = brake.state == Brake.State.OPEN
        brake.state, brake.decided_at, brake.decided_by = state, timezone.now(), actor[:200]
        brake.save(update_fields=("state", "decided_at", "decided_by"))
        audit(actor, f"brake.{state}", f"{brake.site}: {brake.reason}")
        if was_open:
            _go_on(brake.site, actor)
    return brake


def end(brake: Brake, now: datetime) -> bool:
    """Let go of a brake whose time ran out or whose site a person resumed; whether it was one."""
    by_hand = not Site.objects.filter(name=brake.site, paused_by=ACTOR).exists()
    if not by_hand and (brake.until is None or brake.until > now):
        return False
    doubt(brake)
    with transaction.atomic():
        mine = Brake.objects.filter(id=brake.id, state=Brake.State.OPEN)
        if not mine.update(state=Brake.State.ENDED, decided_at=now, decided_by="" if by_hand else ACTOR):
            return False
        audit(ACTOR, "brake.ended", f"{brake.site}: {'resumed by a person' if by_hand else 'nobody decided in time'}")
        _go_on(brake.site, ACTOR)
    return True


def _go_on(site: str, actor: str) -> None:
    # what a person paused meanwhile stays paused
    if Site.objects.filter(name=site, paused_by=ACTOR).exists():
        sites.resume_site(site, actor)


# --- tenants ------------------------------------------------------------------------------------------------------


def hold_tenant(tenant_id: UUID, reason: str, actor: str, now: datetime, refused: int = 0) -> bool:
    """Neither accept nor send the tenant's mail until it is released; False where it is suspended already."""
    with transaction.atomic():
        free = Tenant.objects.filter(id=tenant_id, suspended_at=None)
        if not free.update(suspended_at=now, suspended_reason=reason[:300]):
            return False
        Brake.objects.create(tenant_id=tenant_id, reason=reason, refused=refused, since=now, at=now)
        audit(actor, "tenant.held", reason, tenant_id)
        tell([Notice(tenant_id, EventType.TENANT_HELD, {"reason": reason})])
    # what a person or a program ordered is no trouble of the service's
    level, event = (logging.ERROR, "brake.tenant") if actor == ACTOR else (logging.WARNING, "tenant.held")
    log.log(level, "tenant %s is held by %s: %s", tenant_id, actor, reason, extra={"event": event, "tenant": tenant_id})
    return True


def release_tenant(tenant_id: UUID, actor: str) -> int:
    """Accept and send again, what was held for the suspension included; how many deliveries are due now."""
    now = timezone.now()
    with transaction.atomic():
        Tenant.objects.filter(id=tenant_id).update(suspended_at=None, suspended_reason="")
        Brake.objects.filter(tenant_id=tenant_id, state=Brake.State.OPEN).update(
            state=Brake.State.UNDONE, decided_at=now, decided_by=actor[:200]
        )
        audit(actor, "tenant.released", "", tenant_id)
    return release_held(tenant_id, actor)


def suspend(rows: QuerySet[Any], actor: str) -> int:
    """Domains or keys: nothing of theirs is accepted, and what is queued is held; how many were not so before."""
    with transaction.atomic():
        free = list(rows.filter(suspended_at=None).select_for_update().order_by("pk"))
        rows.model._default_manager.filter(pk__in=[r.pk for r in free]).update(suspended_at=timezone.now())
        for row in free:
            audit(actor, f"{_word(row)}.suspended", str(row), row.tenant_id)
    return len(free)


def release(rows: QuerySet[Any], actor: str) -> int:
    """Domains or keys serve again; how many held deliveries are due now."""
    with transaction.atomic():
        held = list(rows.exclude(suspended_at=None).select_for_update().order_by("pk"))
        rows.model._default_manager.filter(pk__in=[r.pk for r in held]).update(suspended_at=None)
        for row in held:
            audit(actor, f"{_word(row)}.released", str(row), row.tenant_id)
    released = 0
    for row in held:
        of = {"message__domain_id": row.pk} if isinstance(row, SendingDomain) else {"message__api_key_id": row.pk}
        released += release_held(row.tenant_id, actor, f"{_word(row)}-suspended", **of)
    return released


def _word(row: SendingDomain | ApiKey) -> str:
    return "domain" if isinstance(row, SendingDomain) else "key"


def release_held(tenant_id: UUID, actor: str, rule: str = "tenant-suspended", **of: UUID) -> int:
    """Those that a claim held for that suspension; what a person held stays held."""
    held = Delivery.objects.filter(tenant_id=tenant_id, status=Status.HELD, rule=rule, **of).order_by("-id")
    released = 0
    while ids := list(held.values_list("id", flat=True)[:_BATCH]):
        done = operator.release(ids, actor, tenant_id)
        released += done
        if not done:  # all of these are in a worker's hands just now
            break
    return released


def audit(actor: str, action: str, subject: str, tenant_id: UUID | None = None) -> None:
    """Who did what."""
    AuditEntry.objects.create(tenant_id=tenant_id, actor=actor[:200], action=action[:60], subject=subject[:300])
