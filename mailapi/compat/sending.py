"""Which recipients of drafts get nothing because they are suppressed."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from deliveries import suppress
from deliveries.accept import Draft


def inactive(tenant_id: UUID, drafts: Iterable[Draft]) -> dict[str, set[str]]:
    """Per stream, the suppressed ones of the drafts' recipients (addr-specs as given)."""
    asked: dict[str, set[str]] = {}
    for draft in drafts:
        asked.setdefault(draft.stream, set()).update(recipients(draft))
    return {stream: set(suppress.find(tenant_id, addresses, stream)) for stream, addresses in asked.items()}


def recipients(draft: Draft) -> list[str]:
    """Each once, in the order of To, Cc and Bcc."""
    return list(dict.fromkeys(a.addr_spec for a in (*draft.to, *draft.cc, *draft.bcc)))
