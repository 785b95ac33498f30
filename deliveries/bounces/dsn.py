"""Delivery status notifications by their fields: RFC 3464, RFC 6533 (UTF-8 addresses), RFC 3461 (xtext).

Read with leniency: groups run together, fields in a text part, types that are missing, addresses without a
domain. One per-message group comes first; every group that names a recipient is one Finding.
"""

from __future__ import annotations

import re

from deliveries.bounces.finding import MAX_DIAGNOSTIC_CHARS, MAX_RECIPIENTS, Finding, addresses
from deliveries.bounces.mail import Headers, Mail, Part
from deliveries.encoded import decode_text, decode_words

TYPES = ("message/delivery-status", "message/global-delivery-status")
#: RFC 3464 §2.3.3
ACTIONS = frozenset({"failed", "delayed", "delivered", "relayed", "expanded"})

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{2,40})[ \t]{0,4}:[ \t]{0,40}")
_RECIPIENT_FIELDS = ("final-recipient", "original-recipient", "x-original-recipient", "x-actual-recipient")
_KNOWN = frozenset(
    (*_RECIPIENT_FIELDS, "action", "status", "diagnostic-code", "remote-mta", "reporting-mta", "last-attempt-date",
     "arrival-date", "original-envelope-id", "received-from-mta", "dsn-gateway", "will-retry-until", "final-log-id")
)  # fmt: skip
_STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?!\d)")
#: RFC 6533 §3: utf-8-addr-xtext and utf-8-addr-unitext
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


def status_parts(mail: Mail) -> list[Part]:
    """The parts that may hold the fields: those of the type, else the first text whose lines are such fields."""
    if typed := mail.of_type(*TYPES):
        return typed
    for part in mail.parts[:6]:
        if _may_be_text(part):
            text = part.text.lower()
            if "\nstatus:" in text and ("final-recipient:" in text or "original-recipient:" in text):
                return [part]
    return []


#: of a file without a type that is looked into: a report holds a few lines for each recipient
_MAX_UNTYPED_OCTETS = 20_000


def _may_be_text(part: Part) -> bool:
    """Whether a part may be the fields under another name: gateways that know no report call it a text or a file."""
    if part.type == "application/octet-stream":
        return len(part.raw) <= _MAX_UNTYPED_OCTETS
    return part.type.startswith(("text/", "message/")) and part.type not in ("message/rfc822", "text/rfc822-headers")


def read_status(mail: Mail) -> list[Finding]:
    """A Finding per recipient group of the mail's first status part that has any; empty where there is none."""
    for part in status_parts(mail):
        groups_ = groups(decode_text(part.octets[:400_000], part.params.get("charset", "")))
        if found := [one for group in groups_ if (one := _finding(group))]:
            return found[:MAX_RECIPIENTS]
    return []


def groups(text: str, every_field: bool = False) -> list[Headers]:
    """Groups of fields, separated by empty lines or by a repeated Final-Recipient (RFC 3464 §2.1).

    Only fields that a DSN has, unless `every_field`: replies hold lines that look like fields.
    """
    found: list[list[tuple[str, str]]] = [[]]
    for line in text.split("\n")[:20_000]:
        if not line.strip():
            if found[-1]:
                found.append([])
            continue
        current = found[-1]
        if line[0] in " \t" and current:
            current[-1] = (current[-1][0], f"{current[-1][1]} {line.strip()}"[:MAX_DIAGNOSTIC_CHARS])
            continue
        field = _FIELD.match(line)
        name = field[1].lower() if field else ""
        if field and (every_field or name in _KNOWN or name.startswith("x-")):
            if name == "final-recipient" and any(key == name for key, _ in current):
                found.append([])
                current = found[-1]
            current.append((name, line[field.end() :].strip()))
        elif current and current[-1][0] == "diagnostic-code":
            # Many gateways forget to fold the lines of a long reply
            current[-1] = (current[-1][0], f"{current[-1][1]} {line.strip()}"[:MAX_DIAGNOSTIC_CHARS])
        if len(found) > MAX_RECIPIENTS * 2:
            break
    return [Headers(tuple(group)) for group in found if group]


def _finding(group: Headers) -> Finding | None:
    address = _address(group)
    if not address:
        return None
    diagnostic = decode_words(group.get("diagnostic-code") or group.get("x-supplementary-info"))
    kind, semicolon, rest = diagnostic.partition(";")
    if semicolon and " " not in kind.strip():
        diagnostic = rest.strip()
    status = _STATUS.search(group.get("status"))
    action = group.get("action").strip().lower().split(" ")[0].strip("\"'();,")
    if not (action or status or diagnostic):
        return None
    return Finding(
        address,
        diagnostic[:MAX_DIAGNOSTIC_CHARS],
        status[0] if status else "",
        action if action in ACTIONS else "",
    )


def _address(group: Headers) -> str:
    """Final-Recipient where it is an Internet address, else the Original one (gateways put X.400 names into Final)."""
    candidates = [typed_address(group.get(name)) for name in _RECIPIENT_FIELDS]
    dotted = (c for c in candidates if "@" in c and "." in c.rpartition("@")[2])
    local = (c for c in candidates if "@" in c)
    return next(dotted, "") or next(local, "") or next(filter(None, candidates), "")


def typed_address(value: str) -> str:
    """The address of `rfc822; <a@b>` (RFC 3464 §2.1.3), its xtext or UTF-8 encoding undone; "" where empty."""
    kind, semicolon, rest = value.partition(";")
    if not semicolon:
        kind, rest = "", value
    rest = rest.strip().strip("<>").strip()
    kind = kind.strip().lower()
    if kind == "utf-8":
        rest = _UNITEXT.sub(
            lambda m: chr(min(int(m[1], 16), 0x10FFFF)) if not 0xD800 <= int(m[1], 16) <= 0xDFFF else "", rest
        )
    elif "+40" in rest or "+3D" in rest:
        rest = _XTEXT.sub(lambda m: chr(int(m[1], 16)), rest)
    plain = addresses(decode_words(rest), 1)
    return plain[0] if plain else rest[:320]
