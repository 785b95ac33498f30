"""What a template declares that it needs, and whether what a request brings fits.

key              1–50 ASCII letters, digits, _; not a name that contacts have at Resend
type             string, number (Resend's); boolean, list, object (ours, for conditions and loops)
fallback_value   used where the request brings nothing; without it the value is required
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deliveries.errors import Fault

MOST = 50
TYPES = ("string", "number", "boolean", "list", "object")
RESERVED = ("FIRST_NAME", "LAST_NAME", "EMAIL", "UNSUBSCRIBE_URL", "contact", "this")
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")
#: characters of one string
LONGEST = 100_000

_IS: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "number": (int, float), "boolean": (bool,), "list": (list,), "object": (dict,),
}  # fmt: skip
_WORDS = {
    "string": "a string",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "object": "an object",
}


@dataclass(frozen=True, slots=True)
class Variable:
    """One declared variable; `fallback` is None when there is none."""

    key: str
    type: str
    fallback: Any = None

    def fits(self, value: Any) -> bool:
        return isinstance(value, _IS[self.type]) and (self.type == "boolean" or not isinstance(value, bool))


def key_fault(key: str) -> str:
    """Why `key` cannot be declared; empty when it can."""
    if key in RESERVED:
        return f"`{key}` is reserved; choose another key."
    if not KEY.fullmatch(key):
        return "A key has 1 to 50 ASCII letters, digits and _, and begins with no digit."
    return ""


def filled(
    variables: Iterable[Variable], given: Mapping[str, Any], field: str = "template.variables"
) -> tuple[dict[str, Any], list[Fault]]:
    """(the data to render with, what is wrong with `given`); each fault names `field`.KEY."""
    declared = {variable.key: variable for variable in variables}
    data: dict[str, Any] = {}
    faults = []
    for key in given:
        if key not in declared:
            faults.append(Fault(f"{field}.{key[:60]}", "unknown_variable", _unknown(key, declared)))
    for key, variable in declared.items():
        value = given.get(key)
        if value is None:
            if variable.fallback is None:
                message = f"Missing; the template needs {_WORDS[variable.type]} here and has no fallback value."
                faults.append(Fault(f"{field}.{key}", "missing_variable", message))
            data[key] = variable.fallback
        elif not variable.fits(value):
            faults.append(Fault(f"{field}.{key}", "wrong_type", f"Must be {_WORDS[variable.type]}."))
        elif isinstance(value, str) and len(value) > LONGEST:
            faults.append(Fault(f"{field}.{key}", "too_long", f"Is longer than {LONGEST} characters."))
        else:
            data[key] = value
    return data, faults


def _unknown(key: str, declared: Mapping[str, Variable]) -> str:
    near = difflib.get_close_matches(key[:60], declared, n=1)
    if near:
        return f"The template has no such variable; did you mean `{near[0]}`?"
    return f"The template has no such variable; it has {', '.join(declared) or 'none'}."
