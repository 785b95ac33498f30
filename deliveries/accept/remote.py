"""Attachments by URL: fetched when the mail is accepted, before its transaction, and frozen like any other file.

Through the client that never connects to an unchecked address (deliveries.fetch), without redirects, a few at a time,
within one bound of octets and one of time for the whole request. A URL that stands twice is fetched once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from django.conf import settings

from deliveries.accept.turns import Turns
from deliveries.errors import AddressRefused, FetchFailed
from deliveries.fetch import Fetched, fetch

#: at a time, for one request
PARALLEL = 4
#: for one file
TIMEOUT_S = 10.0
#: for all files of a request
TOTAL_S = 20.0
_turns = Turns(2, "attachments", "with attachments by URL")


@dataclass(frozen=True, slots=True)
class File:
    """What a URL gave. `content_type` as the host said it, empty where it said nothing."""

    content: bytes
    content_type: str


def fetch_files(urls: Iterable[str], max_octets: int) -> dict[str, File | str]:
    """Each URL's file, or in words why there is none; `max_octets` bounds all of them together.

    Raises BadInput (429) when too many requests fetch at once.
    """
    wanted = list(dict.fromkeys(urls))
    if not wanted:
        return {}
    with _turns.taken():
        return asyncio.run(_all(wanted, max_octets))


async def _all(urls: list[str], max_octets: int) -> dict[str, File | str]:
    places = asyncio.Semaphore(PARALLEL)
    found: dict[str, File | str] = dict.fromkeys(urls, f"it was not there within {TOTAL_S:.0f} s")
    left = max_octets
    done = asyncio.get_running_loop().time() + TOTAL_S

    async def one(url: str) -> None:
        nonlocal left
        async with places:
            time_left = done - asyncio.get_running_loop().time()
            if time_left <= 0:
                return
            found[url] = file = await _file(url, max(left, 0), min(TIMEOUT_S, time_left))
            if isinstance(file, File):
                left -= len(file.content)
                if left < 0:  # those that came at the same time were too much together
                    found[url] = _too_much(max_octets)

    await asyncio.gather(*map(one, urls))
    return found


async def _file(url: str, max_octets: int, timeout_s: float) -> File | str:
    ask = partial(fetch, "GET", url, headers={"accept": "*/*", "accept-encoding": "identity"})
    try:
        got: Fetched = await ask(
            timeout_s=timeout_s, max_octets=max_octets, allow_private=settings.WEBHOOK_ALLOW_PRIVATE
        )
    except (AddressRefused, FetchFailed) as e:
        return str(e)
    if not 200 <= got.status < 300:
        moved = "; redirects are not followed, name the file's own URL" if 300 <= got.status < 400 else ""
        return f"the host answered {got.status}{moved}"
    if got.truncated:
        return _too_much(max_octets)
    if got.header("content-encoding").lower() not in ("", "identity"):
        return "the host sent it compressed, though it was asked not to"
    return File(got.body, got.header("content-type"))


def _too_much(max_octets: int) -> str:
    return f"the files of this request may have {max_octets / (1024 * 1024):.1f} MB more, and it has more than that"
