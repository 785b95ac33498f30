"""Links of ours in a mail: clicks and opens that are counted, and leaving a list with one click (RFC 8058).

    mint, read          a signed token that names a delivery, what it is for, and where a click leads
    rewrite, with_pixel the HTML of one delivery
    list_unsubscribe    the two header fields
    automatic           whether a request was made by a program

The target stands inside the token and under its HMAC, so that a link leads where the sender wrote, or nowhere: there is
no address that somebody else could put in (an open redirect). Keys are VERP_KEYS, under a label of their own; a link is
good for as long as its key is kept.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import html as entities
import re
import uuid
from collections.abc import Callable, Mapping
from enum import IntEnum
from urllib.parse import quote, urlsplit

from deliveries.errors import TokenError
from deliveries.mime.verp import Keys


class Kind(IntEnum):
    """What a token is for; it stands in the token."""

    OPEN = 1
    CLICK = 2
    UNSUBSCRIBE = 3


#: where each is served, below the base URL
PATHS: dict[Kind, str] = {Kind.OPEN: "/o/", Kind.CLICK: "/c/", Kind.UNSUBSCRIBE: "/u/"}
#: longer targets stay as they are: some programs cut URLs above 2,000 characters
MAX_TARGET = 1_400
MAX_TOKEN = 2_500
#: the key of `{{{UNSUBSCRIBE_URL}}}`, as at Resend: in a body, each recipient's own link
LEAVE = "UNSUBSCRIBE_URL"
LEAVE_PLACE = f"{{{{{{{LEAVE}}}}}}}"
_LEAVE = re.compile(rf"\{{\{{\{{[ \t]*{LEAVE}[ \t]*\}}\}}\}}")
#: of a start tag; what is longer is no link that somebody wrote
_MAX_TAG = 8_000

_VERSION = 1
_HEAD_OCTETS = 19  # version, kind, key id, delivery
_MAC_OCTETS = 12
_LABEL = b"link:"  # parts these HMACs from those of reverse-paths
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{40,{MAX_TOKEN}}}")

#: no "<" outside of quotes: a tag that is never closed ends the search at the next one
_TAG = re.compile(r"<a(?:rea)?(?=[\s/])(?:[^<>\"']|\"[^\"]*\"|'[^']*')*>", re.I)
_HREF = re.compile(r"(\shref\s*=\s*)(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'<>=`]+))", re.I)
_NO_TRACK = re.compile(r"\sdata-(?:pm-)?no-track\b", re.I)
_BODY_END = re.compile(r"</body\s*>", re.I)
#: what may stand in a URL as it is (RFC 3986), percent signs included
_URL_SAFE = ":/?#[]@!$&'()*+,;=%-._~"
_IN_URL = re.compile(r"[^\x00-\x20\x7f<>\"\\^`{|}]+")

#: programs by their own word, and the gateways that fetch every link of a mail before anybody reads it
_PROGRAMS = re.compile(
    r"bot\b|bot/|crawl|spider|slurp|preview|scan|fetch|monitor|headless|curl/|wget/|python|java/|okhttp|go-http|libwww"
    r"|ruby|perl|axios|node-|barracuda|proofpoint|mimecast|safelinks|symantec|trendmicro|fireeye|forcepoint|cisco"
    r"|sophos|cloudmark|facebookexternalhit|whatsapp|slack|telegram|skypeuri|discord",
    re.I,
)
_HUMAN_PROXIES = ("googleimageproxy", "yahoomailproxy")
#: Apple's Mail Privacy Protection fetches pictures when mail comes, and says this and nothing else
_PRIVATE_PREFETCH = "Mozilla/5.0"


def mint(keys: Keys, kind: Kind, delivery_id: uuid.UUID, target: str = "") -> str:
    """The token, letters that may stand in a URL. The same arguments give the same token: every retry is one mail."""
    key_id, secret = next(iter(keys.secrets.items()))
    head = bytes((_VERSION, kind, key_id)) + delivery_id.bytes
    octets = target.encode("ascii")
    return _encode(head + _mac(secret, head + octets) + octets)


def read(keys: Keys, kind: Kind, token: str) -> tuple[uuid.UUID, str]:
    """(delivery, target). TokenError: `malformed`, `unknown key` or `forged`."""
    if _TOKEN.fullmatch(token) is None:
        raise TokenError("malformed")
    try:
        octets = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        raise TokenError("malformed") from None
    head, mac, target = (
        octets[:_HEAD_OCTETS],
        octets[_HEAD_OCTETS : _HEAD_OCTETS + _MAC_OCTETS],
        octets[_HEAD_OCTETS + _MAC_OCTETS :],
    )
    # base64 has several spellings of the same octets: only ours is a token
    if _encode(octets) != token or len(mac) < _MAC_OCTETS or head[:2] != bytes((_VERSION, kind)):
        raise TokenError("malformed")
    secret = keys.secrets.get(head[2])
    if secret is None:
        raise TokenError("unknown key")
    if not hmac.compare_digest(mac, _mac(secret, head + target)):
        raise TokenError("forged")
    return uuid.UUID(bytes=head[3:]), target.decode("ascii")


def rewrite(html: str, link: Callable[[str], str]) -> str:
    """The HTML with each http and https link of `<a>` and `<area>` replaced by `link(target)`; all else as it was.

    A tag with `data-no-track` keeps its own, and so does a target that is no complete URL.
    """

    def tag(found: re.Match[str]) -> str:
        text = found[0]
        if len(text) > _MAX_TAG or _NO_TRACK.search(text):
            return text
        return _HREF.sub(href, text, count=1)

    def href(found: re.Match[str]) -> str:
        raw = next(group for group in found.groups()[1:] if group is not None)
        target = target_of(entities.unescape(raw))
        return found[0] if target is None else f'{found[1]}"{entities.escape(link(target))}"'

    return _TAG.sub(tag, html)


def target_of(url: str) -> str | None:
    """The URL in ASCII where a click on it may lead; None for all but complete http and https URLs."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.netloc.isascii():
        return None
    if not _IN_URL.fullmatch(url):
        return None
    target = url if url.isascii() else quote(url, safe=_URL_SAFE)
    return target if len(target) <= MAX_TARGET else None


def with_pixel(html: str, url: str) -> str:
    """The HTML with a picture of one dot at its end."""
    picture = (
        f'<img src="{entities.escape(url)}" width="1" height="1" alt="" '
        'style="border:0;width:1px;height:1px;overflow:hidden">'
    )
    ends = list(_BODY_END.finditer(html))
    at = ends[-1].start() if ends else len(html)
    return html[:at] + picture + html[at:]


def leads_out(*texts: str | None) -> bool:
    """Whether one of the texts has a place for the link that ends the stream."""
    return any(text is not None and LEAVE in text and _LEAVE.search(text) for text in texts)


def with_way_out(text: str, url: str) -> str:
    """The text with `url` in those places; it is the same in HTML (no & in it)."""
    return _LEAVE.sub(lambda place: url, text)


def list_unsubscribe(url: str) -> tuple[bytes, bytes]:
    """RFC 8058 §3.1: one https URI, and the field that says that a POST to it is enough."""
    return (
        f"List-Unsubscribe: <{url}>\r\n".encode("ascii"),
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
    )


def automatic(method: str, headers: Mapping[str, str]) -> str:
    """Why a request was hardly made by a person, in one word; "" where nothing says so. `headers` in lower case."""
    if method == "HEAD":
        return "head"
    if any("prefetch" in headers.get(name, "").lower() for name in ("sec-purpose", "purpose", "x-moz")):
        return "prefetch"
    agent = headers.get("user-agent", "").strip()
    if not agent:
        return "no_user_agent"
    if any(proxy in agent.lower() for proxy in _HUMAN_PROXIES):
        return ""
    if agent == _PRIVATE_PREFETCH:
        return "privacy_proxy"
    return "user_agent" if _PROGRAMS.search(agent) else ""


def _encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _mac(secret: bytes, claims: bytes) -> bytes:
    return hmac.digest(secret, _LABEL + claims, "sha256")[:_MAC_OCTETS]
