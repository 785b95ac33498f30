"""Suppression lists that other services exported, read into one shape and put on a tenant's list.

    read(octets, form, reason)      → Reading: entries, lines that cannot be used, lines that are not to be suppressed
    load(tenant_id, entries, …)     → how many were new

Forms: csv (ours too), postmark, sendgrid, mailgun, ses, postal; each as CSV with its service's columns or as the JSON
that its API answers. Where a file does not say why an address stands there, `reason` says so.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from deliveries.mime.address import folded, parse_address
from deliveries.record import suppressions
from deliveries.smtp.reply import clean

FORMS = ("csv", "postmark", "sendgrid", "mailgun", "ses", "postal")
REASONS = ("bounce", "complaint", "unsubscribe", "manual", "import")
#: lines whose faults are kept; more are counted
MOST_FAULTS = 100
_BATCH = 1_000
_MAX_DETAIL = 500

#: what the services call the column of an address
_ADDRESS = ("email", "address", "emailaddress", "recipient", "email_address")
_WORDS = {
    # Postmark
    "hardbounce": "bounce", "spamcomplaint": "complaint", "manualsuppression": "manual", "unsubscribe": "unsubscribe",
    # SES, SendGrid, Mailgun and ours
    "bounce": "bounce", "complaint": "complaint", "spamreport": "complaint", "manual": "manual", "import": "import",
    "bounced": "bounce", "unsubscribed": "unsubscribe", "spam": "complaint",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One address of a list; `expires_at` None for ever."""

    address: str
    reason: str
    detail: str = ""
    stream: str = "*"
    expires_at: datetime | None = None


@dataclass(slots=True)
class Reading:
    """What a file holds. `faults` are (line, why), the first ones; `passed` are lines that need no suppression."""

    entries: list[Entry] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    faulty: int = 0
    passed: int = 0

    def refuse(self, line: int, why: str) -> None:
        self.faulty += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append((line, clean(why)[:200]))

    def by_reason(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for entry in self.entries:
            counts[entry.reason] = counts.get(entry.reason, 0) + 1
        return counts


def read(octets: bytes, form: str, reason: str = "", now: datetime | None = None) -> Reading:
    """Every line of the file. `reason` overrides what the file says. ValueError: no such form, or no such file."""
    if form not in FORMS:
        raise ValueError(f"There is no form {form!r}; known are {', '.join(FORMS)}.")
    if reason and reason not in REASONS:
        raise ValueError(f"There is no reason {reason!r}; known are {', '.join(REASONS)}.")
    now = now or datetime.now(UTC)
    text = octets.decode("utf-8-sig", "replace").replace("\0", "")
    reading, seen = Reading(), set()
    for line, row in _rows(text):
        address = next((row[name] for name in _ADDRESS if row.get(name)), "").strip()
        if address[:2] in ("'=", "'+", "'-", "'@"):
            address = address[1:]  # as our own export guards it
        try:
            address = folded(parse_address(address).addr_spec)
            entry = _entry(row, address, form, reason)
        except ValueError as e:
            reading.refuse(line, str(e))
            continue
        if entry is None or (entry.expires_at and entry.expires_at <= now) or (address, entry.stream) in seen:
            reading.passed += 1
            continue
        seen.add((address, entry.stream))
        reading.entries.append(entry)
    return reading


def load(tenant_id: UUID, entries: Sequence[Entry], form: str, actor: str) -> Iterator[tuple[int, int]]:
    """Put them on the list, a transaction per thousand; (done, new) after each. A second run adds nothing.

    An import is one audit entry per batch and no webhook: whoever imports a list knows what is in it.
    """
    done = new = 0
    for start in range(0, len(entries), _BATCH):
        batch = entries[start : start + _BATCH]
        new += suppressions.load(tenant_id, batch, f"import-{form}", actor)
        done += len(batch)
        yield done, new


def _rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line or position, values by column name in lower case) of a CSV or a JSON file."""
    if text.lstrip()[:1] in ("{", "["):
        yield from _json_rows(text)
        return
    lines = csv.reader(io.StringIO(text, newline=""))
    names: list[str] | None = None
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = [_name(cell) for cell in cells]
                if not set(names) & set(_ADDRESS):
                    if "@" not in cells[0]:
                        raise ValueError(f"The first line names no column of addresses ({', '.join(_ADDRESS[:3])}).")
                    names = ["email"]  # a bare list
                else:
                    continue
            yield lines.line_num, dict(zip(names, cells, strict=False))
    except csv.Error as e:
        raise ValueError(f"The file is not CSV: {e} at line {lines.line_num}.") from None
    if names is None:
        raise ValueError("The file is empty.")


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("The file is neither CSV nor JSON.") from None
    if isinstance(value, Mapping):  # Postmark "Suppressions", Mailgun "items", SES "SuppressedDestinationSummaries"
        value = next((v for v in value.values() if isinstance(v, list)), None)
    if not isinstance(value, list):
        raise ValueError("The JSON holds no list of addresses.")
    for number, item in enumerate(value, 1):
        row = item if isinstance(item, Mapping) else {"email": item}
        yield number, {_name(str(k)): _cell(v) for k, v in row.items() if v is not None}


def _name(cell: str) -> str:
    return cell.strip().lower().replace(" ", "").replace("-", "_")


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _entry(row: Mapping[str, str], address: str, form: str, reason: str) -> Entry | None:
    """None where the line keeps no mail back: a block for a while, or of a kind that is no address."""
    why, detail, stream, ends = "", "", "*", ""
    match form:
        case "postmark":
            why = row.get("suppressionreason", "")
            detail = row.get("origin", "")
        case "sendgrid":
            status = row.get("status", "")
            if status.startswith("4"):
                return None  # a block: the receiver asked to come back
            detail = " ".join(filter(None, (status, row.get("reason", ""))))
            why = "bounce" if detail else "complaint" if row.get("ip") else ""
        case "mailgun":
            code, detail = row.get("code", ""), row.get("error", "")
            if code.startswith("4"):
                return None
            tags = row.get("tags") or row.get("tag") or ""
            why = "bounce" if code or detail else "unsubscribe" if tags else ""
            detail = " ".join(filter(None, (code, detail, tags if tags != "*" else "")))
        case "ses":
            why = row.get("reason", "")
        case "postal":
            if row.get("type", "recipient") != "recipient":
                return None
            why = "bounce"
            detail, ends = row.get("reason", ""), row.get("keep_until", "")
        case _:
            why, detail = row.get("reason", ""), row.get("detail", "")
            stream, ends = row.get("stream", "").strip() or "*", row.get("expires_at", "")
            if len(stream) > 64 or not stream.isprintable():
                raise ValueError("A stream has at most 64 characters, none of them a control character.")
    known = reason or _WORDS.get(_name(why).replace("_", ""), "import")
    detail = clean(f"Imported from {form}: {detail}" if detail and form != "csv" else detail or f"Imported ({form}).")
    return Entry(address, known, detail[:_MAX_DETAIL], stream, _moment(ends))


def _moment(text: str) -> datetime | None:
    """ISO 8601 or Unix seconds; UTC where no zone stands there."""
    text = text.strip()
    if not text or text.upper() == "NULL":
        return None
    try:
        if text.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC)
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text[:40]!r} is no time.") from None


#: what a spreadsheet takes for the beginning of a formula, or passes over before one
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
#: of an export; a file with them is read back by the form csv
COLUMNS = ("email", "reason", "stream", "detail", "created_at", "expires_at", "rule", "site")


def export(rows: Iterable[Any]) -> Iterator[str]:
    """Suppressions as lines of CSV. A cell that a spreadsheet would run as a formula is guarded."""
    yield ",".join(COLUMNS) + "\r\n"
    for row in rows:
        line = io.StringIO()
        cells = (
            row.address, row.reason, row.stream, row.detail, row.created_at.isoformat(),
            row.expires_at.isoformat() if row.expires_at else "", row.rule, row.site,
        )  # fmt: skip
        csv.writer(line).writerow([f"'{c}" if c.startswith(_FORMULA) else c for c in cells])
        yield line.getvalue()
