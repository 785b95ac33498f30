"""Is this the database of a moment ago? After a restore, what it calls waiting may have been sent long since.

Nobody has to remember to say so. Two signs are compared before anything is sent, and every few seconds from then on:

- where the data lies: the cluster's identifier, its timeline and the table's own number are written into the one row of
  `installation`. A dump that was read, and a recovery to a point in time, always change one of them;
- how far it had come: a counter in that row goes up with the sweeper, and is repeated in Valkey and in a file of each
  host. A copy of the data directory, or a volume's snapshot, is behind what they have seen.

Where a sign tells of a restore, `asked_at` is set, and nothing leaves until a person has answered (record.restored):
no mail, no webhook, no report, no received mail that is handed on. Mail is accepted meanwhile, and is not in doubt.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import redis
from django.conf import settings

from deliveries import valkey
from deliveries.models.sql import execute

log = logging.getLogger(__name__)

#: a look is good for so long, and "no" for less, since somebody waits for the answer
LOOK_S = 5.0
ASKED_S = 1.0
#: in Valkey; a process that stands still for longer is no reason to forget
_KEPT_S = 400 * 24 * 3600

_lock = threading.Lock()
_good_until = 0.0
_fit = True
#: what this process has seen itself: Valkey may be lost, and a host may have no file
_seen: dict[UUID, int] = {}


@dataclass(frozen=True, slots=True)
class Question:
    """A restore that nobody has answered for. The data go as far as `until`."""

    asked_at: datetime
    until: datetime
    why: str


def fit() -> bool:
    """Whether mail and webhooks may leave. Asks Postgres once in LOOK_S; raises its errors."""
    global _good_until, _fit
    with _lock:
        if time.monotonic() >= _good_until:
            before, _fit = _fit, _look()
            if before and not _fit:
                log.error("nothing is sent until a person answers (manage.py restored): %s", question())
            _good_until = time.monotonic() + (LOOK_S if _fit else ASKED_S)
        return _fit


def forget() -> None:
    """The database was away: whoever came back may be another one."""
    global _good_until
    _good_until = 0.0


def beat() -> bool:
    """The sweeper's: look, and count one further; whether anything may leave."""
    forget()
    if not fit():
        return False
    row = execute(_BEAT).fetchone()
    if row is not None:
        _remember(row["name"], row["beats"])
        if (client := valkey.client()) is not None:
            with contextlib.suppress(redis.RedisError):
                client.set(_key(row["name"]), row["beats"], ex=_KEPT_S)
    return row is not None


def question() -> Question | None:
    row = execute("SELECT asked_at, beat_at, why FROM installation WHERE id = 1 AND asked_at IS NOT NULL").fetchone()
    return Question(row["asked_at"], row["beat_at"], row["why"]) if row else None


def ask(why: str) -> None:
    """Nothing is sent until a person answers; the first reason stays."""
    execute(_MAKE)
    execute("UPDATE installation SET asked_at = now(), why = %(why)s WHERE id = 1 AND asked_at IS NULL", {"why": why})
    forget()


def go_on() -> None:
    """The person has answered: this is the database now, further than anybody has seen."""
    row = execute("SELECT name FROM installation WHERE id = 1").fetchone()
    beats = _beats_outside(row["name"]) if row else 0
    execute(_GO_ON, {"beats": beats})
    beat()


def _look() -> bool:
    row = execute(_LOOK).fetchone()
    if row is None:
        execute(_MAKE)
        return True
    if row["asked_at"] is not None:
        return False
    seen = _beats_outside(row["name"])
    # what others have seen was on disk before; who counted on between our two looks is no sign
    if seen > row["beats"] and (later := execute(_LOOK).fetchone()) is not None:
        row = later
    if seen > row["beats"]:
        ask(
            f"The database stands where it stood at {row['beat_at']:%Y-%m-%d %H:%M:%S} UTC, and was seen"
            f" {seen - row['beats']} beats further: a copy from before was put in its place."
        )
    elif row["lies_in"] != row["here"]:
        ask(
            f"The data of {row['beat_at']:%Y-%m-%d %H:%M:%S} UTC lie in another place than they did then (cluster/"
            f"timeline/table {row['lies_in']}, now {row['here']}): a backup was read, or a standby took over."
        )
    else:
        _remember(row["name"], row["beats"])
        return True
    return False


def _beats_outside(name: UUID) -> int:
    """The most that anybody outside of the database has seen; what cannot be asked has seen nothing."""
    seen = [_seen.get(name, 0)]
    if (client := valkey.client()) is not None:
        with contextlib.suppress(redis.RedisError, ValueError):
            seen.append(int(client.get(_key(name)) or 0))
    with contextlib.suppress(OSError, ValueError):
        whose, _, beats = _file().read_text().partition(" ")
        seen.append(int(beats) if whose == str(name) else 0)
    return max(seen)


def _remember(name: UUID, beats: int) -> None:
    """In this process, and in the host's file where there is a place for one."""
    if beats <= _seen.get(name, -1):
        return
    _seen.clear()
    _seen[name] = beats
    new = _file().with_name(f"beats.{os.getpid()}")
    with contextlib.suppress(OSError):
        new.write_text(f"{name} {beats}")
        new.replace(_file())


def _file() -> Path:
    return Path(settings.VAR) / "beats"


def _key(name: UUID) -> str:
    return f"mailapi:beats:{name}"


_HERE = """
concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
          left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), 'installation'::regclass::oid)
"""

_LOOK = f"SELECT i.*, {_HERE} AS here FROM installation i WHERE id = 1"

_MAKE = f"""
INSERT INTO installation (id, name, lies_in, beats, beat_at, why)
VALUES (1, gen_random_uuid(), {_HERE}, 0, now(), '') ON CONFLICT (id) DO NOTHING
"""

_BEAT = f"""
UPDATE installation SET beats = beats + 1, beat_at = now()
 WHERE id = 1 AND asked_at IS NULL AND lies_in = {_HERE} RETURNING name, beats
"""

_GO_ON = f"""
UPDATE installation SET asked_at = NULL, why = '', lies_in = {_HERE}, beats = greatest(beats, %(beats)s) WHERE id = 1
"""
