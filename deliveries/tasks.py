"""Celery tasks: five lines each, ids only, no state. The verbs are in the modules that they call."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import task_received, worker_shutting_down
from django.db import close_old_connections

from deliveries import alerts as alerting
from deliveries import brakes as braking
from deliveries import continuity, prune
from deliveries import deliver as delivering
from deliveries import domains as checking
from deliveries import dsn as reporting
from deliveries import erase as erasing
from deliveries import feedback as feeding
from deliveries import forward as forwarding
from deliveries import mailboxes as polling
from deliveries import notify as notifying
from deliveries import tls_reports as protecting
from deliveries.deliver import sweep as sweeping
from deliveries.record import figures

#: a pump that runs is woken by a bell within a millisecond, one that must be started takes several
LINGER_S = 2.0


@shared_task(name="deliveries.deliver")
def deliver() -> None:
    """The pump (queue `deliver`); returns some time after nothing is due and nothing is in flight."""
    delivering.run(LINGER_S)


@shared_task(name="deliveries.sweep", soft_time_limit=50, time_limit=60)
def sweep() -> None:
    """Leases whose worker is gone."""
    _sending(sweeping.sweep, continuity.beat)


@shared_task(name="deliveries.notify", soft_time_limit=110, time_limit=120)
def notify() -> None:
    """Webhooks that are due."""
    _sending(notifying.run)


@shared_task(name="deliveries.feedback", soft_time_limit=110, time_limit=120)
def feedback() -> None:
    """Reports that came in."""
    _fresh(feeding.run)


@shared_task(name="deliveries.mailboxes", soft_time_limit=110, time_limit=120)
def mailboxes() -> None:
    """Bounce mailboxes that are due."""
    _fresh(polling.run)


@shared_task(name="deliveries.brakes", soft_time_limit=50, time_limit=60)
def brakes() -> None:
    """Providers that refuse everybody."""
    _fresh(braking.run)


@shared_task(name="deliveries.watch", soft_time_limit=110, time_limit=120)
def watch() -> None:
    """Tenants whose mail nobody wants."""
    _fresh(braking.watch)


@shared_task(name="deliveries.alerts", soft_time_limit=50, time_limit=60)
def alerts() -> None:
    """What is wrong with the installation."""
    _fresh(alerting.run)


@shared_task(name="deliveries.listings", soft_time_limit=110, time_limit=120)
def listings() -> None:
    """Our addresses on block lists."""
    _fresh(alerting.run_listings)


@shared_task(name="deliveries.tls_reports", soft_time_limit=550, time_limit=600)
def tls_reports() -> None:
    """Reports to domains that ask how well our sessions were protected."""
    _sending(protecting.run)


@shared_task(name="deliveries.domains", soft_time_limit=170, time_limit=180)
def domains() -> None:
    """Sending domains whose records are due to be looked at."""
    _fresh(checking.run)


@shared_task(name="deliveries.dsn", soft_time_limit=50, time_limit=60)
def dsn() -> None:
    """Reports that senders asked for."""
    _sending(reporting.run)


@shared_task(name="deliveries.tally", soft_time_limit=50, time_limit=60)
def tally() -> None:
    """Events into the hours of the first page."""
    _fresh(figures.tally)


@shared_task(name="deliveries.forward", soft_time_limit=170, time_limit=180)
def forward() -> None:
    """Received mail that is handed on."""
    _sending(forwarding.run)


@shared_task(name="deliveries.housekeeping", soft_time_limit=550, time_limit=600)
def housekeeping() -> None:
    """Partitions ahead of time, retention."""
    _fresh(prune.run)


@shared_task(name="deliveries.erase", soft_time_limit=110, time_limit=120)
def erase() -> None:
    """Orders to take one person's data away."""
    _fresh(erasing.run)


@shared_task(name="deliveries.archive", soft_time_limit=110, time_limit=120)
def archive() -> None:
    """Bodies of finished mails to the S3 store."""
    _fresh(prune.archive)


@shared_task(name="deliveries.redact", soft_time_limit=50, time_limit=60)
def redact() -> None:
    """Mails that are finished and were asked not to be kept."""
    _fresh(prune.redact)


def _sending(verb: Any, fit: Any = continuity.fit) -> None:
    """What tells somebody outside waits while a restore is asked about."""
    _fresh(lambda: fit() and verb())


def _fresh(verb: Any) -> None:
    """A connection that broke since the last task is not used again."""
    close_old_connections()
    try:
        verb()
    finally:
        close_old_connections()


@task_received.connect
def _look(request: Any = None, **_: Any) -> None:
    """A bell that comes while the pump runs waits for the pump's end; what it tells of need not."""
    if request is not None and request.name == deliver.name:
        delivering.look()


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    """SIGTERM, in the worker's main thread (a threads pool; a prefork child would never hear of it)."""
    delivering.stop()
