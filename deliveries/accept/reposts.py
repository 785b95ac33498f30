"""A client that posts again because no answer came in time: one mail, not four.

Postmark's Python SDK gives up after five seconds and posts the same octets anew, without an idempotency key. Such a
post is answered with what the one before it is given, where that one

    still ran when it came, and had begun a second or more before (nobody gives up sooner), or
    took more than four seconds, and ended less than thirty seconds ago.

Two quick posts of the same octets are two mails: some people do send the same twice.

An advisory lock says that one runs, on whatever host; its session ends with the process, so that a killed one bars
nobody. What was answered slowly is kept beside the idempotency keys.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from deliveries.errors import Conflict
from deliveries.models.fields import uuid7
from deliveries.models.sql import execute

#: younger than this, a running one is another mail that happens to be the same
SOON_S = 1.0
SLOW_S = 4.0
REMEMBERED_S = 30
#: the longest that a post waits for the one before it; then it is told to come again, and nothing was stored
_PATIENCE_S = 20.0
_LOOK_S = 0.05


def once(tenant_id: UUID, key_id: UUID, octets: bytes, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` answers (JSON), or what it answered to an earlier post of the same octets by the same key.

    Raises what `work` raises, and Conflict when the one before runs for longer than anybody waits.
    """
    digest = hashlib.sha256(key_id.bytes + octets).digest()
    which = {
        "lock": int.from_bytes(digest[:8], "big", signed=True),
        "tenant": tenant_id,
        "endpoint": f"repost:{key_id}",
        "key": digest.hex(),
    }
    came = _lock(which)
    try:
        if (found := execute(_FOUND, which | {"came": came}).fetchone()) is not None:
            return dict(json.loads(found["answer"]))
        began = time.monotonic()
        answer = work()
        if (took := time.monotonic() - began) > SOON_S:
            # JSON within JSON: the answer may repeat what no jsonb holds (NUL), and by now its mails are stored
            kept = {"took": took, "answer": json.dumps(answer)}
            execute(_KEEP, which | {"id": uuid7(), "hash": digest, "kept": json.dumps(kept)})
        return answer
    finally:
        execute("SELECT pg_advisory_unlock(%(lock)s)", which)


def _lock(which: dict[str, Any]) -> Any:
    """When this post came, by the database's clock, once no other holds the lock."""
    end = time.monotonic() + _PATIENCE_S
    came = None
    while True:
        row = execute("SELECT pg_try_advisory_lock(%(lock)s) AS got, clock_timestamp() AS now", which).fetchone()
        assert row is not None
        came = came or row["now"]
        if row["got"]:
            return came
        if time.monotonic() > end:
            raise Conflict("concurrent_requests", "The same request is still running; ask again.", retry_after_s=2)
        time.sleep(_LOOK_S)


_FOUND = f"""
SELECT answer ->> 'answer' AS answer FROM idempotency_key
 WHERE tenant_id = %(tenant)s AND endpoint = %(endpoint)s AND key = %(key)s
   AND (((answer ->> 'took')::float8 > {SLOW_S} AND created_at > now() - interval '{REMEMBERED_S} seconds')
     OR (%(came)s::timestamptz < created_at
         AND %(came)s::timestamptz > created_at - make_interval(secs => (answer ->> 'took')::float8 - {SOON_S})))
"""

_KEEP = """
INSERT INTO idempotency_key (id, tenant_id, endpoint, key, body_hash, answer, created_at)
VALUES (%(id)s, %(tenant)s, %(endpoint)s, %(key)s, %(hash)s, %(kept)s::jsonb, now())
ON CONFLICT (tenant_id, endpoint, key) DO UPDATE SET answer = EXCLUDED.answer, created_at = EXCLUDED.created_at
"""
