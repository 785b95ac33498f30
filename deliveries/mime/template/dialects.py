"""Whose language a template is written in, and its way into minijinja's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

from deliveries.errors import BadTemplate
from deliveries.mime.links import LEAVE, LEAVE_PLACE
from deliveries.mime.template import native, stache
from deliveries.mime.template.blocks import Translated, line_of

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Dialect(StrEnum):
    #: Resend's substitution, with loops and conditions
    NATIVE = "native"
    #: SendGrid's and Mailgun's
    HANDLEBARS = "handlebars"
    #: Postmark's
    MUSTACHIO = "mustachio"


#: names under which a template shows the link that ends the stream: ours, and those of the service that it came from
_LEAVES = {
    Dialect.NATIVE: (LEAVE,),
    Dialect.HANDLEBARS: (LEAVE, "unsubscribe", "unsubscribe_preferences"),
    Dialect.MUSTACHIO: (LEAVE, "pm:unsubscribe", "pm:unsubscribe_url"),
}


def ways_out(dialect: Dialect) -> dict[str, str]:
    """Values for those names: the place in which each recipient's own link will stand."""
    return dict.fromkeys(_LEAVES[dialect], LEAVE_PLACE)


def translate(dialect: Dialect, text: str) -> Translated:
    """BadTemplate, with the line, when `text` cannot be understood."""
    if found := _CONTROL.search(text):
        raise BadTemplate("A control character stands in the template; remove it.", line_of(text, found.start()))
    if dialect is Dialect.NATIVE:
        return native.Native(text).translated()
    return stache.Stache(text, lines_go=dialect is Dialect.HANDLEBARS).translated()


def tags(dialect: Dialect, text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is a block's) of each tag, comments included, in order."""
    for found in (native if dialect is Dialect.NATIVE else stache).tags(text):
        yield found.start, found.end, found.kind == "block"
