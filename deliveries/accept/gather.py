"""Requests of one key that wait at the same moment share a statement and a commit; each keeps its own answer.

Whoever comes first leads: it stores its own mails and those of all who came while the statement before it was under
way, as if they were one batch. What is refused as a batch is asked again by each alone, so that an error names its own
mail and harms no other. A batch costs a fifth per mail, and nobody waits for company that is not there already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError

from deliveries.accept.drafts import Draft
from deliveries.errors import Conflict, OverQuota

#: mails of one statement; octets above which a request goes alone, so that it holds up nobody
MOST = 50
SMALL_OCTETS = 64 * 1024
#: a statement that takes longer has a reason of its own: those who come now do not wait for it
STUCK_S = 0.03
#: statements at a time that store for several requests
_MOST_LEADERS = 4

_Ids = tuple[UUID, ...]


class _Request:
    __slots__ = ("called", "drafts", "error", "ids", "leads", "secret_hash")

    def __init__(self, secret_hash: bytes, drafts: Sequence[Draft]) -> None:
        self.secret_hash = secret_hash
        self.drafts = drafts
        self.called = threading.Event()
        self.leads = False
        self.ids: _Ids | None = None
        self.error: Exception | None = None


class Gatherer:
    """`store(secret_hash, drafts, crowd)` answers the ids of what it stored, or None where it refused all of it;
    `crowd` tells it that several requests are waiting."""

    def __init__(self, store: Callable[[bytes, Sequence[Draft], bool], _Ids | None]) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiting: list[_Request] = []
        self._leaders = 0
        self._since = 0.0

    def accept(self, secret_hash: bytes, drafts: Sequence[Draft]) -> _Ids | None:
        """The ids; None where the caller has to store its drafts alone, to be told its own error.

        Raises what the database raised where nobody knows whether the mails were stored.
        """
        mine = _Request(secret_hash, drafts)
        with self._lock:
            self._waiting.append(mine)
            stuck = self._leaders < _MOST_LEADERS and time.monotonic() - self._since > STUCK_S
            if not self._leaders or stuck:
                self._leaders += 1
                mine.leads = True
        if not mine.leads:
            mine.called.wait()
        if mine.leads:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return mine.ids

    def _lead(self, mine: _Request) -> None:
        with self._lock:
            group = self._take(mine)
            crowd = len(group) > 1 or bool(self._waiting)
            self._since = time.monotonic()
        try:
            self._run(group, crowd)
        finally:
            with self._lock:
                heir = next((one for one in self._waiting if not one.leads), None)
                if heir is not None:
                    heir.leads = True
                    heir.called.set()
                else:
                    self._leaders -= 1
            for one in group:
                one.called.set()

    def _take(self, mine: _Request) -> list[_Request]:
        group, mails = [mine], len(mine.drafts)
        for one in self._waiting:
            # who was called to lead does it
            if one is not mine and one.secret_hash == mine.secret_hash and not one.leads:
                if mails + len(one.drafts) > MOST:
                    break
                group.append(one)
                mails += len(one.drafts)
        taken = set(map(id, group))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return group

    def _run(self, group: list[_Request], crowd: bool) -> None:
        try:
            ids = self._store(group[0].secret_hash, [draft for one in group for draft in one.drafts], crowd)
        except (OperationalError, InterfaceError) as e:
            for one in group:
                one.error = e  # whether it was stored is not known: to ask again might double it
            return
        except (DatabaseError, UnicodeError, Conflict, OverQuota):
            return
        if ids is None:
            return
        start = 0
        for one in group:
            one.ids = ids[start : start + len(one.drafts)]
            start += len(one.drafts)


def is_small(drafts: Sequence[Draft]) -> bool:
    return len(drafts) <= MOST and sum(map(_octets, drafts)) <= SMALL_OCTETS


def _octets(draft: Draft) -> int:
    contents: list[Any] = [draft.html, draft.text, draft.raw, *(a.content for a in draft.attachments)]
    return sum(len(content) for content in contents if content)
