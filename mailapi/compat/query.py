"""Words of a query string, read for the faces' lists: numbers within bounds, moments, ids. Faults name the word."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from deliveries.errors import BadInput, Fault


class Query:
    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words

    def text(self, name: str) -> str:
        value = self.words.get(name, "")
        if "\0" in value:
            raise _refused(name, "The value contains NUL (U+0000); remove it.")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self.words.get(name) or str(default)
        if value.isascii() and value.isdigit() and least <= int(value[:12]) <= most:
            return int(value)
        raise _refused(name, f"Must be a whole number from {least} to {most}.")

    def moment(self, name: str) -> datetime | None:
        """ISO 8601, a date, or a Unix time; without a zone it is UTC."""
        if not (value := self.words.get(name)):
            return None
        try:
            if value.isascii() and value.replace(".", "", 1).isdigit():
                return datetime.fromtimestamp(float(value), UTC)
            at = datetime.fromisoformat(value)
        except (ValueError, OverflowError, OSError):
            raise _refused(name, "Must be a time such as 2030-01-31T09:00:00Z or a Unix time.") from None
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    def ident(self, name: str) -> UUID | None:
        if not (value := self.words.get(name)):
            return None
        try:
            return UUID(value)
        except ValueError:
            raise _refused(name, "Must be a UUID.") from None


def _refused(name: str, message: str) -> BadInput:
    return BadInput([Fault(name, "invalid_parameter", message)], "invalid_parameter", 422)
