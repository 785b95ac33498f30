"""One address as callers of the API write it: `a@b`, `Name <a@b>` or `"Quoted, Name" <a@b>`.

Strict on purpose. What is read here becomes a forward-path and a header field, so everything that two parsers may
read differently is refused with a sentence that says what to do instead: lists, groups, comments, source routes,
address literals, control characters, special-use domains without mail. RFC 5321 §4.1.2 and RFC 5322 §3.4 are the
grammar, RFC 6531 §3.3 widens the local part, RFC 5890 gives the domain its A-label form.

Plain ASCII addresses take one regular expression; all others go through email-validator (without DNS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from email_validator import EmailNotValidError, validate_email

#: RFC 5321 §4.5.3.1.1: octets before the @
MAX_LOCAL_OCTETS = 64
#: RFC 5321 §4.5.3.1.3, less the angle brackets: octets of local part, @ and domain
MAX_ADDRESS_OCTETS = 254
#: ours: a display name above it is no name, and would fill a screen
MAX_NAME_CHARACTERS = 320

#: bounds the work on a hostile text: a name, every character of it escaped, and an address
_MAX_TEXT_CHARACTERS = 1_000

_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+"
_DOT_ATOM = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
#: a top-level domain ends with a letter (RFC 3696 §2); labels of the form "xx--" are email-validator's to judge
_PLAIN = re.compile(
    rf"({_ATEXT}(?:\.{_ATEXT})*)"
    r"@((?:(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(?!..--)(?:[A-Za-z0-9][A-Za-z0-9-]{0,61})?[A-Za-z])"
)
#: RFC 2156 §4.1: an X.400 name as the local part of its gateway, /C=GB/ADMD= /PRMD=x/O=y/S=z/; a slash in a value is $/
_MIXER = re.compile(r'("?)(/(?:[A-Za-z0-9.-]+=(?:\$/|[A-Za-z0-9 \'()+,.:=?$&!#%*;_{|}~-])*/)+)\1')
_GATEWAY = re.compile(r"(?!..--)[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: RFC 6761, RFC 6762, RFC 7686: names that no mail can reach. `.test` stays open, for the receiver lab.
_SPECIAL_USE = frozenset({"arpa", "invalid", "local", "localhost", "onion"})

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ENCODED_WORD = re.compile(r"=\?[^?]+\?[bBqQ]\?[^?]*\?=")  # RFC 2047 §2
_UNQUOTE = re.compile(r"\\(.)")
_CASED = (chr(c) for letters in (range(0x80), range(0xC0, 0x590), range(0x1E00, 0x2000)) for c in letters)
#: where a letter and its small one are one character each
_SMALL = {ord(c): c.lower() for c in _CASED if len(c.lower()) == 1}
#: what an unquoted display name cannot hold without being read as something else (RFC 5322 §3.2.3 specials,
#: less `.`, `@`, `[` and `]`, which people do write and nobody misreads before an angle bracket)
_NAME_SPECIALS = re.compile(r'[()<>,;:\\"]')


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox. `local` is as it stands on the wire (quoted where it must be), case kept (RFC 5321 §2.4);
    `domain` is in A-labels and lower case; `display_name` is plain Unicode, empty when there is none."""

    display_name: str
    local: str
    domain: str

    @property
    def addr_spec(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def smtputf8(self) -> bool:
        """The local part is not ASCII: hop and header need RFC 6531 and RFC 6532."""
        return not self.local.isascii()

    def header(self) -> str:
        """`Name <a@b>` in Unicode, quoted where it must be; `parse_address` reads it back to the same value."""
        if not self.display_name:
            return self.addr_spec
        return f"{quoted_phrase(self.display_name)} <{self.addr_spec}>"


def folded(addr_spec: str) -> str:
    """The form in which addresses are compared: suppressions, unsubscribes, erasure. `folded_address` in SQL.

    RFC 5321 §2.4 leaves the case of a local part to its receiver, yet nobody has two mailboxes that differ in it.
    Letters go one for one, by a table of ours: what `lower` does depends on a database's collation.
    """
    return addr_spec.lower() if addr_spec.isascii() else addr_spec.translate(_SMALL)


def parse_address(text: str) -> Address:
    """Read one address. ValueError says in one sentence what is wrong and what to do."""
    match = _PLAIN.fullmatch(text)
    if match is not None:
        return _plain("", match)
    if len(text) > _MAX_TEXT_CHARACTERS:
        raise ValueError("The address is far longer than any address with its name can be; send one address at a time.")
    if _CONTROL.search(text):
        raise ValueError(
            "The address contains a line break or another control character; send it as one line of plain text."
        )
    text = text.strip(" ")
    if not text:
        raise ValueError("The address is empty; write it as name@example.com or Name <name@example.com>.")
    if not text.endswith(">"):
        return _bare(text)
    if text.startswith('"'):
        quoted = _QUOTED.match(text)
        if quoted is None:
            raise ValueError("The quoted display name has no closing quotation mark; add it before the angle bracket.")
        rest = text[quoted.end() :].lstrip(" ")
        if not rest.startswith("<"):
            raise ValueError(
                'After a quoted display name only <name@example.com> may follow; put the whole name into one "…".'
            )
        name, addr_spec = _UNQUOTE.sub(r"\1", quoted[1]), rest[1:-1]
    else:
        opening = text.find("<")
        if opening < 0:
            raise ValueError("The address ends with > but has no <; write it as Name <name@example.com>.")
        name, addr_spec = text[:opening], text[opening + 1 : -1]
        _check_unquoted_name(name)
    return named_address(name, addr_spec)


def named_address(display_name: str, addr_spec: str) -> Address:
    """The Address of a name and an addr-spec that come apart (`{"email": …, "name": …}`); the name is taken literally.

    ValueError as parse_address: the message says what is wrong and what to write.
    """
    name = display_name.strip()
    if _CONTROL.search(name):
        raise ValueError(
            "The display name contains a line break or another control character; send it as one line of plain text."
        )
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"The display name is longer than {MAX_NAME_CHARACTERS} characters; shorten it.")
    match = _PLAIN.fullmatch(addr_spec)
    if match is not None:
        return _plain(name, match)
    return _bare(addr_spec, name)


def quoted_phrase(name: str) -> str:
    """RFC 5322 §3.2.4: the name as it stands when it is a row of atoms (or of other letters), else a quoted-string."""
    if "  " not in name and name.strip() == name and not re.search(r'[()<>,;:\\"@\[\].]', name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(name: str, match: re.Match[str]) -> Address:
    local, domain = match[1], match[2].lower()
    if len(local) > MAX_LOCAL_OCTETS and not _MIXER.fullmatch(local):
        raise ValueError(f"The part before the @ is longer than {MAX_LOCAL_OCTETS} octets; no mailbox has such a name.")
    if len(local) + 1 + len(domain) > MAX_ADDRESS_OCTETS or len(domain) > 253:
        raise ValueError(f"The address is longer than {MAX_ADDRESS_OCTETS} octets; check it for missing separators.")
    if domain.rpartition(".")[2] in _SPECIAL_USE:
        raise ValueError(f"No mail can be sent to {domain}: the name is reserved (RFC 6761); use a real domain.")
    _refuse_encoded_word(local)
    return Address(name, local, domain)


def _bare(addr_spec: str, name: str = "") -> Address:
    """An addr-spec that the plain expression does not know: named mistakes first, then email-validator's judgement."""
    if len(addr_spec) > _MAX_TEXT_CHARACTERS:
        raise ValueError(f"The address is longer than {MAX_ADDRESS_OCTETS} octets; check it for missing separators.")
    if mixer := _MIXER.fullmatch(addr_spec.rpartition("@")[0]):
        return _of_gateway(name, mixer[2], addr_spec.rpartition("@")[2])
    _explain(addr_spec)
    try:
        found = validate_email(
            addr_spec,
            allow_smtputf8=True,
            allow_quoted_local=True,
            allow_domain_literal=False,
            allow_display_name=False,
            check_deliverability=False,
            test_environment=True,
        )
    except EmailNotValidError as error:
        reason = str(error).rstrip(".")[:200]  # it may list every character of a long text
        raise ValueError(f"{reason}; write the address as name@example.com.") from error
    local, domain = found.local_part or "", (found.ascii_domain or "").lower()
    if "." not in domain:
        raise ValueError(f"The domain {domain} has no dot; write the full domain, such as name@example.com.")
    if _DOT_ATOM.fullmatch(addr_spec.rpartition("@")[0]):
        local = addr_spec.rpartition("@")[0]  # RFC 5321 §2.4: its case is the receiver's affair
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise ValueError(f"The part before the @ is longer than {MAX_LOCAL_OCTETS} octets; no mailbox has such a name.")
    _refuse_encoded_word(local)
    return Address(name, local, domain)


def _of_gateway(name: str, x400: str, domain: str) -> Address:
    """Quoted where a value has spaces or the like (`ADMD= `), and as long as a path may be: it is a whole name."""
    local = x400 if _DOT_ATOM.fullmatch(x400) else f'"{x400}"'
    # a gateway of the house needs no more than its name, and a fixed route (MAIL_ROUTES)
    host = _GATEWAY.fullmatch(domain.lower())
    domain = host[0] if host and host[0] not in _SPECIAL_USE else _bare(f"x@{domain}").domain
    if len(local) + 1 + len(domain) > MAX_ADDRESS_OCTETS:
        raise ValueError(
            f"The address is longer than {MAX_ADDRESS_OCTETS} octets; leave out what the gateway can do without."
        )
    return Address(name, local, domain)


def _explain(addr_spec: str) -> None:
    """The mistakes that callers do make, each with its remedy."""
    outside = _QUOTED.sub("", addr_spec)
    if _CONTROL.search(addr_spec):
        raise ValueError(
            "The address contains a line break or another control character; send it as one line of plain text."
        )
    if not addr_spec:
        raise ValueError("There is nothing between the angle brackets; write the address as Name <name@example.com>.")
    if "," in outside or ";" in outside:
        raise ValueError("This holds more than one address; send each address as an element of its own.")
    if "(" in outside or ")" in outside:
        raise ValueError("Comments in parentheses are not supported; write only name@example.com.")
    if "<" in outside or ">" in outside:
        raise ValueError(
            "The angle brackets do not fit; write Name <name@example.com>, with nothing after the closing bracket."
        )
    if ":" in outside and "[" not in outside:
        raise ValueError("Groups and source routes are not supported; write only name@example.com.")
    if "[" in outside:
        raise ValueError("An IP address in brackets is not a domain that mail is sent to; use name@example.com.")
    if "@" not in outside:
        if "＠" in outside or "﹫" in outside:
            raise ValueError("The address has a look-alike of the @; use the plain ASCII @.")
        raise ValueError("The address has no @; write it as name@example.com.")
    if outside.count("@") > 1:
        raise ValueError("The address has more than one @; write it as name@example.com.")
    if " " in outside:
        raise ValueError(
            "There is a space in the address; write Name <name@example.com> where a display name was meant."
        )


def _check_unquoted_name(name: str) -> None:
    special = _NAME_SPECIALS.search(name)
    if special is None:
        return
    if special[0] in "()":
        raise ValueError(
            'Parentheses in a display name read as a comment; put the name in double quotes: "Name (Team)" <a@b.com>.'
        )
    if special[0] == ",":
        raise ValueError(
            "A comma separates addresses: send each address as an element of its own, or put the name in double "
            'quotes: "Last, First" <name@example.com>.'
        )
    raise ValueError(
        f'The display name contains {special[0]}, which has a meaning there; write it in double quotes: "…" <a@b.com>.'
    )


def _refuse_encoded_word(local: str) -> None:
    # Lawful atext, but some receivers decode it, and then it names another mailbox.
    if _ENCODED_WORD.search(local):
        raise ValueError("The part before the @ looks like a MIME encoded word; write the address in plain characters.")
