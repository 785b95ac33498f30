"""Tells applications what became of their mail: signed webhooks out of the outbox (docs/rfc.md, rules 33, 34).

    ask          what a tenant asks of an endpoint: a test, replays of one event, a window, all that failed
    body         the JSON of an event, made at its first try and frozen
    courier      run(): claim → POST → record, a sliding window over all endpoints
    feed         the events in one order that no late commit disturbs, for those who poll
    log          what each endpoint was told, try by try
    outbox       the rows: what is due, what came of it, and replay()
    post         one POST: signature, answer, and when to try again

At least once: a worker that dies between the POST and its record sends it again, with the same id.
Endpoints are made in deliveries.endpoints; their rows here are written by accept and record.
"""

from deliveries.notify.courier import run
from deliveries.notify.outbox import replay

__all__ = ["replay", "run"]
