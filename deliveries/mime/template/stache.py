"""Handlebars (SendGrid, Mailgun) and Mustachio (Postmark): one grammar, in which a block decides what a path means.

    {{a.b}} {{{a}}} {{&a}} {{../a}} {{this}} {{@index}} {{@root.a}}    values
    #if #unless #each #with else `else if`                             Handlebars' blocks
    #equals #notEquals #greaterThan #lessThan #and #or, insert, length SendGrid's helpers
    {{#a}}…{{/a}} {{^a}}…{{/a}}                                        Mustachio's: into `a`, and its contrary

Left out: partials, formatDate, helpers of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from deliveries.errors import BadTemplate
from deliveries.mime.template.blocks import Writer
from deliveries.mime.template.expressions import literal
from deliveries.mime.template.scanning import Ends, Tag, scan

_OPENS = re.compile(r"\\?\{\{")
_PART = re.compile(
    r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[()]|\|[^|]*\||(?:\[[^\]]*\]|[^\s()"'|\[])+)""", re.DOTALL
)
_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]/]+)|[./]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
#: helper → (values that it takes, minijinja's source for it)
_HELPERS: dict[str, tuple[int, Callable[..., str]]] = {
    "equals": (2, lambda a, b: f"compare({a}, '==', {b})"),
    "notEquals": (2, lambda a, b: f"compare({a}, '!=', {b})"),
    "greaterThan": (2, lambda a, b: f"compare({a}, '>', {b})"),
    "lessThan": (2, lambda a, b: f"compare({a}, '<', {b})"),
    "and": (2, lambda a, b: f"(truthy({a}) and truthy({b}))"),
    "or": (2, lambda a, b: f"(truthy({a}) or truthy({b}))"),
    "not": (1, lambda a: f"(not truthy({a}))"),
    "lookup": (2, lambda a, b: f"at({a}, {b})"),
    "length": (1, lambda a: f"f_length({a})"),
}
_CONDITIONS = ("equals", "notEquals", "greaterThan", "lessThan", "and", "or")
_REST_OF_LINE = re.compile(r"[ \t]*(?:\r?\n|\Z)")
#: words of one tag
_MOST_PARTS = 100


def tags(text: str) -> Iterator[Tag]:
    return scan(text, _OPENS, _tag)


def _tag(text: str, ends: Ends, at: int) -> Tag | None:
    if text[at] == "\\":
        end = ends.find("}}", at + 3)
        return Tag(at, end + 2, "escaped", text[at + 1 : end + 2]) if end >= 0 else None
    left = text.startswith("~", at + 2)
    inside = at + 2 + left
    if text.startswith("!--", inside):
        end, sign = ends.first(("--}}", "--~}}"), inside + 3)
        if end >= 0:
            return Tag(at, end + len(sign), "comment")
    if text.startswith("!", inside) and (end := ends.find("}}", inside + 1)) >= 0:
        return Tag(at, end + 2, "comment")
    if text.startswith("{", inside):
        end, sign = ends.first(("}}}", "}~}}"), inside + 1)
        if end >= 0:
            return Tag(at, end + len(sign), "raw", text[inside + 1 : end], left, sign == "}~}}")
    if (end := ends.find("}}", inside)) < 0:
        return None
    inner = text[inside:end]
    return Tag(at, end + 2, _kind(inner), inner.removesuffix("~"), left, inner.endswith("~"))


def _kind(inner: str) -> str:
    tag = inner.strip("~ \t\r\n")
    return "block" if tag[:1] in ("#", "/", "^") or tag == "else" or tag.startswith("else ") else "value"


class Stache(Writer):
    def __init__(self, text: str, lines_go: bool) -> None:
        super().__init__(text)
        #: whether a line that holds only a block's tag goes with it
        self.lines_go = lines_go
        self.frames = ["c"]

    def read(self) -> None:
        end, trim = 0, False
        for found in tags(self.text):
            self.at = found.start
            begins, before = end, self.text[end : self.at]
            end = found.end
            if trim:
                before = before.lstrip()
            if found.left:
                before = before.rstrip()
            trim = found.right
            alone, tail = self._stands_alone(found, begins)
            if alone:
                before = before[: max(len(before) - tail, 0)]
                if after := _REST_OF_LINE.match(self.text, end):
                    end = after.end()
            self.between(before)
            if found.kind == "escaped":
                self.plain(found.inner)
            elif found.kind == "raw":
                self.value(self._expression(found.inner), safe=True)
            elif found.kind != "comment":
                self._tag(found.inner.strip())
        self.at = len(self.text)
        self.between(self.text[end:].lstrip() if trim else self.text[end:])

    def _stands_alone(self, found: Tag, begins: int) -> tuple[bool, int]:
        """Whether nothing else stands on its line, which is looked at from `begins`, the end of the tag before; and how
        much white space is before it."""
        if not self.lines_go or found.kind not in ("block", "comment"):
            return False, 0
        line = self.text.rfind("\n", begins, found.start) + 1
        if not line:
            if begins and self.text[begins - 1] != "\n":
                return False, 0  # the tag before stands on the same line
            line = begins
        blank = not self.text[line : found.start].strip(" \t")
        return blank and _REST_OF_LINE.match(self.text, found.end) is not None, found.start - line

    def _tag(self, tag: str) -> None:
        if not tag:
            raise BadTemplate("There is nothing between the braces.")
        if tag[0] == ">":
            raise BadTemplate("Partials (`{{> …}}`) are not available; put their text into the template.")
        if tag[0] == "&":
            self.value(self._expression(tag[1:]), safe=True)
        elif tag[0] == "#":
            self._opened(tag[1:].strip())
        elif tag[0] == "/":
            self._closed(tag[1:].strip())
        elif tag[0] == "^" and tag[1:].strip():
            self.enter(f"if not truthy({self._expression(tag[1:])})", tag[1:].strip(), "endif")
        elif tag == "^" or tag == "else" or tag.startswith("else "):
            self._otherwise(tag.removeprefix("else").removeprefix("^").strip())
        else:
            self.value(self._expression(tag))

    def _opened(self, text: str) -> None:
        parts = _parts(text)
        word, params = parts[0], [p for p in parts[1:] if p.startswith("|")]
        rest = [p for p in parts[1:] if not p.startswith("|") and (p != "as" or not params)]
        names = params[0].strip("|").split() if params else []
        if word in ("if", "unless"):
            if not rest:
                raise BadTemplate(f"`#{word}` needs a value.")
            self.enter(f"if {'not ' if word == 'unless' else ''}truthy({self._whole(rest)})", word, "endif")
        elif word in _CONDITIONS:
            self.enter(f"if {self._whole([word, *rest])}", word, "endif")
        elif word == "each":
            self._each(self._whole(rest) if rest else self.frames[-1], names)
        elif word == "with":
            inner, given = self.fresh(), self._whole(rest)
            params_of = {names[0]: inner} if names else {}
            self.enter(f"for {inner} in section({given}, none)", "with", "endfor", loop=True, params=params_of)
            self._into(inner)
        elif not rest:
            inner = self.fresh()
            self.enter(f"for {inner} in section({self._path(word)}, {self.frames[-1]})", word, "endfor", loop=True)
            self._into(inner)
        else:
            raise BadTemplate(
                f"There is no block `#{word}`; known are if, unless, each, with, {', '.join(_CONDITIONS)}."
            )

    def _each(self, source: str, names: list[str]) -> None:
        key, inner = self.fresh(), self.fresh()
        params = dict(zip(names, (inner, key), strict=False)) | {"@key": key}
        self.enter(f"for {key}, {inner} in entries({source}, true)", "each", "endfor", loop=True, params=params)
        self._into(inner)

    def _into(self, frame: str) -> None:
        self.open[-1].frame = frame
        self.frames.append(frame)

    def _otherwise(self, condition: str) -> None:
        block = self.open[-1] if self.open else None
        if block is None or block.seen_else:
            raise BadTemplate("`else` has nothing to belong to.")
        if condition:
            parts = _parts(condition)
            if block.close != "endif" or parts[0] not in ("if", *_CONDITIONS):
                raise BadTemplate(f"`else {parts[0]}` is not understood here.")
            given = self._whole(parts[1:] if parts[0] == "if" else parts)
            self.branch(f"truthy({given})")
            return
        block.seen_else = True
        if block.frame is not None:
            self.frames.pop()
            block.frame = None
        self.block("else")

    def _closed(self, word: str) -> None:
        if not self.open or self.open[-1].word != word:
            wanted = f"; `{self.open[-1].word}` is open" if self.open else ""
            raise BadTemplate(f"`/{word}` closes nothing{wanted}.")
        if self.leave().frame is not None:
            self.frames.pop()

    def _expression(self, text: str) -> str:
        return self._whole(_parts(text))

    def _whole(self, parts: list[str]) -> str:
        """A value, or a helper and its values."""
        if not parts:
            raise BadTemplate("A value is missing.")
        values, at = [], 0
        head = parts[0]
        if head == "insert" and len(parts) == 3:
            default = _unquoted(parts[2]).removeprefix("default=")
            return f"f_default({self._one(parts[1])}, {literal(default)})"
        helper = _HELPERS.get(head) if len(parts) > 1 else None
        if helper is None and len(parts) > 1 and head != "(":
            raise BadTemplate(f"There is no helper `{head}`; known are insert, {', '.join(_HELPERS)}.")
        at = 1 if helper else 0
        while at < len(parts):
            if parts[at] == "(":
                depth, start = 1, at + 1
                while depth and at + 1 < len(parts):
                    at += 1
                    depth += {"(": 1, ")": -1}.get(parts[at], 0)
                if depth:
                    raise BadTemplate("A `)` is missing.")
                values.append(self._whole(parts[start:at]))
            else:
                values.append(self._one(parts[at]))
            at += 1
        if helper is None:
            if len(values) != 1:
                raise BadTemplate("One value is expected.")
            return values[0]
        if len(values) != helper[0]:
            raise BadTemplate(f"`{head}` takes {helper[0]} values.")
        return helper[1](*values)

    def _one(self, part: str) -> str:
        if part[0] in "\"'":
            return literal(_unquoted(part))
        if _NUMBER.fullmatch(part):
            return part
        if part in ("true", "false"):
            return part
        if part in ("null", "undefined"):
            return "none"
        if part in ("(", ")") or part.startswith("|") or "=" in part:
            raise BadTemplate(f"`{part}` is not understood here.")
        return self._path(part)

    def _path(self, text: str) -> str:
        if text[0] == "@":
            return self._special(text)
        up, rest = 0, text
        while rest == ".." or rest.startswith("../"):
            up, rest = up + 1, rest[3:]
        if up >= len(self.frames):
            raise BadTemplate(f"`{text}` leads above the data.")
        frame = self.frames[-1 - up]
        rest = rest.removeprefix("./")
        if rest in ("", ".", "this"):
            return frame
        steps = [m[1] if m[1] is not None else m[2] for m in _STEP.finditer(rest) if m[1] is not None or m[2]]
        if not steps:
            raise BadTemplate(f"`{text}` is not understood.")
        if steps[0] == "this":
            steps = steps[1:]
        elif not up:
            for block in reversed(self.open):
                if steps[0] in block.params:
                    frame, steps = block.params[steps[0]], steps[1:]
                    break
        if frame == "c" and steps:
            self.names.add(steps[0])
        return f"at({', '.join([frame, *map(literal, steps)])})" if steps else frame

    def _special(self, text: str) -> str:
        if text == "@root":
            return "c"
        if text.startswith("@root."):
            frames, self.frames = self.frames, ["c"]
            try:
                return self._path(f"this.{text[6:]}")
            finally:
                self.frames = frames
        loops = [block for block in self.open if "@key" in block.params]
        if loops and text == "@key":
            return loops[-1].params["@key"]
        # minijinja's loop is the innermost, and a #with is one too
        if loops and loops[-1] is [b for b in self.open if b.place is not None][-1] and text in _LOOP:
            return _LOOP[text]
        raise BadTemplate(
            f"`{text}` is not understood here; directly within #each there are @index, @key, @first, @last."
        )


_LOOP = {"@index": "loop.index0", "@first": "loop.first", "@last": "loop.last"}


def _parts(text: str) -> list[str]:
    found, at, text = [], 0, text.strip()
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise BadTemplate(f"`{text[at:][:20]}` is not understood.")
        found.append(match[1])
        at = match.end()
    if not found:
        raise BadTemplate("There is nothing between the braces.")
    if len(found) > _MOST_PARTS:
        raise BadTemplate("The tag is too long.")
    return found


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if text[:1] in ("'", '"') else text
