"""A batch of which all that can be sent is sent: what accept refuses of it is named, and the rest is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deliveries.accept import Accepted, Draft, Idempotency, accept
from deliveries.errors import BadInput, Fault


def accept_each(secret_hash: bytes, drafts: Mapping[int, Sequence[Draft]], once: Idempotency | None = None) -> Accepted:
    """`accept` of the mails, each one draft or all that merge data made of it. BadInput names the mails by their keys,
    and each fault of a mail once: what is wrong with one of its drafts is so with all."""
    places = [index for index, parts in drafts.items() for _ in parts]
    try:
        return accept(secret_hash, [draft for parts in drafts.values() for draft in parts], once)
    except BadInput as refused:
        named = (Fault(f.field, f.code, f.message, places[f.index or 0]) for f in refused.faults)
        raise BadInput(list(dict.fromkeys(named)), refused.name, refused.http_status) from None


def accept_most(
    secret_hash: bytes, drafts: Mapping[int, Sequence[Draft]], once: Idempotency | None = None
) -> tuple[Accepted, Mapping[int, Sequence[Draft]], list[Fault]]:
    """What was stored, in one transaction: the ids, and the mails that they are of; and what is wrong with the others.

    Those are left out whose sender domain is refused; all else that accept raises, it raises.
    """
    told: list[Fault] = []
    while drafts:
        try:
            return accept_each(secret_hash, drafts, once), drafts, told
        except BadInput as refused:
            told += refused.faults
            wrong = {fault.index for fault in refused.faults}
            drafts = {index: parts for index, parts in drafts.items() if index not in wrong}
    return Accepted(()), {}, told
