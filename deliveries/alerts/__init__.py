"""Tells the operator of troubles by mail and webhook: ALERT_EMAIL, ALERT_WEBHOOK_URL (docs/operations.md, Alerts).

    look     what is wrong now                    → Trouble
    judge    against what is known of it          → Step: what to store, and the word that goes out
    ways     our own queue, a smarthost, a webhook

Jobs run it when beat rings, and each web process by itself, so that it goes on when beat, jobs or web is what is gone;
a lock in Postgres lets one of them do it at a time. With Postgres away, web tells that much by the ways that need none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from deliveries import metrics
from deliveries.alerts import look, ways
from deliveries.alerts.judge import Kind, Known, Step, Trouble, Word, judge, told
from deliveries.models import OperatorAlert
from deliveries.models.sql import alone

log = logging.getLogger(__name__)

#: between two looks of a web process; beat's come between them
EVERY_S = 15.0
#: a database that is away for so long is told of
_AWAY_S = 60.0
_MARK = "database-away"
_A_DAY_S = 86_400
#: any number, the same in all processes
_LOCK = 7_201_943
#: this process has told that the database is away, with nobody to ask who else did
_told_alone = False


def run(now: datetime | None = None) -> int:
    """One look; how many mails or posts went out. Nothing where no way is set, or another process is at it."""
    return _pass(look.look, look.ours, now)


def run_listings(now: datetime | None = None) -> int:
    """One look at block lists, which are asked once an hour; how many mails or posts went out."""
    if not ways.any_set() or (found := look.listings()) is None:
        return 0
    return _pass(lambda: found, lambda trouble: trouble.kind is Kind.LISTED, now)


def _pass(see: Callable[[], Sequence[Trouble]], looked_at: Callable[[Trouble], bool], now: datetime | None) -> int:
    if not ways.any_set():
        return 0
    now = now or datetime.now(UTC)
    # until this one has told what it found, no other process looks
    with alone(_LOCK) as mine:
        if not mine:
            return 0
        with transaction.atomic():
            steps = judge(see(), _known(), now, timedelta(seconds=settings.ALERT_QUIET_S), looked_at)
            _keep([step.known for step in steps])
        # the network comes after the commit; what is told twice at worst, after a crash, has one Message-ID
        news = ways.group(steps, now)
        for one in news:
            if ways.tell(one):
                _keep([told(step, now) for step in one.steps])
        return len(news)


def _keep(rows: Sequence[Known]) -> None:
    for known in rows:
        trouble = known.trouble
        state = {"words": trouble.words, "since": known.since, "seen_at": known.seen_at, "open": known.open,
                 "told_at": known.told_at, "told_open": known.told_open}  # fmt: skip
        OperatorAlert.objects.update_or_create(state, kind=trouble.kind, subject=trouble.subject)


def _known() -> dict[tuple[str, str], Known]:
    rows = [
        Known(Trouble(Kind(r.kind), r.subject, r.words), r.since, r.seen_at, r.open, r.told_at, r.told_open)
        for r in OperatorAlert.objects.filter(kind__in=list(Kind))
    ]
    return {known.trouble.key: known for known in rows}


def stand_watch(role: str) -> None:
    """A thread of this process that looks for as long as the process lives, and says that it lives."""
    threading.Thread(target=_watch, args=(role,), name="alerts", daemon=True).start()


def _watch(role: str) -> None:
    away_since: float | None = None
    look_at = time.monotonic() + EVERY_S  # what starts with this process is not there yet
    while True:
        metrics.alive(role)
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + EVERY_S
            try:
                run()
                away_since = None
                _database_is(away=False)
            except (OperationalError, InterfaceError):
                away_since = away_since or time.monotonic()
                _database_is(away=time.monotonic() - away_since >= _AWAY_S)
            except Exception:  # a thread that ended would watch no more
                log.exception("troubles are not looked for")
            finally:
                connection.close()
        time.sleep(metrics.SIGN_S)


def _database_is(away: bool) -> None:
    """Told without it: once by whichever process is first to say so in Valkey, and its end by the first as well.

    Valkey may be away with it, as both are where a host died: each process then tells for itself, for told by several
    is better than by none.
    """
    global _told_alone
    if not ways.any_set():
        return
    first = metrics.mark(_MARK, _A_DAY_S) if away else metrics.unmark(_MARK)
    if first is None or (_told_alone and not away):
        first = _told_alone is not away
        _told_alone = away
    if not first:
        return
    now = datetime.now(UTC)
    trouble = Trouble(Kind.DATABASE_AWAY, "", "Postgres does not answer: nothing is accepted, nothing is delivered.")
    step = Step(Known(trouble, now, now, away), Word.BEGINS if away else Word.ENDS)
    ways.tell(ways.News((step,), now), queue=not away)
