"""Tells applications what became of their mail: signed webhooks out of the outbox (PROTOCOL 33, 34).

    endpoints    a URL that hears events is made; a telling is sent again
    body         the JSON of an event, made at its first try and frozen
    courier      run(): claim → POST → record, a sliding window over all endpoints
    outbox       the rows: what is due, and what came of it
    post         one POST: signature, answer, and when to try again

At least once: a worker that dies between the POST and its record sends it again, with the same id.
"""

from deliveries.notify.courier import run
from deliveries.notify.endpoints import create_endpoint, new_secret, replay

__all__ = ["create_endpoint", "new_secret", "replay", "run"]
