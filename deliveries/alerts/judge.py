"""What is to be told of troubles: decisions alone, without database and clock.

A trouble is told once when it begins, once a day while it lasts, and once when it is over. One that comes and goes is
told at most once an hour: it is over only after it was not seen for `quiet`, and what begins again within AGAIN of the
last word is not told before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

AGAIN = timedelta(hours=1)
DAILY = timedelta(hours=24)


class Kind(StrEnum):
    """What can be wrong with an installation. docs/operations.md says of each what to do."""

    #: mail that is due and that nothing keeps back was not attempted for a minute
    MAIL_WAITS = "mail_waits"
    #: no process of a role gives a sign of life; the subject is the role
    ROLE_GONE = "role_gone"
    #: nobody can tell whether the roles live, and limits are not shared
    VALKEY_AWAY = "valkey_away"
    #: told by web alone, by the ways that need no database
    DATABASE_AWAY = "database_away"
    #: a receiver refuses everybody, or a tenant's mail is unwanted; the subject is the receiver or the tenant
    BRAKE = "brake"
    #: what a verified domain publishes is no longer there
    DOMAIN_BROKE = "domain_broke"
    #: a webhook endpoint was switched off after days of failures
    ENDPOINT_OFF = "endpoint_off"
    #: one of SOURCE_IPS stands on a block list
    LISTED = "listed"
    #: a receiver distrusts one of SOURCE_IPS, which rests there
    SOURCE_RESTS = "source_rests"
    #: a file system has little room left; the subject is host:path
    DISK = "disk"
    #: the months that rows will be written to are not made; housekeeping does not run
    PARTITIONS = "partitions"
    WEBHOOKS_LATE = "webhooks_late"
    REPORTS_LATE = "reports_late"


class Word(StrEnum):
    BEGINS = "begins"
    LASTS = "lasts"
    ENDS = "ends"


@dataclass(frozen=True, slots=True)
class Trouble:
    """`subject` tells troubles of a kind apart, and stays the same while one lasts; `words` may change."""

    kind: Kind
    subject: str
    words: str

    @property
    def key(self) -> tuple[str, str]:
        return self.kind.value, self.subject


@dataclass(frozen=True, slots=True)
class Known:
    """A trouble as it stands in Postgres. `told_at`: when somebody was last told of it, of its end too."""

    trouble: Trouble
    since: datetime
    seen_at: datetime
    open: bool
    told_at: datetime | None = None
    #: somebody was told that it is there, and not yet that it is over
    told_open: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What to store, and the word that goes out with it; None: nothing is said."""

    known: Known
    word: Word | None


def judge(
    seen: Iterable[Trouble],
    known: Mapping[tuple[str, str], Known],
    now: datetime,
    quiet: timedelta,
    looked_at: Callable[[Trouble], bool] = lambda _: True,
) -> list[Step]:
    """Steps for what is seen now and for what is no longer. `looked_at`: whether this look would have seen it."""
    steps = []
    here = {trouble.key: trouble for trouble in seen}
    for key, trouble in here.items():
        old = known.get(key)
        if old is None or not old.open:
            fresh = Known(trouble, now, now, True, old.told_at if old else None, bool(old and old.told_open))
        else:
            fresh = replace(old, trouble=trouble, seen_at=now)
        steps.append(Step(fresh, _of_open(fresh, now)))
    for key, old in known.items():
        if old.open and key not in here and now - old.seen_at >= quiet and looked_at(old.trouble):
            steps.append(Step(replace(old, open=False), Word.ENDS if old.told_open else None))
    return steps


def _of_open(known: Known, now: datetime) -> Word | None:
    if known.told_at is None:
        return Word.BEGINS
    if known.told_open:
        return Word.LASTS if now - known.told_at >= DAILY else None
    return Word.BEGINS if now - known.told_at >= AGAIN else None


def told(step: Step, now: datetime) -> Known:
    """As it stands once the word is out."""
    if step.word is None:
        return step.known
    return replace(step.known, told_at=now, told_open=step.word is not Word.ENDS)
