"""Housekeeping: partitions ahead of time, and what is no longer needed taken away in small batches."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from django.conf import settings

from deliveries.models import Tenant
from deliveries.models.sql import alone, clock, execute
from deliveries.objects import Away
from deliveries.read.archive import bucket
from deliveries.record import archiving, redaction, retention

log = logging.getLogger(__name__)

#: months ahead: one hour a month without housekeeping would do, two months are for a forgotten installation
_MONTHS_AHEAD = 2
#: an idempotent answer is kept for 24 h, and an hour more, so that a replay at the last moment still finds it
_ANSWERS = timedelta(hours=25)
#: a pass of retention, well within the task's time limit; the next hour goes on
_RETENTION_S = 300.0
#: a pass of redaction
_REDACTION_S = 5.0
#: a pass of moving bodies to the store; beat asks for one more often than that
_ARCHIVE_S = 60.0
#: any number, the same in all processes
_ARCHIVING = 7_201_945
#: the same for idempotency keys and the log of requests
_SMALL_S = 120.0


def run() -> None:
    """One pass, each step in transactions of its own. Never touches anything unfinished."""
    made = retention.make_months(_MONTHS_AHEAD)
    left = retention.Time(time.monotonic() + _SMALL_S)
    gone = retention.forget_answers(_ANSWERS, left)
    retention.forget_requests(clock() - timedelta(days=settings.LOG_DAYS), left)
    execute("DELETE FROM quota_use WHERE starts < current_date - 62")
    execute("DELETE FROM refusals WHERE minute < now() - interval '8 days'")
    execute("DELETE FROM source_rest WHERE until < now() - interval '8 days'")
    execute("DELETE FROM site_weather WHERE slot < now() - interval '8 days'")
    execute("DELETE FROM hour_tally WHERE hour < now() - interval '400 days'")
    # logins that ended, and tries that count no longer
    execute("DELETE FROM django_session WHERE expire_date < now()")
    execute("DELETE FROM axes_accessattempt WHERE attempt_time < now() - interval '1 day'")
    if made or gone:
        log.info("housekeeping: %d partitions made, %d idempotency keys forgotten", made, gone)
    retain()


def redact() -> int:
    """What finished mails were asked not to keep."""
    if gone := redaction.redact(retention.Time(time.monotonic() + _REDACTION_S)):
        log.info("%d mails redacted", gone)
    return gone


def archive() -> int:
    """Bodies of finished mails to the store, where there is one, and what it need not hold any more out of it."""
    store, left = bucket(), retention.Time(time.monotonic() + _ARCHIVE_S)
    if store is None:
        return 0
    moved = 0
    with alone(_ARCHIVING) as mine:
        try:
            if mine:
                archiving.delete_dead(store, left)
            if mine and settings.BODIES == "s3":
                moved = archiving.archive(store, left)
        except Away as e:
            log.warning("the S3 store did not do it, and is asked again with the next pass: %s", e)
    return moved


def retain(now: datetime | None = None) -> dict[str, int]:
    """What KEEP_…_DAYS says has served its time goes (0: is kept for ever); what went, by kind."""
    now = now or clock()
    left = retention.Time(time.monotonic() + _RETENTION_S)
    went = {}
    if days := settings.KEEP_CONTENT_DAYS:
        went["contents"] = retention.forget_contents(now - timedelta(days=days), left)
    if days := settings.KEEP_MAIL_DAYS:
        went["mails"] = retention.forget_mail(now - timedelta(days=days), left)
    rows = Tenant.objects.all() if settings.PRIVACY else Tenant.objects.filter(privacy=True)
    for tenant in rows.values_list("id", flat=True):
        before = now - timedelta(days=settings.KEEP_PRIVATE_DAYS)
        went["private mails"] = went.get("private mails", 0) + retention.forget_private(tenant, before, left)
    if days := settings.KEEP_WEBHOOKS_DAYS:
        went["webhooks"] = retention.forget_posts(now - timedelta(days=days), left)
    if days := settings.KEEP_INBOUND_DAYS:
        went["inbound"] = retention.forget_inbound(now - timedelta(days=days), left)
    if any(went.values()):
        log.info("retention: %s", ", ".join(f"{n} {kind}" for kind, n in went.items() if n))
    return went
