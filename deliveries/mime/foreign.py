"""Header fields by which Postmark, SendGrid and Mailgun are spoken to over SMTP, read as our own control fields.

| field | as in the API |
|---|---|
| `X-Mailgun-Tag`, `X-Mailgun-Variables`, `X-Mailgun-Deliver-By` | `tags`, `metadata`, `scheduled_at` |
| `X-SMTPAPI`: category, unique_args, send_at, asm_group_id | `tags`, `metadata`, `scheduled_at`, `stream` |
| `X-SMTPAPI`: all else; `X-Mailgun-Recipient-Variables`, templates, optimised times | refused |
| `X-Mailgun-Drop-Message`, `X-Mailgun-Require-TLS` | refused unless they say no |
| `X-PM-TrackOpens`, `X-Mailgun-Track` and the like | what they switch off is not counted; on is without effect |
| which address sends, which key signs | without effect |

They are orders and no content: passed on, they would show recipients what is none of theirs, and a mail that was to
wait, to go to others, or not at all, would have gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from deliveries.errors import Fault
from deliveries.states import Tracking

#: Postmark's name of the ordinary stream
POSTMARK_STREAM = "outbound"
_SMTPAPI = "x-smtpapi"
_TAG, _VARIABLES, _DELIVER_BY = "x-mailgun-tag", "x-mailgun-variables", "x-mailgun-deliver-by"
_IDLE = frozenset({
    "x-pm-keepid", "x-mailgun-track-pixel-location-top", "x-mailgun-dkim", "x-mailgun-secondary-dkim",
    "x-mailgun-secondary-dkim-public", "x-mailgun-sending-ip", "x-mailgun-sending-ip-pool",
    "x-mailgun-skip-verification", "x-mailgun-native-send",
})  # fmt: skip
#: what is not counted where they say no
_TRACK = {
    "x-pm-trackopens": Tracking.OPENS,
    "x-pm-tracklinks": Tracking.CLICKS,
    "x-mailgun-track": Tracking.OPENS | Tracking.CLICKS,
    "x-mailgun-track-opens": Tracking.OPENS,
    "x-mailgun-track-clicks": Tracking.CLICKS,
}
#: refused unless they say no
_REFUSED = {
    "x-mailgun-drop-message": "It would be sent all the same; use an API key with `test`.",
    "x-mailgun-require-tls": "Set the domain's TLS policy instead.",
    "x-mailgun-recipient-variables": "Send a mail to each, or use the API.",
    "x-mailgun-template-name": "Templates are named by the API.",
    "x-mailgun-template-version": "Templates are named by the API.",
    "x-mailgun-template-variables": "Templates are named by the API.",
    "x-mailgun-delivery-time-optimize-period": "Set X-Scheduled-At instead.",
    "x-mailgun-time-zone-localize": "Set X-Scheduled-At instead.",
}
#: a group's number in any client, and a stream's name that any column holds
MOST_GROUP = 2**53 - 1
_NO = ("no", "false", "none", "0", "")
_LONGEST_TAG = 256
_LONGEST_KEY = 128
_LONGEST_VALUE = 1_024
#: no text of Postgres holds NUL, and no UTF-8 half of a surrogate pair
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
_GROUP = re.compile(r"group-(\d{1,16})")

FIELDS = frozenset({_SMTPAPI, _TAG, _VARIABLES, _DELIVER_BY, *_IDLE, *_REFUSED, *_TRACK})


def group_stream(group: int) -> str:
    """The stream of a SendGrid unsubscribe group."""
    return f"group-{group}"


def stream_group(stream: str) -> int | None:
    """The group whose mail goes by this stream; None where it is none's."""
    found = _GROUP.fullmatch(stream)
    return int(found[1]) if found else None


@dataclass
class Orders:
    """What foreign fields ask for."""

    tags: list[tuple[str, str]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    stream: str | None = None
    untracked: Tracking = Tracking.NOTHING
    scheduled_at: datetime | None = None
    time_field: str = ""  #: which of them said so
    faults: list[Fault] = field(default_factory=list)

    def read(self, name: str, value: str) -> None:
        """One of FIELDS, in lower case."""
        if name in _REFUSED and value.lower() not in _NO:
            self._wrong(name, f"{name} is not available here. {_REFUSED[name]}")
        elif name in _TRACK and value.lower() in _NO:
            self.untracked |= _TRACK[name]
        elif name == _TAG:
            self._tag(name, value)
        elif name == _DELIVER_BY:
            self._date(name, value)
        elif name in (_VARIABLES, _SMTPAPI):
            given = _object(value)
            if given is None:
                self._wrong(name, f"{name} must be a JSON object.")
            elif name == _VARIABLES:
                self._variables(name, given)
            else:
                self._smtpapi(given)

    def _smtpapi(self, given: Mapping[str, Any]) -> None:
        for word, value in given.items():
            place = f"{_SMTPAPI}.{word[:100]}"
            if value in (None, "", [], {}):
                continue
            if word == "category":
                for one in value if isinstance(value, list) else [value]:
                    self._tag(place, one)
            elif word == "unique_args" and isinstance(value, dict):
                self._variables(place, value)
            elif word == "send_at" and _whole(value) and value < 2**33:
                self.scheduled_at, self.time_field = datetime.fromtimestamp(value, UTC), place
            elif word == "asm_group_id" and _whole(value) and value <= MOST_GROUP:
                self.stream = group_stream(value)
            else:
                known = "category, unique_args, send_at (seconds) and asm_group_id (a number)"
                self._wrong(place, f"{place} is not understood here; of X-SMTPAPI there are {known}.")

    def _variables(self, place: str, given: Mapping[str, Any]) -> None:
        """Values that are no texts as JSON."""
        for key, value in given.items():
            text = value if isinstance(value, str) else json.dumps(value)
            if not (1 <= len(key) <= _LONGEST_KEY and key.isprintable()) or _UNUSABLE.search(text):
                self._wrong(place, f"{place}: a key has 1 to {_LONGEST_KEY} printable characters, no value NUL.")
            elif len(text) > _LONGEST_VALUE:
                self._wrong(place, f"{place}: the value of {key} is longer than {_LONGEST_VALUE} characters.")
            else:
                self.metadata[key] = text

    def _tag(self, place: str, value: Any) -> None:
        if isinstance(value, str) and 1 <= len(value) <= _LONGEST_TAG and value.isprintable():
            self.tags.append((value, ""))
        else:
            self._wrong(place, f"{place}: a tag is a text of 1 to {_LONGEST_TAG} printable characters.")

    def _date(self, name: str, value: str) -> None:
        try:
            at = parsedate_to_datetime(value)
            self.scheduled_at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
            self.time_field = name
        except (ValueError, OverflowError):
            self._wrong(name, f"{name}: write the time as in RFC 5322: Fri, 31 Jan 2031 09:00:00 +0000.")

    def _wrong(self, place: str, message: str) -> None:
        self.faults.append(Fault(place, "not_available", message))


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
