"""Opens and clicks, in batches, and recipients who leave a stream.

A visit by a program is told like any other, marked `bot` with the reason in `why`; only one by a person, as far as one
can tell, sets opened_at or clicked_at. Programs that fetch what a mail links to do so in the moment it is delivered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings

from deliveries import queue
from deliveries.models.fields import uuid7
from deliveries.models.sql import execute
from deliveries.record.again import again
from deliveries.record.suppressions import SUPPRESS_FROM, SUPPRESSED_TOLD
from deliveries.smtp.reply import clean
from deliveries.states import EventType, Status

#: after the delivery; nobody reads so fast
EARLY_S = 2
#: events of one delivery; who looks more often is a program in a loop
MOST_EVENTS = 500
_MAX_AGENT = 300


@dataclass(frozen=True, slots=True)
class Visit:
    """One request to a link of a delivery. `type` is OPENED or CLICKED, `link` the target of a click, `why` the sign by
    which a program is known ("" where none)."""

    delivery_id: UUID
    type: EventType
    at: datetime
    ip: str
    user_agent: str
    link: str = ""
    why: str = ""


def record(visits: Sequence[Visit]) -> None:
    """Events, outbox rows and the first times, in one statement. A delivery that is gone (retention) is passed over."""
    if not visits:
        return
    params = {
        "id": [uuid7() for _ in visits],
        "delivery": [v.delivery_id for v in visits],
        "type": [v.type.value for v in visits],
        "at": [v.at for v in visits],
        "why": [v.why for v in visits],
        "data": [json.dumps(_data(v)) for v in visits],
        "private": settings.PRIVACY,
    }
    again(lambda: execute(_VISITS, params))


def _data(visit: Visit) -> dict[str, str]:
    data = {"ip": visit.ip, "user_agent": clean(visit.user_agent)[:_MAX_AGENT], "link": visit.link}
    return {name: value for name, value in data.items() if value}


def left(delivery_id: UUID) -> bool:
    """The recipient leaves the stream of that mail: a suppression, its event, and `email.unsubscribed`.

    False where the delivery is no longer kept; a second time changes nothing.
    """
    row = again(lambda: execute(_LEFT, {"id": delivery_id, "event": uuid7()}).fetchone())
    return row is not None


_VISITS = f"""
WITH v AS (
    SELECT * FROM unnest(%(id)s::uuid[], %(delivery)s::uuid[], %(type)s::text[], %(at)s::timestamptz[],
                         %(why)s::text[], %(data)s::text[]) AS v(id, delivery, type, at, why, data)
), locked AS (
    SELECT d.id, d.tenant_id, d.message_id, d.recipient, d.events, d.status, d.settled_at
      FROM delivery d WHERE d.id IN (SELECT delivery FROM v) AND d.events < {MOST_EVENTS} ORDER BY d.id FOR UPDATE
), seen AS (
    SELECT v.id, v.type, v.at, l.id AS delivery,
           CASE WHEN %(private)s::bool OR (SELECT t.privacy FROM tenant t WHERE t.id = l.tenant_id)
                THEN v.data::jsonb - 'ip' - 'user_agent' ELSE v.data::jsonb END AS data,
           l.tenant_id, l.message_id, l.recipient,
           l.events + row_number() OVER (PARTITION BY l.id ORDER BY v.at, v.id) AS place,
           CASE WHEN v.why <> '' THEN v.why
                WHEN l.settled_at > v.at - make_interval(secs => {EARLY_S})
                  OR (l.settled_at IS NULL AND l.status <> '{Status.UNKNOWN}') THEN 'early' ELSE '' END AS why
      FROM v JOIN locked l ON l.id = v.delivery
), counted AS (
    UPDATE delivery d SET events = d.events + s.n, opened_at = coalesce(d.opened_at, s.opened),
           clicked_at = coalesce(d.clicked_at, s.clicked)
      FROM (SELECT delivery, count(*) AS n,
                   -- who clicked has opened it, whether or not pictures were shown
                   min(at) FILTER (WHERE why = '') AS opened,
                   min(at) FILTER (WHERE why = '' AND type = '{EventType.CLICKED}') AS clicked
              FROM seen GROUP BY delivery) s
     WHERE d.id = s.delivery
), told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, place, recipient, data, created_at)
    SELECT id, tenant_id, type, message_id, delivery, place, recipient,
           data || CASE WHEN why = '' THEN '{{}}'::jsonb
                               ELSE jsonb_build_object('bot', true, 'why', why) END, now()
      FROM seen
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
)
SELECT 1
"""

_LEFT = f"""
WITH at AS (
    SELECT d.id, d.tenant_id, d.message_id, d.recipient, m.stream
      FROM delivery d JOIN message m ON m.id = d.message_id WHERE d.id = %(id)s FOR UPDATE OF d
), wanted AS (
    SELECT tenant_id, stream, folded_address(recipient) AS address, 'unsubscribe'::text AS reason,
           'The recipient unsubscribed.'::text AS detail, %(event)s::uuid AS source_event,
           NULL::timestamptz AS expires_at, ''::text AS rule, ''::text AS category, ''::text AS site
      FROM at
), suppressed AS ({SUPPRESS_FROM.format(wanted="wanted")}
), changed AS (
    UPDATE delivery d SET events = d.events + 1 FROM suppressed s WHERE d.id = %(id)s
    RETURNING d.id, d.tenant_id, d.message_id, d.recipient, d.events, s.stream
), told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, place, recipient, data, created_at)
    SELECT %(event)s::uuid, c.tenant_id, '{EventType.UNSUBSCRIBED}', c.message_id, c.id, c.events, c.recipient,
           jsonb_build_object('stream', c.stream), now()
      FROM changed c
    UNION ALL
    {SUPPRESSED_TOLD}
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
)
SELECT id FROM at
"""
