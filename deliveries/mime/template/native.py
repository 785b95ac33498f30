"""The language of our own: Resend's `{{{KEY}}}`, and `{{ KEY }}`, `{% if %}`, `{% for %}`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deliveries.errors import BadTemplate
from deliveries.mime.template.blocks import Writer
from deliveries.mime.template.expressions import Expression, literal
from deliveries.mime.template.scanning import Ends, Tag, scan

_OPENS = re.compile(r"\{[{%#]")


def tags(text: str) -> Iterator[Tag]:
    return scan(text, _OPENS, _tag)


def _tag(text: str, ends: Ends, at: int) -> Tag | None:
    if text.startswith("{{{", at) and (end := ends.find("}}}", at + 3)) >= 0:
        return Tag(at, end + 3, "value", text[at + 3 : end])
    sign = text[at + 1]
    if (end := ends.find({"{": "}}", "%": "%}", "#": "#}"}[sign], at + 2)) < 0:
        return None
    inner = text[at + 2 : end]
    if sign == "%":
        return Tag(at, end + 2, "block", inner.removeprefix("-").removesuffix("-"))
    return Tag(at, end + 2, "value" if sign == "{" else "comment", inner)


class Native(Writer):
    signs = ("{{", "{%")

    def read(self) -> None:
        end = 0
        for found in tags(self.text):
            self.at = found.start
            self.between(self.text[end : self.at])
            end = found.end
            if found.kind == "block":
                self._statement(found.inner.strip())
            elif found.kind == "value":
                expression = Expression(found.inner, self._lookup, self.in_loop())
                source = expression.read()
                self.value(source, expression.safe)
        self.at = len(self.text)
        self.between(self.text[end:])

    def _lookup(self, name: str) -> str:
        for block in reversed(self.open):
            if name in block.params:
                return block.params[name]
        self.names.add(name)
        return f"at(c, {literal(name)})"

    def _statement(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        innermost = self.open[-1] if self.open else None
        if word == "if":
            self.enter(f"if truthy({self._read(rest)})", "if", "endif")
        elif word == "elif" and innermost and innermost.word == "if" and not innermost.seen_else:
            self.branch(f"truthy({self._read(rest)})")
        elif word == "else" and not rest and innermost and not innermost.seen_else:
            innermost.seen_else = True
            self.block("else")
        elif word == "for":
            self._loop(rest)
        elif word in ("endif", "endfor") and not rest and innermost and f"end{innermost.word}" == word:
            self.leave()
        elif word in ("elif", "else", "endif", "endfor"):
            raise BadTemplate(f"`{word}` has nothing to belong to.")
        else:
            raise BadTemplate(f"There is no `{word}`; known are if, elif, else, endif, for and endfor.")

    def _read(self, text: str) -> str:
        return Expression(text, self._lookup, self.in_loop()).read()

    def _loop(self, text: str) -> None:
        expression = Expression(text, self._lookup, self.in_loop())
        names = expression.names()
        source = expression.read()
        if len(names) > 2:
            raise BadTemplate("A loop has one name, or two for the keys and values of an object.")
        first, second = self.fresh(), self.fresh()
        # one name: the elements, of an object its keys
        params = {names[0]: first, names[1]: second} if len(names) == 2 else {names[0]: second}
        over = f"entries({source}, {'true' if len(names) == 2 else 'false'})"
        self.enter(f"for {first}, {second} in {over}", "for", "endfor", loop=True, params=params)
