"""Drafts → accept(): all that can be sent of a batch, and which recipients get nothing because they are suppressed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from deliveries import suppress
from deliveries.accept import Draft, accept
from deliveries.errors import BadInput, Fault


def accept_most(secret_hash: bytes, drafts: Mapping[int, Draft]) -> tuple[dict[int, UUID], list[Fault]]:
    """The ids of those drafts whose sender domain is the account's, in one transaction, and what is wrong with the
    others."""
    left = dict(drafts)
    told: list[Fault] = []
    while left:
        places = list(left)
        try:
            return dict(zip(places, accept(secret_hash, list(left.values())).ids, strict=True)), told
        except BadInput as refused:
            named = [Fault(f.field, f.code, f.message, places[f.index or 0]) for f in refused.faults]
            told += named
            left = {i: draft for i, draft in left.items() if i not in {f.index for f in named}}
    return {}, told


def inactive(tenant_id: UUID, drafts: Iterable[Draft]) -> dict[str, set[str]]:
    """Per stream, the suppressed ones of the drafts' recipients (addr-specs as given)."""
    asked: dict[str, set[str]] = {}
    for draft in drafts:
        asked.setdefault(draft.stream, set()).update(recipients(draft))
    return {stream: set(suppress.find(tenant_id, addresses, stream)) for stream, addresses in asked.items()}


def recipients(draft: Draft) -> list[str]:
    """Each once, in the order of To, Cc and Bcc."""
    return list(dict.fromkeys(a.addr_spec for a in (*draft.to, *draft.cc, *draft.bcc)))
