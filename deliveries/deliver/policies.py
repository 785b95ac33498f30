"""MTA-STS policies in Postgres: they outlive the process, and all workers share them.

The event loop never touches the database, so a thread with a connection of its own does. Each process
remembers what it was told for a minute, so that the mails of a busy domain cost one query.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, connection

from deliveries.models.sql import execute
from deliveries.routing.mta_sts import Mode, Policy, Stored

log = logging.getLogger(__name__)

_REMEMBER_S = 60.0
_MOST = 10_000

T = TypeVar("T")


class Policies:
    """A deliveries.routing.mta_sts.PolicyStore. While Postgres is away it knows what this process remembers."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policies")
        self._known: OrderedDict[str, tuple[float, Stored | None]] = OrderedDict()

    async def get(self, domain: str) -> Stored | None:
        until, stored = self._known.get(domain, (0.0, None))
        if time.monotonic() < until:
            return stored
        try:
            stored = await self._in_thread(lambda: _read(domain))
        except (DatabaseError, InterfaceError) as e:
            log.warning("the MTA-STS policy of %s cannot be read: %r", domain, e)
            return stored
        self._remember(domain, stored)
        return stored

    async def put(self, domain: str, stored: Stored) -> None:
        self._remember(domain, stored)
        try:
            await self._in_thread(lambda: _write(domain, stored))
        except (DatabaseError, InterfaceError) as e:
            log.warning("the MTA-STS policy of %s cannot be kept: %r", domain, e)

    def close(self) -> None:
        self._thread.submit(lambda: connection.close())  # the connection of that thread, not of ours
        self._thread.shutdown(wait=True)

    def _remember(self, domain: str, stored: Stored | None) -> None:
        self._known[domain] = (time.monotonic() + _REMEMBER_S, stored)
        self._known.move_to_end(domain)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def once() -> T:
            try:
                return work()
            except (DatabaseError, InterfaceError):
                connection.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, once)


def _read(domain: str) -> Stored | None:
    row = execute(_GET, {"domain": domain}).fetchone()
    if row is None:
        return None
    policy = Policy(Mode(row["mode"]), tuple(row["mx"]), row["max_age_s"])
    return Stored(row["policy_id"], policy, row["fetched_at"].timestamp())


def _write(domain: str, stored: Stored) -> None:
    execute(
        _PUT,
        {
            "domain": domain,
            "id": stored.id,
            "mode": stored.policy.mode.value,
            "mx": list(stored.policy.mx),
            "max_age": stored.policy.max_age_s,
            "fetched": datetime.fromtimestamp(stored.fetched_at, UTC),
        },
    )


_GET = "SELECT policy_id, mode, mx, max_age_s, fetched_at FROM mta_sts_policy WHERE domain = %(domain)s"

_PUT = """
INSERT INTO mta_sts_policy (domain, policy_id, mode, mx, max_age_s, fetched_at)
VALUES (%(domain)s, %(id)s, %(mode)s, to_jsonb(%(mx)s::text[]), %(max_age)s, %(fetched)s)
ON CONFLICT (domain) DO UPDATE
   SET policy_id = EXCLUDED.policy_id, mode = EXCLUDED.mode, mx = EXCLUDED.mx, max_age_s = EXCLUDED.max_age_s,
       fetched_at = EXCLUDED.fetched_at
"""
