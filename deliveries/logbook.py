"""The log of API requests: noted in memory, written by a thread of its own, a batch at a time.

No request waits for it, and none fails for it. What is kept of a body is an outline: bounded in depth, length and
number, without secrets and files. A process notes a bounded number of good requests a second, since under load they
look alike, and more of those that failed; what it does not note is counted.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import deque
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import Error, connection
from django.utils import timezone

from deliveries.counters import LOGS_DROPPED
from deliveries.models.sql import execute

log = logging.getLogger(__name__)

#: notes a second of one process: good answers, others
GOOD_PER_S, BAD_PER_S = 100, 500
#: notes that wait for the database; each has a few KB at most
_MOST = 2_000
_BATCH = 500
_EVERY_S = 0.5

_LONGEST = 500
_WIDEST = 20
_DEEPEST = 6
#: characters of one stored body
_MOST_BODY = 16_384
#: octets of an answer that are read again for its outline
_MOST_ANSWER = 65_536
_SECRET = ("secret", "password", "token", "authorization", "private_key", "api_key", "signature")
#: user and password of a URL (RFC 3986 §3.2.1), such as a webhook's; and what may be half of one where a text was cut
_USERINFO = re.compile(r"(?i)(\bhttps?://)[^/?#\s]*@")
_USERINFO_CUT = re.compile(r"(?i)(\bhttps?://)[^/?#\s]*(?:@|\Z)")
#: characters of a text that are looked at for them: more than is shown, since what is found is not
_LOOKED_AT = 4 * _LONGEST
_FILE = ("content", "raw", "ContentBytes", "Content")


def outline(value: Any, depth: int = 0, name: str = "") -> Any:
    """A small picture of a JSON value: long texts and lists cut, secrets and files named only."""
    if isinstance(value, str):
        if _is_secret(name):
            return "[redacted]"
        if name in _FILE:
            return f"[{len(value)} characters]"
        return _shown(value)
    if isinstance(value, dict):
        if depth >= _DEEPEST:
            return f"[{len(value)} fields]"
        kept = list(value.items())[: 2 * _WIDEST]
        found = {str(key)[:100]: outline(part, depth + 1, str(key)) for key, part in kept}
        return found if len(kept) == len(value) else {**found, "…": f"[{len(value)} fields]"}
    if isinstance(value, list):
        if depth >= _DEEPEST or name in _FILE:
            return f"[{len(value)} elements]"
        kept_ones = [outline(part, depth + 1, name) for part in value[:_WIDEST]]
        return kept_ones if len(value) <= _WIDEST else [*kept_ones, f"… [{len(value)} elements]"]
    return value


def _shown(value: str) -> str:
    # the search costs fifty times as much as the look whether there is anything to find
    head, userinfo = value, _USERINFO
    if len(value) > _LOOKED_AT:
        head, userinfo = value[:_LOOKED_AT], _USERINFO_CUT
    if "://" in head:
        head = userinfo.sub(r"\1[redacted]@", head)
    if len(value) <= _LOOKED_AT and len(head) <= _LONGEST:
        return head
    return f"{head[:_LONGEST]}… [{len(value)} characters]"


@lru_cache(maxsize=1_000)
def _is_secret(name: str) -> bool:
    lower = name.lower()
    return any(word in lower for word in _SECRET)


class Logbook:
    """One per process; any thread notes, one writes."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()
        self._second, self._good, self._bad = 0, 0, 0
        self._thread: threading.Thread | None = None
        self._bell = threading.Event()

    def open_for(self, status: int) -> bool:
        """Whether this second has room for one more; counts it."""
        second = int(time.monotonic())
        with self._lock:
            if second != self._second:
                self._second, self._good, self._bad = second, 0, 0
            good = status < 400
            room = (self._good < GOOD_PER_S if good else self._bad < BAD_PER_S) and len(self._waiting) < _MOST
            if room:
                self._good, self._bad = self._good + good, self._bad + (not good)
        if not room:
            LOGS_DROPPED.inc()
        return room

    def note(
        self, *, ident: UUID, tenant_id: UUID, key_id: UUID, method: str, endpoint: str, status: int, took_ms: int,
        user_agent: str, request: Any, response: bytes | None, at: datetime | None = None,
        request_id: str = "",
    ) -> None:  # fmt: skip
        """`request` is a JSON value (its outline is taken now), `response` the octets of the answer, or None.

        `request_id` is the answer's X-Request-Id; empty: `ident`."""
        self._waiting.append({
            "id": ident, "request_id": None if request_id in ("", str(ident)) else request_id, "tenant_id": tenant_id,
            "key_id": key_id, "method": method, "endpoint": _text(endpoint, 500),
            "status": status, "took_ms": took_ms, "user_agent": _text(user_agent, 300),
            "request": None if request is None or settings.PRIVACY else outline(request),
            "response": None if settings.PRIVACY else _short(response),
            "at": at or timezone.now(),
        })  # fmt: skip
        if self._thread is None and settings.ROLE == "web":
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="logbook", daemon=True)
                    self._thread.start()

    def flush(self) -> int:
        """Write what waits; how many."""
        written = 0
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
            try:
                execute(_WRITE, _columns(batch))
                written += len(batch)
            except Error as e:
                LOGS_DROPPED.inc(len(batch))
                log.warning("%d notes of requests are lost: %s", len(batch), e)
                break
        return written

    def _run(self) -> None:
        while True:
            self._bell.wait(_EVERY_S)
            if self._waiting:
                try:
                    self.flush()
                except Exception:  # a thread that ended would end the log with it
                    log.exception("notes of requests are lost")
                finally:
                    connection.close()


def _short(response: bytes | None) -> bytes | int | None:
    return response if response is None or len(response) <= _MOST_ANSWER else len(response)


def _text(value: str, most: int) -> str:
    return value[:most].replace("\0", "").encode("utf-8", "replace").decode()


def _columns(batch: list[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: [one[name] for one in batch] for name in batch[0] if name not in ("request", "response")
    }
    columns["request"] = [_stored(one["request"]) for one in batch]
    columns["response"] = [_stored(_answered(one["response"])) for one in batch]
    return columns


def _answered(response: bytes | int | None) -> Any:
    if response is None or isinstance(response, int):
        return None if response is None else f"[{response} octets]"
    try:
        return outline(json.loads(response))
    except ValueError:
        return None


def _stored(value: Any) -> str | None:
    """Escaped to ASCII, so that NUL and halves of surrogate pairs are text like any other."""
    if value is None:
        return None
    text = json.dumps(value)
    return text if len(text) <= _MOST_BODY else json.dumps(f"[{len(text)} characters]")


_WRITE = """
INSERT INTO request_log (id, request_id, tenant_id, key_id, method, endpoint, status, took_ms, user_agent, request_body,
                         response_body, created_at)
SELECT u.id, u.request_id, u.tenant_id, u.key_id, u.method, u.endpoint, u.status, u.took_ms, u.user_agent,
       CASE WHEN t.privacy THEN NULL ELSE u.request END, CASE WHEN t.privacy THEN NULL ELSE u.response END, u.at
  FROM unnest(%(id)s::uuid[], %(request_id)s::text[], %(tenant_id)s::uuid[], %(key_id)s::uuid[],
              %(method)s::text[], %(endpoint)s::text[], %(status)s::int[], %(took_ms)s::int[],
              %(user_agent)s::text[], %(request)s::text[], %(response)s::text[], %(at)s::timestamptz[])
       AS u(id, request_id, tenant_id, key_id, method, endpoint, status, took_ms, user_agent, request, response, at)
  LEFT JOIN tenant t ON t.id = u.tenant_id
ON CONFLICT DO NOTHING
"""
