"""Unsubscribe groups and subscription tracking: a group is a stream of ours, and the link ends that stream.

Who left a group must not get its mail by another service either, so a group is honoured or the request is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deliveries.accept import Draft
from deliveries.mime.foreign import MOST_GROUP, group_stream
from deliveries.mime.links import LEAVE_PLACE
from deliveries.states import ORDINARY_STREAM, Tracking
from mailapi.compat.leaving import with_way_out
from mailapi.compat.reading import Fields, Reading
from mailapi.schemas.emails import MAX_MERGED

_PLACE = re.compile(r"<%[ \t]*asm_(?:group_unsubscribe|preferences)_(?:raw_)?url[ \t]*%>")
_EVERYTHING = re.compile(r"<%[ \t]*asm_global_unsubscribe_(?:raw_)?url[ \t]*%>")
_WORDS = re.compile(r"<%([^%<>]{0,1000})%>")  # blanks of its own would be tried in every split
_BODY_END = re.compile(r"</body\s*>", re.I)
_SWITCHES = {"open_tracking": Tracking.OPENS, "click_tracking": Tracking.CLICKS}
ASM = Fields(
    honoured=frozenset({"group_id"}),
    without_effect={"groups_to_display": "The page of the link shows the mail's own stream."},
    refused={},
)
TRACKING = Fields(
    honoured=frozenset({"subscription_tracking", *_SWITCHES}),
    without_effect={"ganalytics": "Links lead where the sender wrote."},
    refused={},
)  # fmt: skip
SUBSCRIPTION = Fields(honoured=frozenset({"enable", "text", "html", "substitution_tag"}), without_effect={}, refused={})


def draft_with_group(draft: Draft, whole: Mapping[str, Any], reading: Reading) -> Draft:
    """In the group's stream, and with the two header fields where the request has a group or tracks subscriptions."""
    group = _group(whole.get("asm"), reading)
    stream = ORDINARY_STREAM if group is None else group_stream(group)
    wanted = group is not None or _tracking(whole.get("tracking_settings"), reading) is not None
    return replace(draft, stream=stream, unsubscribe=True if wanted else None)


def untracked(whole: Mapping[str, Any], reading: Reading) -> Tracking:
    """What is switched off; what is on follows the domain's own setting."""
    settings, found = whole.get("tracking_settings"), Tracking.NOTHING
    given = settings if isinstance(settings, dict) else {}
    for name, bit in _SWITCHES.items():
        place, switch = f"tracking_settings.{name}", given.get(name)
        if switch is not None and not (isinstance(switch, dict) and isinstance(switch.get("enable", True), bool)):
            reading.wrong(place, "wrong_type", "Must be an object with enable, true or false.")
        elif switch is not None and switch.get("enable") is False:
            found |= bit
        elif switch is not None:
            reading.ignored.append(place)
    return found


def draft_with_links(draft: Draft, whole: Mapping[str, Any], reading: Reading) -> Draft:
    """Its places and what subscription tracking adds, once the texts are there."""
    if any(part and _EVERYTHING.search(part) for part in (draft.html, draft.text)):
        why = "The body has <%asm_global_unsubscribe_raw_url%>; leaving goes by group here, and by stream without one: "
        reading.wrong("content", "not_available", f"{why}write <%asm_group_unsubscribe_raw_url%>.")
    draft = with_way_out(draft, _PLACE)
    settings = _tracking(whole.get("tracking_settings"), Reading())
    if settings is None:
        return draft
    if tag := settings.get("substitution_tag"):
        if any(part and part.count(tag) * len(LEAVE_PLACE) > MAX_MERGED for part in (draft.html, draft.text)):
            why = "The mail grows beyond what a request may have."
            reading.wrong("tracking_settings.subscription_tracking.substitution_tag", "too_large", why)
            return draft
        return with_way_out(draft, re.compile(re.escape(tag)))
    html, text = draft.html, draft.text
    if html and (words := settings.get("html")):
        line = _WORDS.sub(lambda found: f'<a href="{LEAVE_PLACE}">{found[1].strip() or LEAVE_PLACE}</a>', words)
        ends = [found.start() for found in _BODY_END.finditer(html)] or [len(html)]
        html = f"{html[: ends[-1]]}{line}{html[ends[-1] :]}"
    if text and (words := settings.get("text")):
        text = f"{text}\n\n{_WORDS.sub(lambda found: f'{found[1].strip()} {LEAVE_PLACE}'.strip(), words)}\n"
    return replace(draft, html=html, text=text)


def _group(value: Any, reading: Reading) -> int | None:
    given = _object("asm", value, "Must be an object with group_id.", reading)
    if given is None:
        return None
    reading.sort(given, ASM, "asm.")
    group = given.get("group_id")
    if not isinstance(group, int) or isinstance(group, bool) or not 0 <= group <= MOST_GROUP:
        reading.wrong("asm.group_id", "wrong_type", "Must be the group's number.")
        return None
    return group


def _tracking(value: Any, reading: Reading) -> dict[str, str] | None:
    """Subscription tracking where it is switched on; None where it is not."""
    given = _object("tracking_settings", value, "Must be an object.", reading)
    if given is None:
        return None
    reading.sort(given, TRACKING, "tracking_settings.")
    place = "tracking_settings.subscription_tracking"
    asked = _object(place, given.get("subscription_tracking"), "Must be an object.", reading)
    if not asked or not asked.get("enable"):
        return None
    reading.sort(asked, SUBSCRIPTION, f"{place}.")
    names = ("text", "html", "substitution_tag")
    return {name: text for name in names if (text := reading.string(f"{place}.{name}", asked.get(name)))}


def _object(place: str, value: Any, why: str, reading: Reading) -> dict[str, Any] | None:
    """None where there is none, or where it is something else, which is a fault."""
    if value is None or isinstance(value, dict):
        return value
    reading.wrong(place, "wrong_type", why)
    return None
