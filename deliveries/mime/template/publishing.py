"""What is done to a template once, when it is published: its CSS goes into the elements, and a text part is made.

Mail readers drop style sheets (RFC-less; Gmail of forwarded mail, Outlook), so rules are written into `style`
attributes; media queries and what no attribute can say stay. Nothing is fetched: linked sheets are left out.

An HTML parser moves text out of tables, and `{% for %}` is text to it. Tags therefore wait as comments, which may stand
anywhere, or as words within attributes and style sheets, and come back afterwards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import css_inline
from inscriptis import Inscriptis
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig
from lxml.etree import ParserError
from lxml.html import HtmlElement, document_fromstring

from deliveries.errors import BadTemplate
from deliveries.mime.template.dialects import Dialect, tags

_INLINER = css_inline.CSSInliner(load_remote_stylesheets=False, keep_style_tags=True, remove_inlined_selectors=True)
#: without the indentation of each `div` that the other profile has: layouts nest dozens
_TEXT = ParserConfig(css=CSS_PROFILES["strict"], display_links=True)
#: rules × elements of a sheet that is inlined: each is tried on each
_MOST_MATCHES = 2_000_000
#: lists within each other are indented; deeper ones no more, or every line would be as long as the nesting
_MOST_INDENTED = 8
#: laid out as lines and words: columns as wide as their widest cell took gigabytes for a table of two cells
_AS_LINES = frozenset({"table", "thead", "tbody", "tfoot", "tr", "caption"})
_AS_WORDS = frozenset({"td", "th"})
_LISTS = frozenset({"ul", "ol"})
#: lxml refuses a text that names an encoding
_XML = re.compile(r"\A\s*<\?xml\b[^>]*>", re.IGNORECASE)
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_ATTRIBUTES = r"(?:\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z)|[^>\"'])*(?:>|\Z)"
#: where a comment would be text: tags with their attributes, comments, elements that hold text only. What is never
#: closed goes on to the end, as it does for a browser, and is so read once
_NO_COMMENT = re.compile(
    rf"<!--(?:.*?-->|.*\Z)|<(style|title|textarea|script)\b{_ATTRIBUTES}(?:.*?</\1\s*>|.*\Z)|<[A-Za-z/!?]{_ATTRIBUTES}",
    re.DOTALL | re.IGNORECASE,
)
_ROWS = re.compile(r"</?(?:tr|td|th|tbody|thead)\b", re.IGNORECASE)
_BLANKS = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Publication:
    """`text_at_render`: no text part could be made of the template; it is made of each mail's html."""

    html: str | None
    text: str | None
    text_at_render: bool = False


def publication(html: str | None, text: str | None, dialect: Dialect = Dialect.NATIVE) -> Publication:
    """`html` with its CSS inlined, and `text`: as given, made of the html when None, left out when empty.

    BadTemplate when a block would get lost among the CSS. Both parts are valid templates of `dialect`.
    """
    if html is None:
        return Publication(None, text)
    slots = _Slots(html, dialect)
    if "<style" in html.lower():
        if slots.words.count("{") * slots.words.count("<") > _MOST_MATCHES:
            raise BadTemplate("There are too many rules for so many elements; send a shorter style sheet.", part="html")
        inlined = _INLINER.inline(slots.commented())
        if "<tbody" not in html.lower():
            # the parser puts the rows into one that opens within a loop and ends outside of it
            inlined = re.sub(r"</?tbody>", "", inlined)
        html = slots.restored(inlined, checked=True)
    if text is not None:
        return Publication(html, text or None)
    made = _tidy(_as_text(slots.words), slots)
    if slots.around_rows() or slots.blocks_of(made) != slots.blocks:
        return Publication(html, None, text_at_render=True)
    return Publication(html, slots.restored(made) or None)


def text_of(html: str) -> str | None:
    """A text part for a finished html part; None where it would be empty."""
    return _BLANKS.sub("\n\n", _as_text(html)).strip() or None


def _as_text(html: str) -> str:
    """What an HTML reader would read out, in the order of the source; in time and space that grow with its length."""
    html = _XML.sub("", html)
    try:
        tree: HtmlElement = document_fromstring(html)
    except ParserError:  # nothing but comments and white space
        return ""
    depth: dict[HtmlElement, int] = {}
    for element in tree.iter("*"):
        parent = element.getparent()
        depth[element] = depth.get(parent, 0) + (element.tag in _LISTS)
        if _HIDDEN.search(element.get("style") or ""):
            element.set("style", "display:none")
        else:
            element.attrib.pop("style", None)  # margins of a million lines
        if element.tag in _AS_LINES or (element.tag in _LISTS and depth[element] > _MOST_INDENTED):
            element.tag = "div"
        elif element.tag in _AS_WORDS:
            element.tag = "span"
            element.tail = f" {element.tail or ''}"
    return str(Inscriptis(tree, _TEXT).get_text())


def _tidy(text: str, slots: _Slots) -> str:
    """Without the lines that hold nothing but blocks: a list would have a gap at each element."""
    lines = re.sub(rf"^[ \t]*((?:{slots.prefix}b\d+x[ \t]*)+)\n", r"\1", text, flags=re.MULTILINE)
    return _BLANKS.sub("\n\n", lines).strip()


class _Slots:
    """A template whose tags became words: `words` is its html, `blocks` those of blocks in order."""

    def __init__(self, html: str, dialect: Dialect) -> None:
        self.prefix = "slot"
        while self.prefix in html:
            self.prefix += "q"
        self.tags: list[str] = []
        self.blocks: list[str] = []
        pieces, end = [], 0
        for start, stop, block in tags(dialect, html):
            word = f"{self.prefix}{'b' if block else 'v'}{len(self.tags)}x"
            if block:
                self.blocks.append(word)
            self.tags.append(html[start:stop])
            pieces += [html[end:start], word]
            end = stop
        self.words = "".join([*pieces, html[end:]])
        self._word = re.compile(rf"(?:<!--)?{self.prefix}[bv](\d+)x(?:-->)?")

    def commented(self) -> str:
        pieces, end = [], 0
        word = re.compile(rf"{self.prefix}[bv]\d+x")
        for found in _NO_COMMENT.finditer(self.words):
            pieces += [word.sub(r"<!--\g<0>-->", self.words[end : found.start()]), found[0]]
            end = found.end()
        return "".join([*pieces, word.sub(r"<!--\g<0>-->", self.words[end:])])

    def blocks_of(self, text: str) -> list[str]:
        return re.findall(rf"{self.prefix}b\d+x", text)

    def around_rows(self) -> bool:
        """Whether a block holds rows or cells; words between those would stand before the table in the text."""
        depth, end = 0, 0
        for found in re.finditer(rf"{self.prefix}b(\d+)x", self.words):
            if depth and _ROWS.search(self.words, end, found.start()):
                return True
            depth += _turn(self.tags[int(found[1])])
            end = found.end()
        return False

    def restored(self, text: str, checked: bool = False) -> str:
        if checked and self.blocks_of(text) != self.blocks:
            raise BadTemplate(
                "A block stands among the CSS or between elements where it gets lost; move it.", part="html"
            )
        return self._word.sub(lambda found: self.tags[int(found[1])], text)


def _turn(tag: str) -> int:
    """+1 where a block opens, -1 where it ends, 0 at its branches."""
    inner = tag.strip("{}%~- \n\t")
    if tag.startswith("{%"):
        return {"if": 1, "for": 1, "endif": -1, "endfor": -1}.get(inner.split(None, 1)[0] if inner else "", 0)
    return {"#": 1, "^": 1, "/": -1}.get(inner[:1], 0) if inner != "^" else 0
