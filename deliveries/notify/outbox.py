"""The outbox rows: which are due, endpoint by endpoint, and what became of a POST.

Due rows are looked for per endpoint (a loose scan over `webhook_due`), never in one line for all: a million tellings
for an endpoint that is down cost the others nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from deliveries.errors import Unreadable
from deliveries.models import WebhookDelivery, WebhookEndpoint
from deliveries.models.fields import decrypt, uuid7
from deliveries.models.sql import execute
from deliveries.notify.body import bodies_as
from deliveries.notify.post import Posted, Telling, wait_after
from deliveries.record.again import again
from deliveries.record.notices import Notice, tell
from deliveries.smtp.reply import clean
from deliveries.states import EventType

log = logging.getLogger(__name__)

#: rows in hand for an endpoint that answers (the courier POSTs four of them at a time), and for one that does not
IN_HAND = 48
IN_HAND_FAILING = 1
#: a claimed row is tried again after it, should its worker die: longer than any POST and its record
LEASE_S = 60
#: only failures for so long, then it is switched off (docs/rfc.md, rule 33)
DISABLE_AFTER_DAYS = 5
#: rows of a switched-off endpoint given up in one claim
_DROP = 1_000
_UNREADABLE = (
    "Nothing was sent: the endpoint's secret cannot be read (no key of FIELD_KEYS opens it). Give it a new secret, and"
    " its password once more where it has one."
)

State = WebhookDelivery.State


def due() -> bool:
    """Whether anything is to be told now: one look into the index."""
    row = execute(_ANY_DUE).fetchone()
    return bool(row and row["due"])


def claim(free: int, failing: int, busy: Mapping[UUID, int]) -> list[Telling]:
    """Up to `free` rows, at most `failing` of them for endpoints that fail; ours for LEASE_S.

    `busy` is how many rows are in hand per endpoint. Bodies that are not there yet are made and frozen in the same
    transaction, before anything is sent.
    """
    params = {
        "free": free,
        "failing": failing,
        "busy": list(busy),
        "counts": list(busy.values()),
        "in_hand": IN_HAND,
        "in_hand_failing": IN_HAND_FAILING,
        "drop": _DROP,
    }
    with transaction.atomic():
        rows = execute(_CLAIM, params).fetchall()
        unmade = [(row["event_id"], row["format"]) for row in rows if not row["body"]]
        if unmade:
            execute(_BY_KEYS)
        made = bodies_as(unmade) if unmade else {}
        # an event that retention took before it was ever told: there is nothing to tell
        fresh = [None if row["body"] else made.get((row["event_id"], row["format"]), "") for row in rows]
        if rows:
            execute(_HOLD, {"id": [row["id"] for row in rows], "body": fresh, "lease": LEASE_S})
    return [
        Telling(
            id=row["id"],
            tenant_id=row["tenant_id"],
            endpoint_id=row["endpoint_id"],
            event_id=row["event_id"],
            url=row["url"],
            body=row["body"] or made[row["event_id"], row["format"]],
            format=row["format"],
            tries=row["tries"],
            failing=row["failing"],
            **_secrets(row),
        )
        for row in rows
        if row["body"] or (row["event_id"], row["format"]) in made
    ]


def _secrets(row: Mapping[str, Any]) -> dict[str, str]:
    """What signs and what logs in. One that cannot be read is its endpoint's failed try, and nobody else's affair."""
    try:
        # the newest first; the one before it as long as it is good
        secrets = decrypt(bytes(row["secret"])).decode("ascii")
        credentials = decrypt(bytes(row["credentials"])).decode() if row["credentials"] else ""
    except Unreadable:
        return {"secrets": "", "broken": _UNREADABLE}
    if row["previous"]:
        with suppress(Unreadable):  # the newest signs alone
            secrets += " " + decrypt(bytes(row["previous"])).decode("ascii")
    return {"secrets": secrets, "credentials": credentials}


def record(posted: Sequence[Posted]) -> None:
    """Tries logged, rows ended or moved, endpoints marked, the hopeless switched off: one transaction."""
    if posted:
        again(lambda: _record(posted))


def give_back(tellings: Sequence[Telling]) -> None:
    """What was claimed and not begun is due again at once; a crash instead leaves it to the lease."""
    if tellings:
        execute(_GIVE_BACK, {"ids": [t.id for t in tellings]})


def replay(ids: Sequence[UUID], tenant_id: UUID | None = None) -> int:
    """Tell again what was told or given up, by the whole schedule and with the same id and body; how many.

    Endpoints that are switched off stay untold.
    """
    on = WebhookEndpoint.objects.filter(enabled=True).values("id")
    rows = WebhookDelivery.objects.filter(id__in=list(ids), endpoint_id__in=on)
    if tenant_id is not None:
        rows = rows.filter(tenant_id=tenant_id)
    return rows.exclude(state=State.PENDING).update(state=State.PENDING, tries=0, next_try_at=Now())


def _record(posted: Sequence[Posted]) -> None:
    well = {p.telling.endpoint_id for p in posted if p.ok}
    ill = {p.telling.endpoint_id for p in posted if not p.ok} - well
    gone = {p.telling.endpoint_id for p in posted if p.gone}
    with transaction.atomic():
        execute(_RECORD, _columns(posted))
        marks = {"well": sorted(well), "ill": sorted(ill), "gone": sorted(gone), "days": DISABLE_AFTER_DAYS}
        if well | ill | gone:
            execute(_MARK, marks)
        if ill or gone:
            off = execute(_SWITCH_OFF, marks).fetchall()
            data = [{"endpoint_id": str(e["id"]), "url": e["url"], "reason": e["disabled_reason"]} for e in off]
            tell([Notice(e["tenant_id"], EventType.WEBHOOK_DISABLED, d) for e, d in zip(off, data, strict=True)])
            for e in off:
                ids = {"event": "endpoint.off", "endpoint_id": e["id"], "tenant": e["tenant_id"]}
                log.warning("webhook endpoint %s is switched off: %s", e["id"], e["disabled_reason"], extra=ids)


def _columns(posted: Sequence[Posted]) -> dict[str, list[object]]:
    waits = [wait_after(p) for p in posted]
    states = [
        State.DELIVERED if p.ok else State.FAILED if wait is None else State.PENDING
        for p, wait in zip(posted, waits, strict=True)
    ]
    return {
        "try_id": [uuid7() for _ in posted],
        "id": [p.telling.id for p in posted],
        "at": [p.at for p in posted],
        "url": [p.telling.url for p in posted],
        "address": [p.address for p in posted],
        "status": [p.status for p in posted],
        "elapsed": [p.elapsed_ms for p in posted],
        "answer": ["\n".join(clean(line) for line in p.answer.splitlines()) for p in posted],
        "error": [clean(p.error) for p in posted],
        "state": [s.value for s in states],
        "wait": [wait or 0.0 for wait in waits],
    }


_WAITING = f"""
waiting AS (
    (SELECT endpoint_id FROM webhook_delivery WHERE state = '{State.PENDING}' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM webhook_delivery d
             WHERE d.state = '{State.PENDING}' AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
      FROM waiting w WHERE w.endpoint_id IS NOT NULL
)
"""

_ANY_DUE = f"""
WITH RECURSIVE {_WAITING}
SELECT EXISTS (
    SELECT FROM waiting w CROSS JOIN LATERAL (
        SELECT FROM webhook_delivery d
         WHERE d.endpoint_id = w.endpoint_id AND d.state = '{State.PENDING}' AND d.next_try_at <= now() LIMIT 1) d
) AS due
"""

_CLAIM = f"""
WITH RECURSIVE {_WAITING}, endpoint AS (
    SELECT w.endpoint_id AS id, e.enabled IS NOT TRUE AS off, e.failing_since IS NOT NULL AS failing,
           -- more only once half is told: fewer and larger claims
           CASE WHEN e.failing_since IS NOT NULL THEN %(in_hand_failing)s - coalesce(b.n, 0)
                WHEN b.n > %(in_hand)s / 2 THEN 0
                ELSE %(in_hand)s - coalesce(b.n, 0) END AS places
      FROM waiting w
      LEFT JOIN webhook_endpoint e ON e.id = w.endpoint_id
      LEFT JOIN unnest(%(busy)s::uuid[], %(counts)s::int[]) AS b(id, n) ON b.id = w.endpoint_id
     WHERE w.endpoint_id IS NOT NULL
), candidate AS MATERIALIZED (
    SELECT d.id, d.next_try_at, e.failing,
           row_number() OVER (PARTITION BY e.failing ORDER BY d.next_try_at, d.id) AS place
      FROM endpoint e CROSS JOIN LATERAL (
          SELECT d.id, d.next_try_at FROM webhook_delivery d
           WHERE d.endpoint_id = e.id AND d.state = '{State.PENDING}' AND d.next_try_at <= now()
           ORDER BY d.next_try_at LIMIT greatest(e.places, 0)) d
     WHERE NOT e.off
), picked AS MATERIALIZED (
    SELECT id FROM candidate WHERE NOT failing OR place <= %(failing)s ORDER BY next_try_at LIMIT %(free)s
), locked AS (
    SELECT d.id, d.tenant_id, d.endpoint_id, d.event_id, d.body, d.tries FROM webhook_delivery d
     WHERE d.id IN (SELECT id FROM picked) AND d.state = '{State.PENDING}' AND d.next_try_at <= now()
       FOR UPDATE SKIP LOCKED
), dropped AS (
    UPDATE webhook_delivery SET state = '{State.FAILED}' WHERE id IN (
        SELECT d.id FROM endpoint e CROSS JOIN LATERAL (
            SELECT d.id FROM webhook_delivery d
             WHERE d.endpoint_id = e.id AND d.state = '{State.PENDING}' AND d.next_try_at <= now()
             LIMIT %(drop)s) d
         WHERE e.off)
)
SELECT l.*, e.url, e.format, e.secret, e.credentials,
       CASE WHEN e.previous_until > now() THEN e.previous_secret END AS previous,
       e.failing_since IS NOT NULL AS failing
  FROM locked l JOIN webhook_endpoint e ON e.id = l.endpoint_id
"""

# Events go by keys: planned anew at each turn, over every month's tables, their statement takes 2.9 ms to run for 0.1.
# A plan that is kept must hold when tables grow, so none that reads one whole. Not for the claim, whose plan depends on
# how many rows are due: kept, it takes three times as long at 200,000.
_BY_KEYS = """
SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
"""

# the lease and the body in one version of the row; '' is a body that cannot be made any more
_HOLD = f"""
UPDATE webhook_delivery d
   SET next_try_at = now() + make_interval(secs => %(lease)s), body = coalesce(f.body, d.body),
       state = CASE f.body WHEN '' THEN '{State.FAILED}' ELSE d.state END
  FROM unnest(%(id)s::uuid[], %(body)s::text[]) AS f(id, body) WHERE d.id = f.id
"""

_GIVE_BACK = f"""
UPDATE webhook_delivery SET next_try_at = now() WHERE id = ANY (%(ids)s::uuid[]) AND state = '{State.PENDING}'
"""

_RECORD = f"""
WITH p AS (
    SELECT * FROM unnest(
        %(try_id)s::uuid[], %(id)s::uuid[], %(at)s::timestamptz[], %(url)s::text[], %(address)s::text[],
        %(status)s::int[], %(elapsed)s::int[], %(answer)s::text[], %(error)s::text[], %(state)s::text[],
        %(wait)s::float8[]
    ) AS p(try_id, id, at, url, address, status, elapsed, answer, error, state, wait)
), logged AS (
    INSERT INTO webhook_try (id, delivery_id, at, url, address, status_code, elapsed_ms, response, error)
    SELECT try_id, id, at, url, address, status, elapsed, answer, error FROM p
)
UPDATE webhook_delivery d
   SET state = p.state, tries = d.tries + 1, next_try_at = now() + make_interval(secs => p.wait)
  FROM p WHERE d.id = p.id AND d.state = '{State.PENDING}'
"""

# one statement, so that two couriers lock the endpoints' rows in the same order
_MARK = """
UPDATE webhook_endpoint e SET failing_since = CASE WHEN e.id = ANY (%(well)s::uuid[]) THEN NULL ELSE now() END
 WHERE e.id IN (
     SELECT id FROM webhook_endpoint
      WHERE (id = ANY (%(well)s::uuid[]) AND failing_since IS NOT NULL)
         OR (id = ANY (%(ill)s::uuid[] || %(gone)s::uuid[]) AND failing_since IS NULL)
      ORDER BY id FOR UPDATE)
"""

_SWITCH_OFF = """
UPDATE webhook_endpoint e
   SET enabled = false,
       disabled_reason = CASE WHEN e.id = ANY (%(gone)s::uuid[])
           THEN 'It answered 410 Gone.'
           ELSE 'Every try has failed since ' || to_char(e.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
                || ' UTC.' END
 WHERE e.enabled AND (e.id = ANY (%(gone)s::uuid[])
        OR (e.id = ANY (%(ill)s::uuid[]) AND e.failing_since < now() - make_interval(days => %(days)s)))
RETURNING e.id, e.tenant_id, e.url, e.disabled_reason
"""
