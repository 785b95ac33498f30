"""One mail to several people with each one's words, where the words stand as they are: `-name-`, `%recipient.name%`.

Such keys are the sender's own text, so nothing is escaped: that is how SendGrid's substitutions and Mailgun's recipient
variables are written. What grows is bounded before it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from deliveries.accept import Draft
from mailapi.schemas.emails import MAX_MERGED


class TooMuch(ValueError):
    """The filled text, or all mails together, would have more than a request may have."""


def filled(text: str, words: Mapping[str, str]) -> str:
    """`text` with each key replaced by its word, once: what a word holds is not looked at again."""
    keys = [key for key in words if key and key in text]
    if not keys:
        return text
    if len(text) + sum(text.count(key) * len(words[key]) for key in keys) > MAX_MERGED:
        raise TooMuch
    keys.sort(key=len, reverse=True)  # of two keys that begin alike the longer one is meant
    return re.sub("|".join(map(re.escape, keys)), lambda found: words[found[0]], text)


def fill(draft: Draft, words: Mapping[str, str]) -> Draft:
    """Subject, texts, header fields and metadata with the words in their places."""
    return replace(
        draft,
        subject=filled(draft.subject, words),
        html=None if draft.html is None else filled(draft.html, words),
        text=None if draft.text is None else filled(draft.text, words),
        headers=tuple((name, filled(value, words)) for name, value in draft.headers),
        metadata=tuple((key, filled(value, words)) for key, value in draft.metadata),
    )


def together(drafts: Iterable[Draft | None]) -> list[Draft]:
    """Those that there are. TooMuch before the next is made: a thousand copies of a large body fit into no memory."""
    found, total = [], 0
    for draft in drafts:
        if draft is None:
            continue
        found.append(draft)
        if (total := total + octets(draft)) > MAX_MERGED:
            raise TooMuch
    return found


def octets(draft: Draft) -> int:
    """Of texts and files: what a mail of a batch adds to it."""
    texts = sum(len(text.encode("utf-8", "replace")) for text in (draft.html, draft.text) if text)
    return texts + sum(len(file.content) for file in draft.attachments)
