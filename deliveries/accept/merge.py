"""One mail to several people, with each one's own words: `{{{KEY}}}` in subject, html and text is replaced at accept.

A mail with merge data becomes one mail for each address in To, alone in its To field. What is stored is the rendered
content, so that no later change alters it; `{{{UNSUBSCRIBE_URL}}}` alone waits for the delivery. In html a value is
escaped: it is a person's name or the like, never markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from deliveries.accept.drafts import Draft
from deliveries.mime.address import Address
from deliveries.mime.links import LEAVE

KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PLACE = re.compile(r"\{\{\{[ \t]*([A-Za-z][A-Za-z0-9_]{0,63})[ \t]*\}\}\}")

Values = Mapping[str, str]


def keys_of(*texts: str | None) -> list[str]:
    """The keys that these texts ask for, each once, in order."""
    asked = dict.fromkeys(key for text in texts if text for key in _PLACE.findall(text))
    return [key for key in asked if key != LEAVE]


def fill(text: str, values: Values) -> str:
    """`text` with the values as they are; a key without a value raises KeyError."""
    return _PLACE.sub(lambda place: place[0] if place[1] == LEAVE else values[place[1]], text)


def most_octets(texts: Iterable[str | None], values: Values) -> int:
    """No less than the octets of these texts filled with `values`, without filling them."""
    # `&quot;` is the longest escape; no character of it, and none unescaped, has more than six octets
    longest = 6 * max(map(len, values.values()), default=0)
    return sum(len(text.encode()) + longest * text.count("{{{") for text in texts if text)


def for_each(draft: Draft, values_of: Mapping[str, Values]) -> list[Draft]:
    """The mail of each address in `draft.to`, in that order, by addr-spec; every key must have its value."""
    once = {address.addr_spec: address for address in reversed(draft.to)}
    return [_for_one(draft, address, values_of.get(address.addr_spec, {})) for address in reversed(once.values())]


def _for_one(draft: Draft, address: Address, values: Values) -> Draft:
    escaped = {key: html.escape(value) for key, value in values.items()}
    return replace(
        draft,
        to=(address,),
        subject=fill(draft.subject, values),
        html=None if draft.html is None else fill(draft.html, escaped),
        text=None if draft.text is None else fill(draft.text, values),
    )
