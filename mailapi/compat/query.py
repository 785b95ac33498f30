"""Words of a query string, read for the faces' lists: numbers within bounds, moments, ids. Faults name the word.

A filter that is passed over answers more than was asked for, and who acts on the answer acts on all of it: so a word
that is not known is refused. Clients write words in cases of their own (`fromdate`, `fromDate`), which are all read.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import UUID

from django.http import QueryDict

from deliveries.errors import BadInput, Fault


class Query:
    """`known` are the words that the list has; `metadata_*` stands for all that begin so, which `beginning` gives."""

    def __init__(self, words: QueryDict, known: Collection[str]) -> None:
        folded = {name.lower(): name for name in known}
        self._words: dict[str, str] = {}
        self._rest: dict[str, str] = {}
        for name, value in words.items():
            own = folded.get(name.lower())
            # Mailgun's client repeats its words beside those of a page's link, each as it was
            if len(set(words.getlist(name))) > 1 or (own and self._words.get(own, value) != value):
                raise _refused(name[:100], "Stands twice in the query; keep one.")
            if own:
                self._words[own] = str(value)
            elif any(one.endswith("*") and name.startswith(one[:-1]) for one in known):
                self._rest[name] = str(value)
            else:
                near = difflib.get_close_matches(name.lower()[:100], folded, n=1)
                hint = (
                    f"did you mean {folded[near[0]]}?" if near else f"known are {', '.join(sorted(known)) or 'none'}."
                )
                raise _refused(name[:100], f"This list has no such word; {hint}")

    def beginning(self, start: str) -> dict[str, str]:
        """By what follows `start`."""
        return {
            name[len(start) :]: _usable(name, value) for name, value in self._rest.items() if name.startswith(start)
        }

    def text(self, name: str) -> str:
        return _usable(name, self._words.get(name, ""))

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self._words.get(name) or str(default)
        if value.isascii() and value.isdigit() and len(value) <= 12 and least <= int(value) <= most:
            return int(value)
        raise _refused(name, f"Must be a whole number from {least} to {most}.")

    def flag(self, name: str) -> bool | None:
        value = self._words.get(name, "").lower()
        if value not in ("", "true", "false"):
            raise _refused(name, "Must be true or false.")
        return value == "true" if value else None

    def moment(self, name: str) -> datetime | None:
        """ISO 8601, a date, RFC 5322, or a Unix time; without a zone it is UTC."""
        if not (value := self._words.get(name)):
            return None
        try:
            if value.isascii() and value.replace(".", "", 1).isdigit():
                return datetime.fromtimestamp(float(value), UTC)
            at = parsedate_to_datetime(value) if value[:1].isalpha() else datetime.fromisoformat(value)
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        except (ValueError, OverflowError, OSError):
            why = "Must be a time such as 2030-01-31T09:00:00Z, Fri, 31 Jan 2030 09:00:00 +0000, or a Unix time."
            raise _refused(name, why) from None

    def ident(self, name: str) -> UUID | None:
        if not (value := self._words.get(name)):
            return None
        try:
            return UUID(value)
        except ValueError:
            raise _refused(name, "Must be a UUID.") from None


def _usable(name: str, value: str) -> str:
    if "\0" in value:
        raise _refused(name[:100], "The value contains NUL (U+0000); remove it.")
    return value


def _refused(name: str, message: str) -> BadInput:
    return BadInput([Fault(name, "invalid_parameter", message)], "invalid_parameter", 422)
