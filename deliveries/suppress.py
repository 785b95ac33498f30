"""Who is on the suppression list. Changes are made in deliveries.record, since each of them is an event."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from deliveries.mime.address import folded
from deliveries.models import Suppression
from deliveries.models.erasure import hashed

#: the stream that means every stream
EVERY = "*"


def find(tenant_id: UUID, addresses: Iterable[str], stream: str = EVERY) -> dict[str, Suppression]:
    """Those of `addresses` (any case) that mail of `stream` does not go to, by the address as it was asked for.

    With EVERY only suppressions that hold for every stream are found.
    """
    asked = {folded(a): a for a in addresses}
    asked |= {hashed(tenant_id, low): a for low, a in asked.items()}
    rows = Suppression.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=Now()),
        brake_id=None,  # provisional: the refusal that led here is in doubt
        tenant_id=tenant_id,
        address__in=asked,
        stream__in={EVERY, stream},
    ).order_by("-stream")  # "*" sorts before letters: the widest one is kept
    return {asked[s.address]: s for s in rows}
