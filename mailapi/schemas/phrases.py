"""Times in English words, such as `in 5 min`, `tomorrow at 9am` and `Friday at 3pm ET`, without guessing.

    length     in 90 seconds · in 1 hour and 30 minutes · 2 days from now · in half an hour
    moment     [day] time [zone], or time [zone] day
    day        today · tomorrow · friday · Dec 24 · 24 December 2026 · 2026-12-24
    time       9am · 9:30 pm · 21:30 · noon
    zone       UTC without one; ET, CT, MT, PT; EST, EDT … (RFC 5322 §4.3); +02:00; Europe/Berlin

A weekday, or a time without a day, is the next one that is still to come. What two readers could understand
differently is refused with what to write instead: `next friday`, `at 9`, `midnight`, `12/11/2026`, `tomorrow` alone, an
hour that the change of the clocks leaves out or has twice. The text is short and read once, left to right.
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache

#: no phrase above is as long
MOST_CHARACTERS = 80

_UNITS = {
    "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600, "d": 86_400,
    "day": 86_400, "w": 604_800, "wk": 604_800, "week": 604_800,
}  # fmt: skip
_NUMBERS = {"a": 1, "an": 1, **{word: n for n, word in enumerate(
    "one two three four five six seven eight nine ten eleven twelve".split(), 1
)}}  # fmt: skip
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTHS = "january february march april may june july august september october november december".split()
#: RFC 5322 §4.3: the only abbreviations of zones that have one meaning
_OBSOLETE = {"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}
_REGIONS = {"et": "America/New_York", "ct": "America/Chicago", "mt": "America/Denver", "pt": "America/Los_Angeles"}

_COUNT = rf"(\d{{1,5}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})"
_UNIT = rf"({'|'.join(sorted(_UNITS, key=len, reverse=True))})s?"
_PIECE = re.compile(rf"{_COUNT} ?{_UNIT}(?:,? and |, | |$)")
_WEEKDAY = re.compile(rf"({'|'.join(f'{d}|{d[:3]}' for d in _DAYS)})\b")
_MONTH = rf"({'|'.join(f'{m}|{m[:3]}' for m in _MONTHS)}|sept)"
_DATE = re.compile(
    rf"(?:(?P<iso>\d{{4}}-\d\d-\d\d)|{_MONTH} (\d{{1,2}})(?:st|nd|rd|th)?|(\d{{1,2}})(?:st|nd|rd|th)? {_MONTH})"
    r"(?:,? (\d{4}))?\b(?!:)"
)
_TIME = re.compile(r"(?:(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?(?: ?(?P<half>[ap])\.?m\b\.?)?|(?P<noon>noon)\b)")
_OFFSET = re.compile(r"(?:utc|gmt)?([+-])(\d{1,2})(?::?(\d\d))?$")
_TROUBLE = {
    re.compile(r"\bmidnight\b"): "midnight belongs to two days; write the day and 00:00",
    re.compile(r"\b(?:next|this) "): "`next` and `this` mean different days to different people; name the date",
    re.compile(r"\d/\d|\d\.\d+\.\d"): "days and months of such a date can be swapped; write it as 2026-12-24",
    re.compile(r"\bmonths?\b|\byears?\b"): "count in days or weeks, up to 30 days",
}  # fmt: skip


def moment(text: str, now: datetime) -> datetime:
    """The moment that `text` means at `now` (aware), in UTC; ValueError says why it is none, and what to write."""
    if len(text) > MOST_CHARACTERS or not text.isascii():
        raise ValueError(f"a time has at most {MOST_CHARACTERS} ASCII characters")
    words = " ".join(text.lower().split())
    if words == "now":
        return now.astimezone(UTC)
    for pattern, why in _TROUBLE.items():
        if pattern.search(words):
            raise ValueError(why)
    try:
        length = _length(words)
        return now.astimezone(UTC) + length if length is not None else _moment(words, now)
    except OverflowError:
        raise ValueError("there is no such year") from None


def _length(words: str) -> timedelta | None:
    """`in 1 hour and 30 minutes`; None where the text is no length of time."""
    if words.startswith("in "):
        words = words[3:]
    elif words.endswith(" from now"):
        words = words.removesuffix(" from now")
    else:
        return None
    if words in ("half an hour", "half hour"):
        return timedelta(minutes=30)
    seconds = end = 0
    while end < len(words):
        piece = _PIECE.match(words, end)
        if piece is None:
            raise ValueError("write a length of time as `in 5 minutes` or `in 1 hour and 30 minutes`")
        seconds += (_NUMBERS.get(piece[1]) or int(piece[1])) * _UNITS[piece[2]]
        end = piece.end()
    if words.endswith((" ", ",", " and")):
        raise ValueError("the length of time breaks off")
    return timedelta(seconds=seconds)


def _moment(words: str, now: datetime) -> datetime:
    day, rest = _day(words.removeprefix("on "))
    if day is not None:
        clock, rest = _clock(rest.removeprefix(",").strip().removeprefix("at "))
        zone = _zone(rest)
    else:
        clock, rest = _clock(words.removeprefix("at "))
        # the zone stands behind the time or at the end
        middle, day, end = _split_day(rest)
        if middle and end:
            raise ValueError(f"`{middle}` and `{end}` cannot both be the zone")
        zone = _zone(middle or end)
    return _resolved(day, clock, zone, now)


def _split_day(rest: str) -> tuple[str, str | date | None, str]:
    """`et on friday` → et, friday, nothing."""
    words = rest.split(" ") if rest else []
    for start in range(len(words)):
        day, after = _day(" ".join(words[start:]).removeprefix("on "))
        if day is not None:
            return " ".join(words[:start]).rstrip(","), day, after
    return rest, None, ""


def _day(words: str) -> tuple[str | date | None, str]:
    """The day that the text begins with (a word, or a date of year 1 where none is named), and what follows."""
    for word in ("today", "tonight", "tomorrow"):
        if words == word or words.startswith((f"{word} ", f"{word},")):
            return word, words[len(word) :].strip()
    if found := _WEEKDAY.match(words):
        return next(d for d in _DAYS if d.startswith(found[1][:3])), words[found.end() :].strip()
    if found := _DATE.match(words):
        rest = words[found.end() :].strip()
        try:
            if found["iso"]:
                return date.fromisoformat(found["iso"]), rest
            _, month, day, day_first, month_after, year = found.groups()
            number = next(i for i, m in enumerate(_MONTHS, 1) if m.startswith((month or month_after)[:3]))
            # year 4 has a 29th of February
            return date(int(year or 4), number, int(day or day_first)), rest
        except ValueError:
            raise ValueError("there is no such day") from None
    return None, words


def _clock(words: str) -> tuple[time, str]:
    found = _TIME.match(words)
    if found is None:
        raise ValueError("name a time of day, such as 9am, 9:30 pm or 21:30")
    rest = words[found.end() :].strip()
    if found["noon"]:
        return time(12), rest
    hour, minute, half = int(found["hour"]), int(found["minute"] or 0), found["half"]
    if half:
        if not 1 <= hour <= 12:
            raise ValueError("am and pm go with an hour from 1 to 12")
        hour = hour % 12 + (12 if half == "p" else 0)
    elif found["minute"] is None or len(found["hour"]) == 1:
        raise ValueError("say am or pm, or write the hour with two digits as in 09:00 and 21:00")
    try:
        return time(hour, minute), rest
    except ValueError:
        raise ValueError("there is no such time of day") from None


def _zone(words: str) -> tzinfo:
    words = words.removeprefix("in ").strip(" ()")
    if words in ("", "utc", "gmt", "z", "ut"):
        return UTC
    if words in _OBSOLETE:
        return timezone(timedelta(hours=_OBSOLETE[words]))
    if found := _OFFSET.match(words):
        hours, minutes = int(found[2]), int(found[3] or 0)
        if hours > 14 or minutes > 59:
            raise ValueError("an offset from UTC looks like +02:00")
        length = timedelta(hours=hours, minutes=minutes)
        return timezone(length if found[1] == "+" else -length)
    name = _REGIONS.get(words) or _names().get(words)
    if name is None:
        raise ValueError(f"`{words}` is no zone known here; write UTC, ET, +02:00 or a name such as Europe/Berlin")
    return zoneinfo.ZoneInfo(name)


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    return {name.lower(): name for name in zoneinfo.available_timezones() if "/" in name}


def _resolved(day: str | date | None, clock: time, zone: tzinfo, now: datetime) -> datetime:
    here = now.astimezone(zone)
    if isinstance(day, date):
        if day.year != 4:
            return _real(datetime.combine(day, clock, zone))
        years = (here.year + n for n in range(9))  # a 29th of February comes again within eight years
        dates = (day.replace(year=y) for y in years if day.month != 2 or day.day < 29 or _leap(y))
        return next(m for d in dates if (m := _real(datetime.combine(d, clock, zone))) > now)
    if day in ("today", "tonight", "tomorrow"):
        return _real(datetime.combine(here.date() + timedelta(days=day == "tomorrow"), clock, zone))
    for days in range(9):
        then = here.date() + timedelta(days=days)
        if (day is None or _DAYS[then.weekday()] == day) and (
            found := _real(datetime.combine(then, clock, zone))
        ) > now:
            return found
    raise AssertionError("unreachable")


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _real(local: datetime) -> datetime:
    """In UTC; an hour that the change of the clocks leaves out or has twice is none."""
    if local.utcoffset() != local.replace(fold=1).utcoffset():
        raise ValueError("the clocks change at that hour; write the time with an offset, such as 02:30 +02:00")
    return local.astimezone(UTC)
