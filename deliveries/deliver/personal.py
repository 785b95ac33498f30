"""What differs between the deliveries of one message beyond token and signature: tracked links, and how to leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.http.request import validate_host

from deliveries.errors import ComposeError
from deliveries.mime import links, raw, verp
from deliveries.mime.compose import compose
from deliveries.mime.deliverable import Prepared, prepare
from deliveries.mime.links import PATHS, Kind
from deliveries.read.contents import Stored
from deliveries.smtp.outcome import Verdict
from deliveries.states import Category, Status, Tracking


@dataclass(frozen=True, slots=True)
class Tracked:
    """A mail whose links are each recipient's own: composed for each delivery. `flags` are bits of Tracking; without
    any it shows the link that ends the stream."""

    content: Stored
    flags: int
    size_octets: int


def personal(message: Prepared | Tracked | Verdict, delivery_id: UUID, url: str) -> Prepared | Verdict:
    """The message as this delivery sends it; `url` is the base of its links, "" for BASE_URL."""
    if not isinstance(message, Tracked):
        return message

    def own(html: str) -> str:
        if message.flags & Tracking.CLICKS:
            html = links.rewrite(html, lambda target: _link(Kind.CLICK, delivery_id, url, target))
        if message.flags & Tracking.OPENS:
            html = links.with_pixel(html, _link(Kind.OPEN, delivery_id, url))
        return html

    def way_out(text: str) -> str:
        return links.with_way_out(text, _link(Kind.UNSUBSCRIBE, delivery_id, url))

    mail = message.content.mail
    try:
        if mail is None:
            return prepare(raw.with_html(message.content.composed(), own))
        html = None if mail.html is None else way_out(own(mail.html))
        return prepare(compose(replace(mail, html=html, text=None if mail.text is None else way_out(mail.text))))
    except ComposeError as e:
        return unrendered(e)


def leaving(prepared: Prepared, delivery_id: UUID, url: str) -> tuple[bytes, ...]:
    """RFC 8058 §3.1: the two fields with which the recipient leaves the stream of this mail; none where the sender
    wrote its own."""
    if b"\nlist-unsubscribe:" in b"\n" + prepared.header.lower():
        return ()
    return links.list_unsubscribe(_link(Kind.UNSUBSCRIBE, delivery_id, url))


def unrendered(error: ComposeError) -> Verdict:
    return Verdict(Status.FAILED, "compose", Category.PROTOCOL, text=f"It cannot be rendered: {error}")


def links_url(host: str | None) -> str:
    """The base of links at a tenant's own host, once its CNAME was seen and somebody says that it is served: the proxy
    has a certificate for each (ON_DEMAND_TLS), or for those in ALLOWED_HOSTS."""
    if not host or not (settings.ON_DEMAND_TLS or validate_host(host, settings.ALLOWED_HOSTS)):
        return ""
    return f"{urlsplit(settings.BASE_URL).scheme}://{host}"


def _link(kind: Kind, delivery_id: UUID, url: str, target: str = "") -> str:
    token = links.mint(verp.keys_of(settings.VERP_KEYS), kind, delivery_id, target)
    return f"{url or settings.BASE_URL}{PATHS[kind]}{token}"
