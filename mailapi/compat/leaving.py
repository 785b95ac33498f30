"""The link by which a person leaves: each service has a place for it in the body, and it becomes ours.

A place that nobody fills goes out as a link that leads nowhere, and who cannot leave complains. The link itself is made
when the mail leaves, one for each recipient, and ends the mail's stream for that person.
"""

from __future__ import annotations

import re
from dataclasses import replace

from deliveries.accept import Draft
from deliveries.mime.links import LEAVE_PLACE

_FIELDS = ("list-unsubscribe", "list-unsubscribe-post")


def with_way_out(draft: Draft, place: re.Pattern[str]) -> Draft:
    """With our place instead of theirs in html and text. A List-Unsubscribe that names theirs becomes ours too."""
    html, text = (part and place.sub(LEAVE_PLACE, part) for part in (draft.html, draft.text))
    draft = replace(draft, html=html, text=text)
    if not any(name.lower() == _FIELDS[0] and place.search(value) for name, value in draft.headers):
        return draft
    others = tuple((name, value) for name, value in draft.headers if name.lower() not in _FIELDS)
    return replace(draft, headers=others, unsubscribe=True)
