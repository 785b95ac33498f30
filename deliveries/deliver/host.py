"""What a deliver process takes from its host: open files, and addresses that receivers believe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import Sequence

from deliveries.routing.rdns import fcrdns
from deliveries.routing.resolver import Resolver

log = logging.getLogger(__name__)


def raise_open_files() -> int:
    """As many as the host allows: the usual 1,024 are for programs that wait with select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # a container may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


async def confirmed(resolver: Resolver, addresses: Sequence[str]) -> bool:
    """Whether every IPv6 address of ours leads to a name and back; receivers refuse mail from one without it."""
    answers = await asyncio.gather(*(fcrdns(resolver, address) for address in addresses))
    for answer in answers:
        log.info("IPv6: %s", answer.text)
    return bool(answers) and all(answer.names for answer in answers)
