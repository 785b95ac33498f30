"""A mail's HTML and its files, served so that they can do nothing.

The HTML is shown inside `<iframe sandbox>` and under a policy of its own: no script, no form, no frame, no
request anywhere, except for images once the person asks for them. Files are only ever downloads.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

from django.http import HttpResponse
from django.utils.http import content_disposition_header

from deliveries.errors import ComposeError
from deliveries.models import Attachment, Message
from deliveries.read.archive import fetched
from deliveries.read.contents import body, of

_CID = re.compile(r"cid:([^\"'\s<>)]{1,500})", re.IGNORECASE)
#: media types that a browser draws without running anything; SVG in an <img> runs no script either, but is left out
_DRAWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")

_LOCKED = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; img-src data:"
)


def html(message: Message, with_images: bool) -> HttpResponse:
    """The HTML part as the recipient would see it. Remote images only when asked: they tell the sender of a look."""
    found = body(message)
    if found is not None:
        images = {k.lower(): v for k, v in found.images.items() if v[0].partition(";")[0].strip().lower() in _DRAWN}

        def inline(match: re.Match[str]) -> str:
            image = images.get(unquote(match[1]).lower())
            if image is None:
                return match[0]
            media_type = image[0].partition(";")[0].strip().lower()
            return f"data:{media_type};base64,{base64.b64encode(image[1]).decode()}"

        text = _CID.sub(inline, found.html) if images else found.html
        return framed(text, html=True, with_images=with_images)
    gone = message.redacted_at or fetched(message).content is None
    return framed(gone_words(message) if gone else "This mail has no HTML part.", html=False)


def gone_words(message: Message) -> str:
    """Why there is nothing to show."""
    if message.redacted_at:
        return f"Redacted at {message.redacted_at:%Y-%m-%d %H:%M:%S} UTC, once the mail was finished, as was asked for."
    return fetched(message).why or "The content of this mail is no longer kept."


def framed(text: str, html: bool, with_images: bool = False) -> HttpResponse:
    """`text` under a policy by which it can do nothing, for a sandboxed frame."""
    response = HttpResponse(text, content_type=f"text/{'html' if html else 'plain'}; charset=utf-8")
    response.headers["Content-Security-Policy"] = _LOCKED + (" http: https:" if with_images else "")
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-DNS-Prefetch-Control"] = "off"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


#: octets of a source that a browser is asked to show
MAX_SOURCE = 1024 * 1024


def source(message: Message) -> HttpResponse:
    """The mail as it leaves, but for what each delivery adds (its token, its signature); as text, whatever it holds."""
    content = of(message)
    try:
        octets = content.composed().octets if content else gone_words(message).encode()
    except ComposeError as e:
        octets = f"It cannot be rendered: {e}".encode()
    text = octets[:MAX_SOURCE].decode("utf-8", "replace")
    if len(octets) > MAX_SOURCE:
        text += f"\n… ({len(octets) - MAX_SOURCE} more octets)"
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'; frame-ancestors 'self'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


def download(file: Attachment) -> HttpResponse:
    """The octets, never shown by the browser whatever their type says."""
    response = HttpResponse(bytes(file.content), content_type="application/octet-stream")
    name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", file.filename)[:200] or "attachment"
    response.headers["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response
