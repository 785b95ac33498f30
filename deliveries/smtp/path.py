"""Reverse-paths and forward-paths (RFC 5321 §4.1.2): written on our lines, read from a client's.

Writing: `mailbox_on_wire` is the only way for an address onto an SMTP line. Reading: `parse_path_argument` takes
the argument of MAIL or RCPT apart; `relay_shape` names the old forms that ask us to pass mail on.
Left out: comments and folding white space, which RFC 5321 does not allow in paths.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import idna

from deliveries.errors import ComposeError
from deliveries.smtp.hop import Envelope
from deliveries.smtp.limits import MAX_DOMAIN_OCTETS, MAX_PATH_OCTETS

_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
#: RFC 6531 §3.3: UTF-8 beyond ASCII; no C1 controls, no halves of surrogate pairs
_ABOVE = "\u00a0-\ud7ff\ue000-\U0010ffff"
_LOCAL_PART = re.compile(rf"(?:[{_ATEXT}{_ABOVE}]+(?:\.[{_ATEXT}{_ABOVE}]+)*)\Z")
_LOOSE_LOCAL_PART = re.compile(rf"[{_ATEXT}.{_ABOVE}]+\Z")
_QUOTED = re.compile(rf'"(?:[ !#-\[\]-~{_ABOVE}]|\\[ -~])*"\Z')
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~{_ABOVE}]+))?\Z")


@lru_cache(maxsize=4096)  # each mail asks for two of them, twice
def domain_on_wire(domain: str) -> str:
    """The domain in A-labels, or an address literal as it is. Raises ComposeError when it is neither."""
    if domain.startswith("[") and domain.endswith("]"):
        if not _is_literal(domain):
            raise ComposeError(f"not an address literal: {domain!r}")
        return domain
    name = domain.removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ComposeError(f"not a domain name: {domain!r} ({error})") from error
    if not _is_domain(name):
        raise ComposeError(f"not a domain name: {domain!r}")
    return name


def mailbox_on_wire(addr: str, *, smtputf8: bool = False) -> str:
    """`addr` as it may stand between the angle brackets of MAIL FROM or RCPT TO; "" (the null path) stays "".

    The domain is in A-labels always. Raises ComposeError for anything that is no mailbox: controls, spaces, angle
    brackets, a source route, a local part above ASCII unless `smtputf8`.
    """
    if addr == "":
        return ""
    local, at, domain = addr.rpartition("@")
    if not at or not (_LOOSE_LOCAL_PART.match(local) or _QUOTED.match(local)):
        # RFC 5321 §2.3.8: unchecked text on a command line is another command line
        raise ComposeError(f"not a mailbox: {addr!r}")
    if not local.isascii() and not smtputf8:
        raise ComposeError(f"local part needs SMTPUTF8: {addr!r}")
    mailbox = f"{local}@{domain_on_wire(domain)}"
    # RFC 5321 §4.5.3.1.1 allows a local part of 64, but receivers that use longer ones exist: only the path counts
    if len(mailbox.encode()) > MAX_PATH_OCTETS - 2:
        raise ComposeError(f"path longer than {MAX_PATH_OCTETS} octets")
    return mailbox


def xtext(text: str) -> str:
    """RFC 3461 §4: printable ASCII with `+`, `=` and what is not as `+` and two hexadecimal digits."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else "".join(f"+{o:02X}" for o in c.encode()) for c in text)


def check_envelope(envelope: Envelope) -> None:
    """Raise ComposeError where one of the two paths is no mailbox."""
    mailbox_on_wire(envelope.reverse_path, smtputf8=True)
    if not envelope.forward_path:
        raise ComposeError("a transaction needs a forward-path")
    mailbox_on_wire(envelope.forward_path, smtputf8=True)


def needs_smtputf8(addr: str) -> bool:
    """Whether the local part is above ASCII; a domain never needs it, its A-labels serve (RFC 6531 §3.2)."""
    return not addr.rpartition("@")[0].isascii()


@dataclass(frozen=True, slots=True)
class PathArgument:
    """`MAIL FROM:<a@b> SIZE=5` taken apart: mailbox without brackets ("" = null path), parameters by upper-case name.

    `source_route` is what stood before the mailbox (`@a,@b:`), which RFC 5321 §4.1.1.3 lets us ignore or refuse.
    """

    mailbox: str
    parameters: dict[str, str]
    source_route: str = ""


@dataclass(frozen=True, slots=True)
class BadPath:
    """Why an argument cannot be read, in words for a 501 or 553."""

    text: str


def parse_path_argument(argument: str, keyword: str) -> PathArgument | BadPath:
    """The argument of MAIL (`keyword` "FROM") or RCPT ("TO"). A space after the colon is borne, as all servers do."""
    head, colon, rest = argument.partition(":")
    if not colon or head.strip().upper() != keyword:
        return BadPath(f"expected {keyword}:<path>")
    rest = rest.lstrip(" ")
    if not rest.startswith("<"):
        return BadPath("the path stands in angle brackets")
    end = _closing_bracket(rest)
    if end is None:
        return BadPath("the path has no closing bracket")
    parameters: dict[str, str] = {}
    for word in rest[end + 1 :].split(" "):
        if not word:
            continue
        found = _PARAMETER.match(word)
        if not found or found[1].upper() in parameters:
            return BadPath("malformed parameter")
        parameters[found[1].upper()] = found[2] or ""
    path = rest[1:end]
    route = ""
    if path.startswith("@"):
        route, colon, path = path.partition(":")
        if not colon:
            return BadPath("malformed source route")
    if path and not path_is_mailbox(path) and not (keyword == "TO" and path.lower() == "postmaster"):
        return BadPath("malformed mailbox")
    return PathArgument(path, parameters, route)


def path_is_mailbox(path: str) -> bool:
    """RFC 5321 §4.1.2 Mailbox with RFC 6531's letters; lengths of §4.5.3.1."""
    local, at, domain = path.rpartition("@")
    if not at or len(path.encode("utf-8", "replace")) > MAX_PATH_OCTETS - 2:
        return False
    if not (_LOCAL_PART.match(local) or _QUOTED.match(local)):
        return False
    if domain.startswith("["):
        return _is_literal(domain)
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            return False
    return _is_domain(domain)


def relay_shape(path: PathArgument) -> str | None:
    """The name of a form that asks us to pass the mail on to a third host, None for a plain mailbox.

    `user%other@ours`, `other!user@ours`, `"user@other"@ours`, `@ours:user@other`, `user@[192.0.2.1]`: harmless text
    to a server that looks up whole local parts, the classic hole of one that does not. We refuse them by name.
    """
    if path.source_route:
        return "source route"
    local, _, domain = path.mailbox.rpartition("@")
    if domain.startswith("["):
        return "address literal"
    if "%" in local:
        return "percent hack"
    if "!" in local:
        return "bang path"
    if "@" in local:
        return "quoted address"
    return None


def _closing_bracket(text: str) -> int | None:
    quoted = escaped = False
    for i, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == ">" and not quoted:
            return i
    return None


def _is_domain(name: str) -> bool:
    return 0 < len(name) <= MAX_DOMAIN_OCTETS and all(_LABEL.match(label) for label in name.split("."))


def _is_literal(domain: str) -> bool:
    if not (domain.startswith("[") and domain.endswith("]")):
        return False
    inner = domain[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inner[5:])
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        return False
    return True
