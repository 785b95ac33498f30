"""What a person types into the search of messages → a Search."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from deliveries.models import ApiKey
from deliveries.read import panel, senders
from deliveries.read.panel import Page, Search

_WORD = re.compile(r'(?:(to|from|subject|tag|stream|key|id):)?(?:"([^"]*)"|(\S+))', re.IGNORECASE)

#: keys that begin alike; more were no answer
_MOST_KEYS = 100

HELP = "Recipient, subject words, id or Message-ID; also from: tag: stream: key:"


def parse(text: str, search: Search) -> Search:
    """`search` narrowed by `text`.

    An id or a Message-ID (in <>, or after `id:`) finds that mail; a word with @ is a recipient or the beginning of one;
    other words stand in the subject; `to:`, `from:`, `subject:`, `tag:`, `stream:`, `key:` say it outright.
    """
    words: list[str] = []
    sender = api_key = ""
    for key, quoted, plain in _WORD.findall(text.replace("\x00", "")):
        value = quoted or plain
        if not value:
            continue
        match key.lower():
            case "to":
                search = replace(search, recipient=address(value))
            case "from":
                sender = value  # looked up once, however often it stands there
            case "key":
                api_key = value
            case "tag":
                search = replace(search, tag=value)
            case "stream":
                search = replace(search, stream=value)
            case "subject":
                words.append(value)
            case _:
                if ident := message_ident(value):
                    search = replace(search, ident=ident)
                elif "@" in value and (key.lower() == "id" or (value.startswith("<") and value.endswith(">"))):
                    search = replace(search, message_id=value.strip("<>"))
                elif key.lower() != "id" and "@" in value and not quoted:
                    search = replace(search, recipient=address(value))
                else:
                    words.append(value)
    if sender:
        search = replace(search, senders=senders.matching(search.tenants, sender))
    if api_key:
        search = _posted_with(search, api_key)
    return replace(search, words=" ".join(words)) if words else search


def _posted_with(search: Search, text: str) -> Search:
    """What API keys posted whose id, or whose first characters, `text` is; a whole key is known by its first, too."""
    ident = message_ident(text)
    first = text.rstrip("…")[: ApiKey._meta.get_field("prefix").max_length]
    keys = ApiKey.objects.filter(id=ident) if ident else ApiKey.objects.filter(prefix__startswith=first)
    if search.tenants is not None:
        keys = keys.filter(tenant_id__in=search.tenants)
    rows = list(keys.values_list("id", "tenant_id")[:_MOST_KEYS])
    # their tenants' mail is walked, and nobody else's
    return replace(search, keys=[pk for pk, _ in rows], tenants=sorted({tenant for _, tenant in rows}))


def found(search: Search, now_ms: int, limit: int, after: UUID | None = None, before: UUID | None = None) -> Page:
    """The page of `search` as it finds something: `<a@b>` may be an address, and `anna` the beginning of one.

    Asked anew for every page, so that a cursor keeps its meaning.
    """
    there = panel.page(search, now_ms, limit, after, before)
    other = _otherwise(search)
    if there.ids or other is None or ((after or before) and panel.page(search, now_ms, 1).ids):
        return there
    return panel.page(other, now_ms, limit, after, before)


def _otherwise(search: Search) -> Search | None:
    """What else may have been meant."""
    if search.message_id:
        return replace(search, message_id="", recipient=address(search.message_id))
    if search.words and " " not in search.words and not search.recipient:
        return replace(search, words="", recipient=search.words)
    return None


def message_ident(text: str) -> UUID | None:
    """The id in `0190…`, `<0190…@example.com>` or a hyphened UUID; None when there is none."""
    # accept makes Message-IDs as <32 hex digits of the id>@<sender domain>
    hexes = text.strip("<>").partition("@")[0].replace("-", "")
    if not re.fullmatch(r"[0-9a-fA-F]{32}", hexes):
        return None
    return UUID(hexes)


def address(text: str) -> str:
    """As it is stored: local part as given, domain as a lower-case A-label where it is complete."""
    local, at, domain = text.strip("<>,;").rpartition("@")
    if not at:
        return domain
    domain = domain.lower()
    if not domain.isascii():
        with suppress(UnicodeError):  # half a label: nothing will be found, which is the truth
            domain = domain.encode("idna").decode("ascii")
    return f"{local}@{domain}"
