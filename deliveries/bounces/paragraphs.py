"""What a letter says of each address that it names: the paragraph that begins with it, or follows a list of them."""

from __future__ import annotations

import re
from bisect import bisect_right

from deliveries.bounces.finding import ADDRESS, enhanced_codes, reply_codes

#: lines of one address that are looked at for what is said of it: a list, and a transcript of a few tries
MAX_SPOTS = 6


def said_at(lines: list[str], ats: list[int], others: list[int]) -> str:
    """What is said at the first of an address's lines that brings a code, else at the first.

    `ats`: the lines that name it, at least one; `others`: those that name others, ascending.
    """
    texts = [_paragraph(lines, at, others) for at in ats]
    return next(filter(coded, texts), texts[0])


_NEXT_ERROR = re.compile(r"\s{0,4}([45]\d\d[ ]|>>>|<<<|while talking|\.\.\. while)", re.I)
_RULE = re.compile(r"\s{0,8}[-=_*#|]{3}")
#: what is left of a line of a list: marks, or a label
_BARE = re.compile(r"[\W_]{0,40}|[^:]{0,40}:[\W_]{0,40}")


def _paragraph(lines: list[str], at: int, others: list[int]) -> str:
    """The text from line `at` up to the next address, a rule, or an empty line once it has brought a code.

    What follows a list is said of all of it. One line of a sendmail transcript ends at the next.
    """
    last = at
    for other in others[bisect_right(others, at) :]:
        if other != last + 1 or not _BARE.fullmatch(ADDRESS.sub("", lines[last][:2_000])):
            break
        last = other
    end = min(next(iter(others[bisect_right(others, last) :]), len(lines)), _error_end(lines, at))
    stop = stop_of(lines, last, end)
    kept = lines[at:stop] if last == at else [lines[at], *lines[last:stop]]
    return " ".join(" ".join(kept).split())


def stop_of(lines: list[str], at: int, end: int) -> int:
    """Where the paragraph from line `at` stops before `end`: at a rule, or an empty line once it has brought a code."""
    brought = coded(lines[at])
    for i in range(at + 1, end):
        if _RULE.match(lines[i]) or (brought and not lines[i].strip()):
            return i
        brought = brought or coded(lines[i])
    return end


def rest(lines: list[str], at: int) -> str:
    """All that follows from line `at`: alone, an address is what it is about."""
    return " ".join(" ".join(lines[at : _error_end(lines, at)]).split())


def _error_end(lines: list[str], at: int) -> int:
    """Where the next error of a sendmail transcript begins; the end, where line `at` is none."""
    if not re.match(r"\s{0,4}[45]\d\d ", lines[at]):
        return len(lines)
    return next((i for i in range(at + 1, len(lines)) if _NEXT_ERROR.match(lines[i])), len(lines))


def coded(text: str) -> bool:
    """Whether a text brings a reply code of a refusal or an enhanced code."""
    return bool(enhanced_codes(text)) or any(code >= 400 for code in reply_codes(text))
