"""Templates: text with places for values, loops and conditions → the html, text and subject of one mail.

    compiled = compile_template(html=…, text=…, subject=…)    # once per version; BadTemplate
    compiled.render({"NAME": "Ada"})                          # for each mail; BadTemplate

`dialect` says whose language it is written in; each is translated out of a small set (native, stache), and minijinja
runs all of them. In html every value is escaped unless the template says otherwise; text and subject take them as they
are. A rendering has bounds: steps of the engine, octets of output, time. Data are JSON values (dict, list, str, int,
float, bool, None).

    variables     what a template declares, and what a request brings
    publishing    CSS inlined, a text part made, once per version
"""

from __future__ import annotations

import html as html_escaping
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import minijinja

from deliveries.errors import BadTemplate
from deliveries.mime.template import blocks
from deliveries.mime.template.dialects import Dialect as Dialect
from deliveries.mime.template.dialects import translate, ways_out
from deliveries.states import Redact

#: characters of one part's source
MOST_SOURCE = 512 * 1024
#: octets of one part when rendered
MOST_OUTPUT = 2 * 1024 * 1024
#: characters of values in a subject; no reader shows more
MOST_SUBJECT = 2_000
#: instructions of the engine: some 10,000 rows of a table
FUEL = 200_000
TIME_S = 2.0
#: objects and lists within each other in the data
MOST_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a mail takes from a template; None where the template has no such part."""

    subject: str | None
    html: str | None
    text: str | None
    redact: Redact = Redact.NOTHING  #: what the template says of its mails


class Compiled:
    """Parts of one template, ready to be rendered by any thread. `names` are what they ask their data for.

    The place of the link that ends the stream is there unless the data have a value of that name.
    """

    def __init__(self, dialect: Dialect, parts: Mapping[str, str | None]) -> None:
        names: set[str] = set()
        self._ways_out = ways_out(dialect)
        self._engines: dict[str, minijinja.Environment] = {}
        for part, text in parts.items():
            if text is None:
                continue
            if len(text) > MOST_SOURCE:
                raise BadTemplate(f"The template has {len(text)} characters; {MOST_SOURCE} are allowed.", part=part)
            try:
                translated = translate(dialect, text)
                self._engines[part] = _engine(translated.source, escaping=part == "html")
            except BadTemplate as bad:
                raise BadTemplate(bad.message, bad.line, part) from None
            names |= translated.names
        self.names = frozenset(names - self._ways_out.keys())

    def render(self, data: Mapping[str, Any]) -> Rendered:
        """BadTemplate names the part that could not be rendered with `data`."""
        if _depth(data) > MOST_DEPTH:
            raise BadTemplate(f"The values are nested deeper than {MOST_DEPTH}.")
        found: dict[str, str | None] = {"subject": None, "html": None, "text": None}
        for part, engine in self._engines.items():
            found[part] = _run(part, engine, {**self._ways_out, **data})
        if found["subject"] is not None and ("\n" in found["subject"] or "\r" in found["subject"]):
            # RFC 5322 §2.2.3: what follows a line break could be read as a header of its own
            raise BadTemplate("The subject would have a line break; a value brings it.", part="subject")
        return Rendered(found["subject"], found["html"], found["text"])


def compile_template(
    html: str | None = None, text: str | None = None, subject: str | None = None, dialect: Dialect = Dialect.NATIVE
) -> Compiled:
    """BadTemplate, with part and line, when one of the parts cannot be understood."""
    return Compiled(dialect, {"subject": subject, "html": html, "text": text})


@lru_cache(maxsize=64)
def compiled(html: str | None, text: str | None, subject: str | None, dialect: Dialect) -> Compiled:
    """compile_template, remembered: for templates that come with each request."""
    return compile_template(html, text, subject, dialect)


def _engine(source: str, escaping: bool) -> minijinja.Environment:
    engine = minijinja.Environment(
        globals={**_FUNCTIONS, "html": _html if escaping else _raw, "raw": _raw},
        fuel=FUEL,
        undefined_behavior="chainable",
        keep_trailing_newline=True,
        debug=False,
        pycompat=False,
        auto_escape_callback=lambda name: None,
        block_start_string=blocks.BLOCK,
        block_end_string=blocks.BLOCK_END,
        variable_start_string=blocks.VALUE,
        variable_end_string=blocks.VALUE_END,
        comment_start_string=blocks.COMMENT,
        comment_end_string=blocks.COMMENT_END,
    )
    try:
        engine.add_template("part", source)
    except minijinja.TemplateError as error:
        raise BadTemplate(f"The template is not understood ({_words(error)}).", error.line) from None
    return engine


def _run(part: str, engine: minijinja.Environment, data: Mapping[str, Any]) -> str:
    _budget.octets = MOST_SUBJECT if part == "subject" else MOST_OUTPUT
    _budget.until = time.monotonic() + TIME_S
    try:
        rendered = engine.render_template("part", c=data)
    except BadTemplate as bad:
        raise BadTemplate(bad.message, bad.line, part) from None
    except (ValueError, OverflowError) as error:  # numbers that no text holds
        raise BadTemplate(f"The template cannot be rendered with these values ({error}).", part=part) from None
    except minijinja.TemplateError as error:
        if error.kind == "OutOfFuel":
            raise BadTemplate("Rendering takes too many steps; loop over less.", part=part) from None
        raise BadTemplate(f"The template cannot be rendered ({_words(error)}).", error.line, part) from None
    return rendered


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            if depth > MOST_DEPTH:
                break
            stack.extend((part, depth + 1) for part in (item.values() if isinstance(item, dict) else item))
    return deepest


def _words(error: minijinja.TemplateError) -> str:
    return str(error).partition(" (in ")[0][:200]


# --- what a running template may call ---------------------------------------------------------------------------


class _Budget(threading.local):
    """What the rendering of this thread may still cost."""

    octets = 0
    until = 0.0


_budget = _Budget()


def _spend(octets: int) -> str:
    _budget.octets -= octets
    if _budget.octets < 0:
        raise BadTemplate("Rendered, it is too large; loop over less, or send shorter values.")
    if time.monotonic() > _budget.until:
        raise BadTemplate(f"Rendering takes longer than {TIME_S:g} s.")
    return ""


def _raw(value: Any = None) -> str:
    text = _shown(value)
    _spend(len(text))
    return text


def _html(value: Any = None) -> str:
    text = html_escaping.escape(_shown(value))
    _spend(len(text))
    return text


def _shown(value: Any) -> str:
    """As JavaScript's engines print it: nothing for null, 3 for 3.0, a list with commas."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return ",".join(_shown(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _at(value: Any = None, *steps: Any) -> Any:
    """Keys of dicts and places of lists, and nothing else that Python might find; None where there is nothing."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step if isinstance(step, str) else _shown(step))
        elif isinstance(value, list):
            if step == "length":
                return len(value)
            place = int(step) if isinstance(step, int) or (isinstance(step, str) and step.isdecimal()) else -1
            value = value[place] if 0 <= place < len(value) else None
        elif isinstance(value, str) and step == "length":
            return len(value)
        else:
            return None
    return value


def _entries(value: Any = None, keys_wanted: bool = True) -> list[list[Any]]:
    """[key, value] for each element; of an object its keys stand for themselves where none are wanted."""
    if value is None or value == "" or value is False:
        return []
    if isinstance(value, dict):
        return [[key, item] if keys_wanted else [None, key] for key, item in value.items()]
    if isinstance(value, list):
        return [[place, item] for place, item in enumerate(value)]
    raise BadTemplate("Only a list or an object can be looped over.")


def _section(value: Any = None, around: Any = None) -> list[Any]:
    """The contexts that a section is written for: none, each element, the value itself; for `true` the one around."""
    if not _truthy(value):
        return []
    if isinstance(value, list):
        return value
    return [around if value is True else value]


def _truthy(value: Any = None) -> bool:
    return isinstance(value, dict) or bool(value)


def _compare(left: Any, sign: str, right: Any) -> bool:
    """Numbers are compared as numbers, also where one came as text; what cannot be compared is not so."""
    if sign == "==":
        return bool(left == right)
    if sign == "!=":
        return bool(left != right)
    if isinstance(left, str) != isinstance(right, str):
        left, right = _number(left), _number(right)
    try:
        return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign])
    except TypeError:
        return False


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _within(item: Any, value: Any) -> bool:
    if isinstance(value, str):
        return isinstance(item, str) and item in value
    return isinstance(value, dict | list) and item in value


def _length(value: Any = None) -> int:
    return len(value) if isinstance(value, str | dict | list) else 0


def _round(value: Any = None, places: Any = 0) -> Any:
    if not isinstance(value, int | float):
        return value
    places = min(max(int(places), 0), 12) if isinstance(places, int | float) else 0
    return f"{value:.{places}f}"


def _edge(place: int) -> Callable[..., Any]:
    def edge(value: Any = None) -> Any:
        return value[place] if isinstance(value, str | list) and value else None

    return edge


def _texts(change: Callable[[str], str]) -> Callable[..., str]:
    return lambda value=None: change(_shown(value))


def _default(value: Any = None, other: Any = "") -> Any:
    return other if value in (None, "") else value


def _join(value: Any = None, by: Any = ", ") -> str:
    if not isinstance(value, list):
        return _shown(value)
    texts, between = [_shown(item) for item in value], _shown(by)
    if sum(map(len, texts)) + len(between) * len(texts) > MOST_OUTPUT:
        raise BadTemplate("Joined, the list is too large; join less.")  # also where it is only compared
    return between.join(texts)


def _truncate(value: Any, length: Any) -> str:
    text, most = _shown(value), max(int(length), 1) if isinstance(length, int | float) else 100
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "at": _at, "entries": _entries, "section": _section, "truthy": _truthy, "compare": _compare, "within": _within,
    "spend": _spend,
    "f_capitalize": _texts(str.capitalize), "f_default": _default,
    "f_first": _edge(0), "f_last": _edge(-1), "f_length": _length, "f_lower": _texts(str.lower), "f_round": _round,
    "f_join": _join,
    "f_title": _texts(str.title), "f_trim": _texts(str.strip), "f_truncate": _truncate, "f_upper": _texts(str.upper),
    "f_urlencode": _texts(lambda text: quote(text, safe="")),
}  # fmt: skip
