"""Expressions of our own template language → minijinja, out of a small set that cannot be made to cost much.

    NAME   order.total   items[0].name   "text"   12.5   true
    a == b   a != b   a < b   a in b   not a   a and b   a or b   (a)
    NAME|default("there")|upper

minijinja itself can do more (`~`, `*`, set, macros, its filters); with it forty lines double a string to a terabyte,
so what is not named here is refused. Every look-up goes through `at`, which knows dicts and lists and no attributes
of Python's.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable

from deliveries.errors import BadTemplate

#: filters and how many arguments each may take
FILTERS = {
    "capitalize": (0, 0), "default": (1, 1), "first": (0, 0), "join": (0, 1), "last": (0, 0), "length": (0, 0),
    "lower": (0, 0), "round": (0, 1), "safe": (0, 0), "title": (0, 0), "trim": (0, 0), "truncate": (1, 1),
    "upper": (0, 0), "urlencode": (0, 0),
}  # fmt: skip
LOOP = ("index", "index0", "first", "last", "length")
_WORDS = ("and", "or", "not", "in", "is")
_CONSTANTS = {"true": "true", "false": "false", "none": "none", "null": "none"}
#: brackets within brackets of one expression
_DEEPEST = 20
_LONGEST = 1000

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>\d+(?:\.\d+)?)"""
    r"""|(?P<string>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')|(?P<sign>==|!=|<=|>=|[<>()\[\].,|-]))""",
    re.DOTALL,
)

Lookup = Callable[[str], str]


def literal(text: str) -> str:
    """A string as minijinja reads it."""
    return json.dumps(text, ensure_ascii=False)


class Expression:
    """One expression, read left to right. `lookup` turns the first name of a path into minijinja's for it."""

    def __init__(self, text: str, lookup: Lookup, in_loop: bool) -> None:
        self.lookup, self.in_loop, self.safe = lookup, in_loop, False
        self._tokens, self._at, self._depth = _tokens(text), 0, 0

    def read(self) -> str:
        source = self._or()
        if self._at < len(self._tokens):
            raise BadTemplate(f"`{self._tokens[self._at][1]}` is not understood here.")
        return source

    def names(self) -> list[str]:
        """`a` or `a, b` before `in` of a loop; the expression follows."""
        found = [self._name()]
        while self._took(","):
            found.append(self._name())
        if not self._took("in"):
            raise BadTemplate("A loop is written `for item in items`.")
        return found

    def _or(self) -> str:
        parts = [self._and()]
        while self._took("or"):
            parts.append(self._and())
        return f"({' or '.join(parts)})" if parts[1:] else parts[0]

    def _and(self) -> str:
        parts = [self._not()]
        while self._took("and"):
            parts.append(self._not())
        return f"({' and '.join(parts)})" if parts[1:] else parts[0]

    def _not(self) -> str:
        return f"(not {self._deeper(self._not)})" if self._took("not") else self._compared()

    def _compared(self) -> str:
        left = self._filtered()
        for sign in ("==", "!=", "<=", ">=", "<", ">"):
            if self._took(sign):
                return f"compare({left}, {literal(sign)}, {self._filtered()})"
        if self._took("in"):
            return f"within({left}, {self._filtered()})"
        if self._peek() == "not":
            self._at += 1
            if not self._took("in"):
                raise BadTemplate("`not` is followed by `in` here.")
            return f"(not within({left}, {self._filtered()}))"
        if self._took("is"):
            wanted = not self._took("not")
            if self._name() != "defined":
                raise BadTemplate("`is` knows only `is defined` and `is not defined`.")
            return f"({left} is {'not ' if wanted else ''}none)"
        return left

    def _filtered(self) -> str:
        value = self._primary()
        while self._took("|"):
            name = self._name()
            if name not in FILTERS:
                near = difflib.get_close_matches(name, FILTERS, n=1) or [", ".join(FILTERS)]
                raise BadTemplate(f"There is no filter `{name}`; known is {near[0]}.")
            arguments = self._arguments()
            least, most = FILTERS[name]
            if not least <= len(arguments) <= most:
                raise BadTemplate(
                    f"The filter `{name}` takes {least if least == most else f'{least} or {most}'} values."
                )
            if name == "safe":
                self.safe = True
            else:
                value = f"f_{name}({', '.join([value, *arguments])})"
        return value

    def _arguments(self) -> list[str]:
        found: list[str] = []
        if self._took("("):
            while not self._took(")"):
                if found and not self._took(","):
                    raise BadTemplate("A `)` is missing.")
                found.append(self._deeper(self._or))
        return found

    def _primary(self) -> str:
        kind, text = self._next()
        if text == "(":
            inner = self._deeper(self._or)
            if not self._took(")"):
                raise BadTemplate("A `)` is missing.")
            return f"({inner})"
        if text == "-" and self._kind() == "number":
            return "-" + self._next()[1]
        if kind == "number":
            return text
        if kind == "string":
            return literal(_unquoted(text))
        if kind == "name" and text not in _WORDS:
            return _CONSTANTS[text] if text in _CONSTANTS else self._path(text)
        raise BadTemplate(f"`{text}` is not understood here.")

    def _path(self, first: str) -> str:
        steps = []
        while (sign := self._peek()) in (".", "["):
            self._at += 1
            if sign == ".":
                kind, text = self._next()
                if kind not in ("name", "number"):
                    raise BadTemplate("A name follows a dot.")
                steps.append(literal(text))
            else:
                steps.append(self._deeper(self._or))
                if not self._took("]"):
                    raise BadTemplate("A `]` is missing.")
        if first == "loop" and self.in_loop:
            attribute = json.loads(steps[0]) if len(steps) == 1 and steps[0].startswith('"') else ""
            if attribute not in LOOP:
                raise BadTemplate(f"Of a loop there is {', '.join(LOOP)}.")
            return f"loop.{attribute}"
        root = self.lookup(first)
        return f"at({', '.join([root, *steps])})" if steps else root

    def _deeper(self, read: Callable[[], str]) -> str:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BadTemplate("The expression is nested too deeply.")
        source = read()
        self._depth -= 1
        return source

    # --- tokens -------------------------------------------------------------------------------------------------

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise BadTemplate("The expression ends too early.")
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        return "" if kind == "string" else text

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _took(self, text: str) -> bool:
        if self._peek() != text:
            return False
        self._at += 1
        return True

    def _name(self) -> str:
        kind, text = self._next()
        if kind != "name":
            raise BadTemplate(f"A name is expected instead of `{text}`.")
        return text


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > _LONGEST:
        raise BadTemplate(f"The expression is longer than {_LONGEST} characters.")
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadTemplate(f"`{text[at:].strip()[:20]}` is not understood.")
        found.append((match.lastgroup or "", match[match.lastgroup or 0]))
        at = match.end()
    if not found:
        raise BadTemplate("There is nothing between the braces.")
    return found


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text[1:-1], flags=re.DOTALL)
