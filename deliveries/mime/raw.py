"""A whole mail as somebody else composed it (RFC 5322), for submission and for the API that takes raw MIME.

In order of use: `read` checks the octets under caps and takes out what must not leave (Bcc, Return-Path, our own and
the control fields); its `Raw.octets` are what is stored, `Raw`'s other fields what accept needs. At the attempt
`composed` gives the mail for signing, with Message-ID, Date and MIME-Version where they were missing or are none;
`seven_bit` the same for a hop without 8BITMIME. Everything else goes out as it came, but for what RFC 6409 §8 lets us
mend (`_mended`).

Refused, with the reason: NUL and bare CR or LF (RFC 5321 §2.3.8: another server's line end is how a second mail is
smuggled in), a header that two readers would read differently (a field that may stand once and stands twice, a line of
white space), From with other than one mailbox, and long lines that a signature covers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime

from deliveries.encoded import decode_words, split_addresses
from deliveries.errors import BadInput, ComposeError, Fault
from deliveries.mime import headers
from deliveries.mime.address import Address, named_address
from deliveries.mime.compose import Composed, date_field, message_id_field
from deliveries.mime.control import is_control
from deliveries.mime.entities import body_at, boundary_of, fields, name_of, value_of, walk
from deliveries.mime.recode import change_html, long_lines, recode
from deliveries.smtp.reply import clean

#: what smtpd's SIZE offers, and its Received line
MAX_OCTETS = 26 * 1024 * 1024
#: of To, Cc and Bcc each; the envelope has bounds of its own
MAX_ADDRESSES = 1_000
#: RFC 5322 §3.6, RFC 2045 §3: fields that may stand once; a second one is what another reader would show or obey
_ONCE = frozenset({
    b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"subject", b"date", b"message-id", b"in-reply-to",
    b"references", b"mime-version", b"content-type", b"content-transfer-encoding",
})  # fmt: skip
#: Bcc names who must not be named (RFC 5322 §3.6.3), Return-Path is the last host's to write (RFC 5321 §4.4)
_TAKEN_OUT = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_ADDRESS_FIELDS = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc"})
#: whom a reader takes for the sender, or answers
_SENDER_FIELDS = frozenset({b"from", b"sender", b"reply-to"})
_NAMED = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^<>"])*)<([^<>]*)>\s*(?:\([^()]*\)\s*)?')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_COMMENT = re.compile(r"\([^()]*\)")
#: what the column of a message holds; a longer one stays in the mail, and the message is known by ours
_MSG_ID = re.compile(r"<([^<>\s@]{1,200}@[^<>\s]{1,118})>")
_ANY_MSG_ID = re.compile(rb"<[^<>\s@]+@[^<>\s]+>")
#: RFC 5322 §3.3 and, of old mails, §4.3; between words white space and comments
_DATE = re.compile(
    rb"(?:(?:mon|tue|wed|thu|fri|sat|sun)~,)?~\d{1,2}~(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)~\d{2,4}"
    rb"~\d{1,2}~:~\d\d~(?::~\d\d~)?(?:[+-]\d{4}|[a-z]{1,5})~".replace(b"~", rb"(?:[ \t]|\([^()]*\))*"),
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Raw:
    """What a raw mail says. `octets` are stored; the addresses are as the header names them (the envelope decides).

    `message_id` without <>, None where the mail has none. `control` are the control fields, (name in lower case,
    value), in order. `unread`: addresses of To, Cc and Bcc that cannot be read, as they stand there. `same`: what is
    left when those parts are taken away that a program makes anew each time (for the idempotency key).
    """

    octets: bytes
    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    subject: str
    message_id: str | None
    control: tuple[tuple[str, str], ...]
    unread: tuple[str, ...]
    same: bytes


def read(octets: bytes) -> Raw:
    """Check and take apart. BadInput names every fault of the header, or the one that kept it from being read."""
    _check_octets(octets)
    if not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    try:
        walk(octets)
        body = body_at(octets, 0, len(octets))
        header = fields(octets[:body])
    except ValueError as error:
        raise _refused("", "invalid_mime", str(error)) from None
    header = [_mended(field) for field in header]
    faults = _faults(header)
    sender = _sender(header, faults)
    if faults or sender is None:
        raise BadInput(faults)
    unread: list[str] = []
    lists = {name: tuple(_mailboxes(header, name, unread)) for name in (b"to", b"cc", b"bcc")}
    control = tuple(
        (name_of(f).decode("ascii"), clean(decode_words(_text(f))).strip()) for f in header if is_control(name_of(f))
    )
    kept = [field for field in header if not _leaves_out(name_of(field))]
    given = _MSG_ID.search(value_of(header, b"message-id").decode("utf-8", "replace"))
    return Raw(
        octets=_short_lines(b"".join(kept) + b"\r\n" + octets[body:]),
        sender=sender,
        to=lists[b"to"],
        cc=lists[b"cc"],
        bcc=lists[b"bcc"],
        reply_to=tuple(_mailboxes(header, b"reply-to", [])),
        subject=clean(decode_words(value_of(header, b"subject").decode("utf-8", "replace")))[:2_000],
        message_id=given[1] if given else None,
        control=control,
        unread=tuple(unread),
        same=_same(kept, octets[body:]),
    )


def composed(octets: bytes, message_id: str, date: datetime) -> Composed:
    """The stored mail for signing. `message_id` (without <>) and `date` stand in where the mail brought none, or words
    that are none (RFC 6409 §8.2, §8.3): receivers refuse such mail."""
    body = body_at(octets, 0, len(octets))
    try:
        header = fields(octets[:body])
    except ValueError as error:
        raise ComposeError(str(error)) from None
    # RFC 5322 §3.6, RFC 2045 §4: without MIME-Version a reader may show the parts of a mail as its text
    ours: dict[bytes, tuple[bytes, Callable[[bytes], object]]] = {
        b"date": (date_field(date), _is_date),
        b"message-id": (message_id_field(message_id), _ANY_MSG_ID.search),
        b"mime-version": (headers.MIME_VERSION, bool),
    }
    for name, (field, good) in ours.items():
        if not good(value_of(header, name)):
            header = [f for f in header if name_of(f) != name] + [field]
    return Composed(
        tuple(header),
        octets[body:],
        smtputf8=not b"".join(header).isascii(),
        null_return=_is_report(value_of(header, b"content-type").lower()),
    )


def is_reply(octets: bytes) -> bool:
    """Whether a stored mail calls itself an automatic reply (RFC 3834 §5)."""
    header = fields(octets[: body_at(octets, 0, len(octets))])
    return value_of(header, b"auto-submitted").lower().startswith(b"auto-replied")


def seven_bit(mail: Composed) -> Composed | None:
    """The same for a hop without 8BITMIME; None where it cannot be recoded (RFC 3463: 5.6.3)."""
    changed = None if mail.smtputf8 else recode(mail.octets, seven_bit=True)
    return _changed(mail, changed) if changed is not None else None


def with_html(mail: Composed, change: Callable[[str], str]) -> Composed:
    """The same with `change` done to its HTML; as it was where it has none that may be touched."""
    return _changed(mail, change_html(mail.octets, change))


def _changed(mail: Composed, octets: bytes) -> Composed:
    body = body_at(octets, 0, len(octets))
    return replace(mail, header_fields=tuple(fields(octets[:body])), body=octets[body:])


def _is_date(value: bytes) -> bool:
    if not _DATE.fullmatch(value):
        return False
    try:
        parsedate_to_datetime(value.decode("ascii", "replace"))
    except ValueError:
        return False
    return True


def _is_report(kind: bytes) -> bool:
    return kind.startswith(b"multipart/report") and b"delivery-status" in kind


# --- checks -----------------------------------------------------------------------------------------------------


def _refused(field: str, code: str, message: str) -> BadInput:
    return BadInput([Fault(field, code, message)])


def _check_octets(octets: bytes) -> None:
    if len(octets) > MAX_OCTETS:
        raise _refused("", "too_large", f"The mail has more than {MAX_OCTETS // 1024**2} MB; send it as a link.")
    if b"\0" in octets:
        raise _refused("", "control_character", "The mail contains NUL; encode binary parts in base64.")
    ends = octets.count(b"\r\n")
    if octets.count(b"\n") != ends or octets.count(b"\r") != ends:
        raise _refused("", "bare_line_end", "The mail contains a bare CR or LF; end every line with CRLF.")


def _faults(header: list[bytes]) -> list[Fault]:
    faults = []
    counts = Counter(map(name_of, header))
    for name in sorted(n for n, count in counts.items() if count > 1 and n in _ONCE):
        word = name.decode("ascii")
        faults.append(Fault(word, "duplicate_header", f"The field {word} stands {counts[name]} times; send it once."))
    for field in header:
        if not _is_utf8(field):
            word = name_of(field).decode("ascii")
            why = f"The field {word} is neither ASCII nor UTF-8; encode it (RFC 2047)."
            faults.append(Fault(word, "invalid_header", why))
    return faults


def _sender(header: list[bytes], faults: list[Fault]) -> Address | None:
    """The one mailbox of From; what is wrong with it goes to `faults`."""
    if any(fault.field == "from" for fault in faults):
        return None
    value = value_of(header, b"from")
    items = _items(value)
    if len(items) != 1 or items[0] != value.decode("utf-8", "replace").strip():
        what = "names no mailbox" if not items else f"names {len(items)} mailboxes"
        if len(items) == 1:  # whoever reads the name of a group for the sender would see a domain that nobody verified
            what = "is a list or a group"
        faults.append(Fault("from", "invalid_from_address", f"From {what}; write exactly one."))
        return None
    try:
        return _mailbox(items[0])
    except ValueError as error:
        faults.append(Fault("from", "invalid_from_address", str(error)))
        return None


def _leaves_out(name: bytes) -> bool:
    return name in _TAKEN_OUT or name.startswith(b"x-mailapi-") or is_control(name)


def _short_lines(octets: bytes) -> bytes:
    if not long_lines(octets):
        return octets
    changed = recode(octets, seven_bit=False)
    if changed is None:
        why = (
            f"A line has more than {headers.MAX_LINE} octets and cannot be recoded, as a signature covers it or it "
            "stands outside of a part; fold it."
        )
        raise _refused("", "line_too_long", why)
    return changed


def _same(kept: list[bytes], body: bytes) -> bytes:
    stable = b"".join(f for f in kept if name_of(f) not in (b"date", b"message-id", b"received", b"content-type"))
    boundary = boundary_of(value_of(kept, b"content-type"))
    return stable + (body.replace(boundary, b"") if boundary else body)


# --- fields -----------------------------------------------------------------------------------------------------


def _mended(field: bytes) -> bytes:
    """A field with 8-bit text in encoded words, and names of senders in quotes that hold an @ and stood in none, where
    that keeps its meaning; else as it came.

    Many programs write UTF-8 into Subject and names without asking for SMTPUTF8, which few hops offer (RFC 6409 §8),
    and `From: a@x <b@y>`, of which each reader takes another part for the address (RFC 5322 §3.2.3: an atom has no @).
    """
    name = name_of(field)
    senders = _items(value_of([field], name)) if name in _SENDER_FIELDS and field.count(b"@") > 1 else []
    if (field.isascii() and not any(map(_has_unquoted_at, senders))) or not _is_utf8(field):
        return field
    word = field.partition(b":")[0].decode("ascii").strip()
    if name not in _ADDRESS_FIELDS:
        return field if headers.is_structured(word) else headers.unstructured(word, _text(field))
    unread: list[str] = []
    mailboxes = _mailboxes([field], name, unread, most=None)  # written anew with all of them
    return headers.addresses(word, mailboxes) if mailboxes and not unread else field


def _has_unquoted_at(item: str) -> bool:
    named = _NAMED.fullmatch(item)
    return named is not None and "@" in named[1] and not _QUOTED.fullmatch(named[1].strip())


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _text(field: bytes) -> str:
    return field.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")


def _items(value: bytes) -> list[str]:
    items = (item.strip() for item in split_addresses(value.decode("utf-8", "replace")))
    return [item for item in items if item]


def _mailboxes(header: list[bytes], name: bytes, unread: list[str], most: int | None = MAX_ADDRESSES) -> list[Address]:
    """The addresses that a field names; those that cannot be read go to `unread`."""
    found = []
    for item in _items(value_of(header, name))[:most]:
        try:
            found.append(_mailbox(item))
        except ValueError:
            unread.append(clean(item)[:320])
    return found


def _mailbox(item: str) -> Address:
    """`Name <a@b>` or `a@b`, with comments and encoded words (RFC 5322 §3.4). ValueError says what is wrong.

    Words are decoded in the name only and after it was parted from the address: an encoded `<` or comma never counts.
    """
    named = _NAMED.fullmatch(item)
    if named is None:
        return named_address("", _COMMENT.sub("", item).strip())
    phrase = named[1].replace("\t", " ").strip()  # RFC 5322 §2.2.3: a line may go on with a tab
    if len(phrase) > 1 and phrase.startswith('"') and phrase.endswith('"'):
        phrase = re.sub(r"\\(.)", r"\1", phrase[1:-1])
    return named_address(clean(decode_words(phrase)).strip()[:320], named[2].strip())
