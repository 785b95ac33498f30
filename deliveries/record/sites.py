"""Orders of a person about a receiver or a route: pause it, resume it, slow it. Each is one transaction, and audited.

What a person paused only a person resumes: no answer of the site changes its row meanwhile (pace.next_pace).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction

from deliveries import queue
from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.record.again import again
from deliveries.smtp.pace import first_pace
from deliveries.smtp.providers import profile_of


def pause_site(name: str, reason: str, actor: str, until: datetime | None = None) -> None:
    """Nothing is begun there until it is resumed, or until `until`. `reason` in words, shown wherever mail waits."""
    words = reason or f"{name} was paused by {actor}."
    _order(_PAUSE, name, actor, "site.paused", reason=words, until=until or NEVER)


def resume_site(name: str, actor: str) -> None:
    """What waits is due as before; strikes and misses are forgotten. Bounds of an operator stay."""
    _order(_RESUME, name, actor, "site.resumed", rings=True)


def slow_site(name: str, places: int | None, actor: str) -> None:
    """At most so many transactions at a time, whatever its profile says; None lifts the bound again.

    Raises ValueError for fewer than one: that would be a pause.
    """
    if places is not None and places < 1:
        raise ValueError("a site needs at least one place; pause it to send nothing")
    reason = "" if places is None else f"Bound to {places} at a time by {actor}."
    _order(_SLOW, name, actor, "site.slowed", most=places, reason=reason, rings=True)


def _order(statement: str, name: str, actor: str, action: str, rings: bool = False, **more: Any) -> None:
    first = first_pace(profile_of(name))
    params = {"name": name, "places": first.places, "proven": first.proven, "actor": actor, "action": action, **more}

    def work() -> None:
        with transaction.atomic():
            execute(_MEET, params)
            execute(statement, params)
            execute(_AUDIT, params)
            if rings:
                transaction.on_commit(queue.wake)

    again(work)


_MEET = """
INSERT INTO site (name, places, most_places, proven, misses, strikes, slowed_at, suspended_until, reason, last_reply,
                  paused_by, changed_at)
VALUES (%(name)s, %(places)s, NULL, %(proven)s, 0, 0, NULL, NULL, '', '', '', now())
ON CONFLICT (name) DO NOTHING
"""

# its destinations are pushed to the end of the rest by the next claim that meets them
_PAUSE = """
UPDATE site SET suspended_until = %(until)s, reason = %(reason)s, paused_by = left(%(actor)s, 200), changed_at = now()
 WHERE name = %(name)s
"""

# too early a due time costs one look, too late a one would cost the mail: whatever slept is looked at
_RESUME = """
WITH resumed AS (
    UPDATE site SET suspended_until = NULL, reason = '', paused_by = '', strikes = 0, misses = 0, slowed_at = NULL,
                    changed_at = now()
     WHERE name = %(name)s
)
UPDATE destination SET next_due = now() WHERE name = %(name)s AND lane IN (0, 1, 2) AND next_due > now()
"""

_SLOW = """
UPDATE site SET most_places = %(most)s::int, places = coalesce(least(places, %(most)s::int), places),
                reason = CASE WHEN suspended_until > now() THEN reason ELSE %(reason)s END, changed_at = now()
 WHERE name = %(name)s
"""

_AUDIT = """
INSERT INTO audit_entry (id, tenant_id, actor, action, subject, at)
VALUES (make_uuid7(), NULL, left(%(actor)s, 200), %(action)s, left(%(name)s, 300), now())
"""
