"""Bounces written for people: the address and the reason out of the text before the returned mail.

Most formats share one shape: a greeting, then a paragraph per address that begins with it (`<a@b>:` of qmail,
Postfix, Courier; indented alone in Exim; `a@b on <date>` in Exchange), then a line, then the returned mail.
So one reader serves them: it cuts the text at the returned mail, weighs the addresses by where they stand,
and takes as diagnostic what follows each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from deliveries.bounces.finding import (
    ADDRESS,
    MAX_DIAGNOSTIC_CHARS,
    MAX_RECIPIENTS,
    Finding,
    addresses,
    tidy,
)
from deliveries.bounces.mail import Headers, Mail, Part, read_headers
from deliveries.bounces.paragraphs import MAX_SPOTS, coded, rest, said_at, stop_of
from deliveries.bounces.wordings import wordings
from deliveries.smtp.classify import stage_of
from deliveries.smtp.outcome import Stage
from deliveries.smtp.rules import fold, normalise

#: lines of human text that are read; a bounce that says nothing within them says nothing
MAX_LINES = 400
RETURNED_TYPES = (
    "message/rfc822",
    "message/global",
    "text/rfc822-headers",
    "message/rfc822-headers",
    "message/global-headers",
    "message/partial",
)

_TAG = re.compile(r"<(/?)(!?[a-zA-Z][a-zA-Z0-9]{0,11})(?=[\s>/])[^<>]{0,4000}>")
#: what is not shown: from the first to the second
_UNSHOWN = (("<!--", "-->"), ("<style", "</style"), ("<script", "</script"), ("<head", "</head"))
_BREAKS = frozenset({"br", "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "table", "ul", "ol", "pre", "hr"})
_ENTITY = {"&lt;": "<", "&gt;": ">", "&amp;": "&", "&nbsp;": " ", "&quot;": '"', "&#64;": "@", "&#39;": "'"}


@dataclass(frozen=True)
class Prose:
    """The human text, and the header of the returned mail (empty where none came back)."""

    text: str
    returned: Headers
    inline: str = ""  #: the returned mail as text, where it was pasted into the body

    @cached_property
    def lines(self) -> list[str]:
        """The text's lines, without those that only say who sent the mail."""
        lines = self.text.split("\n")[:MAX_LINES]
        for at, line in enumerate(lines):
            if label := _OF_SENDER.match(line):
                last = at if line[label.end() :].strip() else at + 1  # a label alone stands above
                if any(ADDRESS.search(one[:2_000]) for one in lines[last : last + 1]):
                    lines[at : last + 1] = [""] * (last + 1 - at)
        return lines

    @cached_property
    def shared(self) -> str:
        """What is said of no address alone: without the paragraphs of those that a line begins with."""
        heads = [at for at, blamed in enumerate(self.weighed) if any(weight >= 3 for _, weight in blamed)]
        kept = self.lines[: heads[0]] if heads else self.lines
        for at, end in pairwise((*heads, len(self.lines))):
            stop = stop_of(self.lines, at, end)
            kept += self.lines[stop if coded(" ".join(self.lines[at:stop])) else at : end]
        return "\n".join(kept)

    @cached_property
    def stage(self) -> Stage | None:
        """The command that its words say was refused."""
        return stage_of(normalise(self.text))

    @cached_property
    def weighed(self) -> list[list[tuple[str, int]]]:
        """The addresses of each line with their weight (see `weigh`)."""
        return [weigh(line) for line in self.lines]


def plain(part: Part) -> str:
    """A text part as lines; HTML without its tags, also where its type says that it is plain."""
    text = part.text
    if part.type == "text/html" or text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        return strip_html(text)
    return text


def strip_html(text: str) -> str:
    """The text of HTML, a line for each block; what has no tag that breaks lines keeps its own."""
    if not any(found[2].lower() in _BREAKS for found in _TAG.finditer(text)):
        text = text.replace("\n", "<br>")
    for opens, closes in _UNSHOWN:
        kept, low, at = [], text.lower(), 0
        if len(low) != len(text):  # a few letters grow when lowered; then positions would not agree
            low = text
        while (start := low.find(opens, at)) >= 0 and (end := low.find(closes, start)) >= 0:
            kept.append(text[at:start])
            at = end + len(closes)
            at = at if closes[-1] == ">" else low.find(">", end) + 1 or at
        text = "".join(kept) + text[at:]
    pieces = re.split("<pre", text, flags=re.I)
    text = "<pre".join(_kept(piece) if at else piece.replace("\n", " ") for at, piece in enumerate(pieces))
    text = _TAG.sub(lambda m: "\n" if m[2].lower() in _BREAKS else " ", text)
    for entity, char in _ENTITY.items():
        text = text.replace(entity, char)
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))


def _kept(piece: str) -> str:
    """What follows `<pre`: its lines stay until `</pre`."""
    end = piece.lower().find("</pre")
    inside, outside = (piece, "") if end < 0 else (piece[:end], piece[end:])
    return inside.replace("\n", "<br>") + outside.replace("\n", " ")


def prose_of(mail: Mail) -> Prose:
    """What a person would read first, and the returned header, whichever way it came."""
    texts: list[str] = []
    html: list[str] = []
    returned = Headers()
    for part in mail.parts:
        if part.type in RETURNED_TYPES:
            returned = _returned(part)
            break
        if part.type == "text/html":
            html.append(plain(part))
        elif part.type.startswith("text/") and "attachment" not in part.headers.get("content-disposition").lower():
            texts.append(plain(part))
    text = "\n".join(texts) if any(t.strip() for t in texts) else "\n".join(html)
    text, inline = _cut(text)
    if not len(returned) and inline:
        returned = _inline_headers(inline)
    return Prose(text, returned, inline)


def _returned(part: Part) -> Headers:
    octets = part.octets[:128_000].lstrip(b"\n")
    if octets.startswith((b"From ", b">From ")):
        octets = octets.partition(b"\n")[2]
    return read_headers(octets.partition(b"\n\n")[0])


#: a line of a header that was pasted
_RETURNED_FIELD = re.compile(
    r"(from|to|subject|date|sender|reply-to|cc|message-id|mime-version|content-type|x-[\w-]{1,40}): ", re.I
)
#: fields that no person writes: one of them proves it
_PROVES = frozenset({"message-id", "mime-version", "content-type"})


def _is_header(lines: list[str]) -> bool:
    """Whether a mail's header begins here: four fields at the margin, From and one that no person writes among them."""
    names: set[str] = set()
    for line in lines[:30]:
        if line[:1] in (" ", "\t") and names:
            continue
        field = _RETURNED_FIELD.match(line)
        if not field:
            break
        names.add(field[1].lower())
    return len(names) >= 4 and "from" in names and not names.isdisjoint(_PROVES)


def _cut(text: str) -> tuple[str, str]:
    """The text before and after the line that announces the returned mail, or before its header."""
    lines = text.split("\n")[: MAX_LINES * 4]
    marks = wordings().returned_mail
    for at, line in enumerate(lines):
        flat = fold(line)
        if not flat:
            continue
        if any(mark in flat for mark in marks):
            return "\n".join(lines[:at][:MAX_LINES]), "\n".join(lines[at + 1 :])
        if flat.startswith(
            ("received: from", "received: (", "received: by", "return-path: <", "> received: from", "dkim-signature:")
        ):
            return "\n".join(lines[:at][:MAX_LINES]), "\n".join(lines[at:])
        if _RETURNED_FIELD.match(line) and _is_header(lines[at:]):
            return "\n".join(lines[:at][:MAX_LINES]), "\n".join(lines[at:])
    return "\n".join(lines[:MAX_LINES]), ""


def _inline_headers(text: str) -> Headers:
    """Header fields in pasted text: quoting and indentation off, from the first line that is a field."""
    lines = [re.sub(r"^[>| ]{1,4}(?=[A-Z])", "", line) for line in text.split("\n")[:300]]
    start = next((i for i, line in enumerate(lines) if re.match(r"[A-Z][A-Za-z-]{1,40}:\s", line)), None)
    if start is None:
        return Headers()
    block = []
    for line in lines[start:]:
        if not line.strip():
            break
        block.append(line)
    return read_headers("\n".join(block).encode("utf-8", "replace"))


def read_prose(mail: Mail, prose: Prose) -> list[Finding]:
    """Findings from the human text: the addresses it blames, each with what was said of it."""
    lines = prose.lines
    whole = " ".join(_ungreeted("\n".join(lines)).split())
    own = _not_recipients(mail, prose)
    failed = [a for a in addresses(", ".join(mail.headers.all("x-failed-recipients"))) if a]
    named: dict[str, str] = {}  # address in lower case → as written
    strength: dict[str, int] = {}
    spots: dict[str, list[tuple[int, int]]] = {}  # its lines, each with its weight there
    for at, blamed in enumerate(prose.weighed):
        for address, weight in blamed:
            key = address.lower()
            if key in own or key.split("@")[0] in wordings().role_names:
                continue
            named.setdefault(key, address)
            strength[key] = max(weight, strength.get(key, 0))
            spots.setdefault(key, []).append((at, weight))
        if len(named) >= MAX_RECIPIENTS:
            break
    sent_to = {
        a.lower()
        for name in ("to", "cc", "bcc", "x-original-to", "delivered-to")
        for value in prose.returned.all(name)
        for a in addresses(value)
    }
    best = max(strength.values(), default=0)
    if best >= 3:
        chosen = {key: value for key, value in named.items() if strength[key] >= 3}
    elif failed:
        chosen = {a.lower(): a for a in failed}
    elif best == 2:
        chosen = {key: value for key, value in named.items() if strength[key] == 2}
        # a letter that says who failed may also repeat the header of the mail
        chosen = {k: v for k, v in chosen.items() if not all(_TO.match(lines[at]) for at, _ in spots[k])} or chosen
    elif sent_to & named.keys():
        chosen = {key: value for key, value in named.items() if key in sent_to}
    elif named:
        before = {key: _before(lines[spots[key][0][0]], address) for key, address in named.items()}
        first = next((key for key in named if before[key].endswith(_SENT_TO)), next(iter(named)))
        # the same may be said of others
        chosen = {key: value for key, value in named.items() if key == first or before[key] == before[first]}
    elif len(sent_to) == 1:
        address = next(iter(sent_to))
        chosen = {address: address}
    else:
        chosen = {}
    found = []
    for key, address in chosen.items():
        ats = [at for at, _ in sorted(spots.get(key, ()), key=lambda spot: -min(spot[1], 2))[:MAX_SPOTS]]
        letter = not ats or len(chosen) == 1
        others = {at for other in chosen if other != key for at, _ in spots.get(other, ())[:MAX_SPOTS]}
        diagnostic = whole if letter else said_at(lines, ats, sorted(others))
        found.append(Finding(address, diagnostic[:MAX_DIAGNOSTIC_CHARS], letter=letter))
    return found


def _before(line: str, address: str) -> str:
    """What a line says before it names an address, or several in a row."""
    text = ADDRESS.sub("", line.partition(address)[0][-400:])
    for _ in range(3):
        text = text.rstrip(" \t,;&<>\"'")
        text = next((text.removesuffix(word) for word in _AND if text.endswith(word)), text)
    return f" {text.strip()}"


_LABEL = re.compile(
    r"(.{0,30}\b(recipients?|address|rcpt to|user|mailbox|account|delivered to|deliver to|failed to)|to)\b"
    r"[^:<@]{0,20}[:=<]",
    re.I,
)
#: what stands before the sender's address, and after it
_SENDS = (" from", " von", " de la part de", " sent by", "sender", "absender")
_SENT = ("sent ", "wrote", ": sender ", "から", "より")
_ID = re.compile(r"\b(message|message-?id|identifier|id)\s{0,3}[:=]?\s{0,3}<$", re.I)
#: the label of a line that holds the sender's address, or the next one does
_OF_SENDER = re.compile(
    r"\W{0,8}(sender|from|return-path|absender|exp[ée]diteur|remitente|mittente|发件人|差出人) {0,8}[:：]", re.I
)
#: what stands before a recipient's in a sentence
_SENT_TO = (" to", " an", " à", " para", " aan", " do", " til", " för", " pro", " către", " na adres", " на адрес")
_AND = (" and", " und", " et", " y", " e", " en", " i", " и")
_GREETS = (
    r"\s{0,200}(hello|hi|dear|hallo|guten tag|sehr geehrter?|bonjour|cher|hola|estimado|ciao|gentile|olá|prezado|beste|"
    r"geachte|hej|witaj|здравствуйте)"
)
_GREETING = re.compile(_GREETS + r"[ ,<]{1,4}", re.I)
#: "Sehr geehrter Absender," blames no sender
_SALUTATION = re.compile(_GREETS + r"\b[^\n@:]{0,60}[,!]\s{0,8}\n", re.I)


def _ungreeted(text: str) -> str:
    found = _SALUTATION.match(text)
    return text[found.end() :] if found else text


_TO = re.compile(r"[\s*>-]{0,8}(to|cc) {0,4}:", re.I)
_CODES = re.compile(r"[<>*\[\-\s]{0,6}([245]\d\d[ -]{1,3})?([245]\.\d\.\d{1,2}[ ]{1,3})?[<\"'(*\[>\s-]{0,6}")


def weigh(line: str) -> list[tuple[str, int]]:
    """Addresses of a line with a weight.

    3: the line begins with it (perhaps after codes) and it stands alone or before `:` or `...`, or in an X.400 name;
    2: the line begins with it and goes on, or a label names it a recipient; 1: somewhere else.
    """
    line = line[:2_000]
    flat = line.strip().lstrip("*-> \t")
    found = []
    for match in ADDRESS.finditer(line):
        address = tidy(match[0])
        if not address:
            continue
        before, rest = line[: match.start()], line[match.end() :].strip(" >\"')]\t")
        tail = before[-20:].lower().rstrip(" <\"':")
        if tail.endswith(_SENDS) and not tail.endswith("expanded from"):
            continue  # the sender's own
        if rest.lower().startswith(_SENT) or _GREETING.fullmatch(before) or _ID.search(before[-20:]):
            continue  # the same, whoever reads it, or no address
        weight = 1
        if _CODES.fullmatch(before):
            alone = not rest or rest.startswith((":", "...", "on ", "- ", "(", ";", ","))
            weight = 3 if alone else 2
        elif "dda:" in before.lower():
            weight = 3
        elif _LABEL.match(flat):
            weight = 2
        found.append((address, weight))
    return found


def said_of(prose: Prose, address: str) -> str:
    """What the human text says in the lines that begin with `address` or name it a recipient; "" where none does."""
    key = address.lower()
    spots = [(i, w) for i, blamed in enumerate(prose.weighed) for a, w in blamed if w >= 2 and a.lower() == key]
    if not spots:
        return ""
    ats = sorted(at for at, _ in spots)[:MAX_SPOTS]
    others = {i for i, blamed in enumerate(prose.weighed) if any(w >= 3 and a.lower() != key for a, w in blamed)}
    # alone, it is what all the rest is about
    said = said_at(prose.lines, ats, sorted(others)) if others else rest(prose.lines, ats[0])
    return said[:MAX_DIAGNOSTIC_CHARS]


def _not_recipients(mail: Mail, prose: Prose) -> set[str]:
    """Addresses that are the sender's or the reporter's: who gets the bounce, and who writes it."""
    own: set[str] = set()
    for headers, names in (
        (mail.headers, ("to", "from", "reply-to", "sender")),
        (prose.returned, ("from", "return-path", "sender", "reply-to")),
    ):
        for name in names:
            for value in headers.all(name)[:3]:
                own.update(a.lower() for a in addresses(value, 10))
    return own
