"""Received mail handed on: to an MDA by LMTP, or to a mail server by SMTP, as the address's route says.

The mail goes as it came, with its own reverse-path, and once more until the other server took it: twice is better than
never here. What is refused, or not taken within MAX_AGE, is marked as failed and shown; no mail is written about it, so
that nothing of ours answers a forged sender (RFC 5321 §6.1 asks for a notification; but the mail is still here to be
read, and the tenant was told of it). A mail that has passed MAX_RECEIVED servers goes in circles, and stays.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings

from deliveries.errors import ComposeError
from deliveries.models import Handover, InboundRoute
from deliveries.models.sql import alone, execute
from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.pool import Pool
from deliveries.smtp.reply import clean
from deliveries.smtp.session import open_gate
from deliveries.states import Status

log = logging.getLogger(__name__)

#: mails of one claim: their octets are in memory together
AT_A_TIME = 5
#: no new mail is begun after it; the task's own limit lies above
MAX_RUN_S = 45.0
#: for sql.alone
_LOCK = 0x6D61696C68616E64
#: one mail to one server; the lease is longer, so that nobody else has it meanwhile
DEADLINE_S = 60.0
LEASE_S = 180
#: RFC 5321 §6.3: what a listener takes has passed at most 50; one that is handed on shall still have a way to go
MAX_RECEIVED = 30
#: addresses of one host that are tried
_MAX_ADDRESSES = 3
_RECEIVED = re.compile(rb"(?im)^received[ \t]*:")

State = Handover.State


@dataclass(frozen=True, slots=True)
class Ended:
    """How one try ended. `reply` for a person."""

    state: State
    reply: str


def run() -> int:
    """Hand on what is due; how many were taken by their servers. Returns at once where another is at work.

    One at a time: servers that hang shall never hold every worker.
    """
    with alone(_LOCK) as mine:
        return _run() if mine else 0


def _run() -> int:
    done = 0
    end = time.monotonic() + MAX_RUN_S
    while time.monotonic() < end:
        rows = execute(_CLAIM, {"most": AT_A_TIME, "lease": LEASE_S}).fetchall()
        if not rows:
            break
        for row, ended in zip(rows, asyncio.run(_all(rows)), strict=True):
            _record(row, ended)
            done += ended.state == State.DONE
    return done


async def _all(rows: list[dict[str, Any]]) -> list[Ended]:
    pool = Pool(helo_name=settings.HELO_NAME, ca_file=settings.SMTP_CA_FILE or None)
    try:
        return await asyncio.gather(*(_one(pool, row) for row in rows))
    finally:
        await pool.close()


async def _one(pool: Pool, row: dict[str, Any]) -> Ended:
    """One mail to one forward-path of its route."""
    if row["octets"] is None:
        return Ended(State.FAILED, "The mail is no longer kept.")
    if row["forward"] in (None, InboundRoute.Forward.NONE):
        return Ended(State.FAILED, "The address is not handed on any more.")
    octets = bytes(row["octets"])
    if len(_RECEIVED.findall(octets.partition(b"\r\n\r\n")[0])) > MAX_RECEIVED:
        return Ended(State.FAILED, f"It has passed more than {MAX_RECEIVED} servers: it goes in circles.")
    try:
        hops = await _hops(row["host"], row["port"], row["forward"] == InboundRoute.Forward.LMTP)
    except OSError as e:
        return Ended(State.PENDING, f"{row['host']} has no address: {e.strerror or e}")
    envelope = Envelope(
        reverse_path=row["reverse_path"],
        forward_path=row["forward_path"],
        smtputf8=not (row["reverse_path"] + row["forward_path"]).isascii(),
    )
    try:
        # no crash ledger: a second copy does no harm here
        attempts = await pool.deliver(hops, envelope, octets, open_gate, DEADLINE_S)
    except ComposeError as e:
        return Ended(State.FAILED, f"It cannot be put on the wire: {e}.")
    verdict = classify(attempts[-1].outcome, own_smarthost=True)
    if verdict.status is Status.DELIVERED:
        return Ended(State.DONE, verdict.text)
    # a final reply that never came: it may arrive twice, and never not at all
    return Ended(State.FAILED if verdict.status is Status.BOUNCED else State.PENDING, verdict.text)


async def _hops(host: str, port: int, lmtp: bool) -> list[Hop]:
    """The operator named the host: the system's own names count (/etc/hosts, a container's network)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MAX_ADDRESSES]
    return [Hop(host, address, port, lmtp=lmtp, tls=Tls.MAY, site=host) for address in addresses]


def _record(row: dict[str, Any], ended: Ended) -> None:
    state, reply = ended.state, ended.reply
    wait = settings.RETRY.wait_after(row["tries"])
    if state == State.PENDING and row["age_s"] + wait > settings.RETRY.max_age_s:
        state, reply = State.FAILED, f"Given up. {reply}"
    if state == State.FAILED:
        log.warning("mail %s is not handed on to %s: %s", row["inbound_id"], row["forward_path"], reply)
    params = {"id": row["id"], "state": state.value, "reply": clean(reply)[:1_000], "wait": wait}
    execute(_RECORD, params)


def again(ids: list[UUID]) -> int:
    """Hand on once more, by the whole schedule; how many."""
    return execute(_AGAIN, {"ids": ids}).rowcount


_CLAIM = f"""
WITH due AS (
    SELECT id FROM handover WHERE state = '{State.PENDING}' AND due_at <= now() ORDER BY due_at LIMIT %(most)s
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE handover h SET tries = h.tries + 1, due_at = now() + make_interval(secs => %(lease)s)
      FROM due WHERE h.id = due.id
    RETURNING h.id, h.inbound_id, h.route_id, h.forward_path, h.tries, h.created_at
)
SELECT c.id, c.inbound_id, c.forward_path, c.tries, extract(epoch FROM now() - c.created_at)::float8 AS age_s,
       r.forward, r.host, r.port, m.octets, m.reverse_path
  FROM claimed c
  LEFT JOIN inbound_route r ON r.id = c.route_id
  LEFT JOIN inbound_message m ON m.id = c.inbound_id
"""

_RECORD = f"""
UPDATE handover SET state = %(state)s, reply = %(reply)s, due_at = now() + make_interval(secs => %(wait)s)
 WHERE id = %(id)s AND state = '{State.PENDING}'
"""

_AGAIN = f"""
UPDATE handover SET state = '{State.PENDING}', tries = 0, due_at = now(), created_at = now()
 WHERE id = ANY (%(ids)s::uuid[]) AND state = '{State.FAILED}'
"""
