"""Read a foreign request field by field. A face names the fields as its clients do; what is wrong is collected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from deliveries.encoded import decode_words, split_addresses
from deliveries.errors import Fault
from deliveries.mime.address import Address, named_address, parse_address
from deliveries.mime.compose import Attachment, refused_header, refused_subject
from mailapi.schemas.attachments import MAX_ATTACHMENTS, AttachmentIn
from mailapi.schemas.emails import MAX_HEADERS
from mailapi.schemas.faults import MOST_FAULTS, check
from mailapi.schemas.options import Stream
from mailapi.schemas.times import MAX_SCHEDULE

MAX_METADATA = 100
MAX_LABELS = 100
_LONGEST_KEY = 128
_LONGEST_VALUE = 4_096
_LONGEST_LABEL = 256

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: no text of Postgres holds NUL, and no UTF-8 half of a surrogate pair
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
_NO_UNUSABLE = "The text contains NUL (U+0000) or half of a surrogate pair; remove it."
_BLANK = " \t"
_STREAM: TypeAdapter[str] = TypeAdapter(Stream)


@dataclass(frozen=True)
class Fields:
    """What a face knows of an object: honoured; accepted without effect; refused, each with the reason.

    What stands in none of the three is refused with the nearest name that does.
    """

    honoured: frozenset[str]
    without_effect: Mapping[str, str]
    refused: Mapping[str, str]


class Reading:
    """One mail of a request. `faults` is empty when it can be sent; `ignored` names what has no effect."""

    def __init__(self, index: int | None = None) -> None:
        self.faults: list[Fault] = []
        self.ignored: list[str] = []
        self._index = index

    def wrong(self, field: str, code: str, message: str) -> None:
        self.faults.append(Fault(field, code, message, self._index))

    def sort(self, given: Mapping[str, Any], fields: Fields, place: str = "") -> None:
        """Tell what the face does not honour. A null counts as absent, as the vendors' clients send them."""
        for name, value in given.items():
            if len(self.faults) >= MOST_FAULTS:
                return  # nobody reads more, and each nearest name costs
            shown = f"{place}{name[:100]}"
            if name in fields.honoured or value is None:
                continue
            if name in fields.without_effect:
                self.ignored.append(f"{place}{name}")
            elif name in fields.refused:
                self.wrong(shown, "not_available", fields.refused[name])
            else:
                known = [*fields.honoured, *fields.without_effect, *fields.refused]
                near = _nearest(name[:100], known)
                hint = f"did you mean {near}?" if near else f"known are {', '.join(sorted(fields.honoured))}."
                self.wrong(shown, "unknown_field", f"There is no such field; {hint}")

    # --- values -------------------------------------------------------------------------------------------------

    def string(self, field: str, value: Any) -> str | None:
        """A text without NUL; None where there is none."""
        if value is None:
            return None
        if not isinstance(value, str):
            self.wrong(field, "wrong_type", "Must be a string.")
            return None
        if _UNUSABLE.search(value):
            self.wrong(field, "control_character", _NO_UNUSABLE)
            return None
        return value

    def subject(self, field: str, value: Any) -> str:
        text = self.string(field, value) or ""
        if why := refused_subject(text):
            self.wrong(field, "invalid_subject", why)
        return text

    def address(self, field: str, value: Any) -> Address | None:
        found = self.addresses(field, value)
        if len(found) > 1:
            self.wrong(field, "too_many", "Has more than one address; one is allowed.")
        return found[0] if found else None

    def addresses(self, field: str, value: Any) -> tuple[Address, ...]:
        """`a@b, "C, D" <c@d>` or a list of such texts, in their order."""
        texts = [value] if isinstance(value, str) else value
        if texts is None:
            return ()
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self.wrong(field, "wrong_type", "Must be addresses, separated by commas.")
            return ()
        found = (self._address(field, one) for text in texts for one in split_addresses(text) if one.strip(_BLANK))
        return tuple(address for address in found if address)

    def _address(self, field: str, text: str) -> Address | None:
        try:
            address = parse_address(text.strip(_BLANK))
            name = decode_words(address.display_name)
            return address if name == address.display_name else named_address(name, address.addr_spec)
        except ValueError as error:
            self.wrong(field, "invalid_address", f"{text[:320]!r}: {error}")
            return None

    def named(self, field: str, value: Any, address_key: str, name_key: str) -> Address | None:
        """`{"email": …, "name": …}`, whatever a face calls the two."""
        if not isinstance(value, dict) or not isinstance(value.get(address_key), str):
            self.wrong(field, "wrong_type", f"Must be an object with {address_key} and, if wanted, {name_key}.")
            return None
        name = value.get(name_key)
        if name is not None and not isinstance(name, str):
            self.wrong(f"{field}.{name_key}", "wrong_type", "Must be a string.")
            return None
        for unknown in value.keys() - {address_key, name_key}:
            self.wrong(f"{field}.{unknown[:100]}", "unknown_field", f"Known are {address_key} and {name_key}.")
        try:
            return named_address(decode_words(name or ""), value[address_key].strip(" "))
        except ValueError as error:
            self.wrong(f"{field}.{address_key}", "invalid_address", f"{value[address_key][:320]!r}: {error}")
            return None

    def headers(self, field: str, pairs: Iterable[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
        found = []
        for name, value in pairs:
            if not isinstance(value, str):
                self.wrong(_inside(field, name), "wrong_type", "Must be a string.")
            elif why := refused_header(name, value):
                self.wrong(_inside(field, name), "invalid_header", why)
            else:
                found.append((name, value))
        if len(found) > MAX_HEADERS:
            self.wrong(field, "too_many", f"Has {len(found)} headers; {MAX_HEADERS} are allowed.")
        return tuple(found)

    def file(self, field: str, native: dict[str, Any], names: Mapping[str, str]) -> Attachment | None:
        """`native` as the native API takes it; `names` leads from its names to the face's."""
        shape, faults = check({k: v for k, v in native.items() if v not in (None, "")}, AttachmentIn)
        for fault in faults:
            self.wrong(f"{field}.{names.get(fault.field, fault.field)}", fault.code, fault.message)
        return shape.attachment() if shape else None

    def few_files(self, field: str, count: int) -> bool:
        """Whether a mail may have so many."""
        if count > MAX_ATTACHMENTS:
            self.wrong(field, "too_many", f"Has {count} files; {MAX_ATTACHMENTS} are allowed.")
        return count <= MAX_ATTACHMENTS

    def labels(self, field: str, values: Any) -> tuple[tuple[str, str], ...]:
        """Tags that are one text each: a name of ours with an empty value. A name that comes twice counts once."""
        texts = [values] if isinstance(values, str) else values
        if texts is None:
            return ()
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self.wrong(field, "wrong_type", "Must be a text or a list of texts.")
            return ()
        if len(texts) > MAX_LABELS:
            self.wrong(field, "too_many", f"Has {len(texts)} elements; {MAX_LABELS} are allowed.")
        for text in texts[:MAX_LABELS]:
            if len(text) > _LONGEST_LABEL or _CONTROL.search(text):
                why = f"A tag has up to {_LONGEST_LABEL} characters, none of them a line break or control character."
                self.wrong(field, "invalid_tag", why)
        return tuple((text, "") for text in dict.fromkeys(texts) if text)

    def metadata(self, field: str, value: Any) -> tuple[tuple[str, str], ...]:
        """An object of texts; numbers and booleans are taken as texts, as the vendors' clients send them."""
        if value is None:
            return ()
        if not isinstance(value, dict):
            self.wrong(field, "wrong_type", "Must be an object.")
            return ()
        if len(value) > MAX_METADATA:
            self.wrong(field, "too_many", f"Has {len(value)} keys; {MAX_METADATA} are allowed.")
        found = []
        for key, one in value.items():
            place = _inside(field, key)
            text = one if isinstance(one, str) else str(one).lower() if isinstance(one, bool) else str(one)
            if isinstance(one, dict | list):
                self.wrong(place, "wrong_type", "Must be a text.")
            elif not 1 <= len(key) <= _LONGEST_KEY or _CONTROL.search(key):
                why = f"A key has 1 to {_LONGEST_KEY} characters, none of them a control character."
                self.wrong(place, "invalid_metadata", why)
            elif len(text) > _LONGEST_VALUE:
                self.wrong(place, "too_long", f"The value is longer than {_LONGEST_VALUE} characters.")
            elif _UNUSABLE.search(text):
                self.wrong(place, "control_character", _NO_UNUSABLE)
            elif one is not None:
                found.append((key, text))
        return tuple(found)

    def stream(self, field: str, value: Any) -> str:
        try:
            return _STREAM.validate_python(value)
        except ValidationError as error:
            self.wrong(field, "invalid_stream", error.errors()[0]["msg"])
            return "transactional"

    def moment(self, field: str, at: datetime) -> datetime | None:
        """When it is to leave; None for a time that has passed, which means now."""
        now = datetime.now(UTC)
        if at <= now:
            return None
        if at - now > MAX_SCHEDULE:
            self.wrong(field, "invalid_time", f"A mail can be scheduled up to {MAX_SCHEDULE.days} days ahead.")
        return at


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """contentId is nearer to content_id than to content."""
    plain = {one.replace("_", "").lower(): one for one in known}
    near = difflib.get_close_matches(name.replace("_", "").lower(), plain, n=1)
    return plain[near[0]] if near else None


def _inside(field: str, name: str) -> str:
    """A name below a field, as the face writes it: `Headers.X-Order`, and in Mailgun's form `h:X-Order`."""
    return f"{field}{name[:100]}" if field.endswith(":") else f"{field}.{name[:100]}"
