"""Shapes of requests: what all of them share, and how pydantic's findings become Faults with a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from deliveries.errors import BadInput, Fault
from mailapi.schemas.body import Body, field_name

#: faults that one answer names; nobody reads more
MOST_FAULTS = 100

#: pydantic's error types → (code, message)
_WORDS: dict[str, tuple[str, str]] = {
    "missing": ("missing_required_field", "Missing `{name}` field; it is required."),
    "string_type": ("wrong_type", "Must be a string."),
    "string_too_long": ("too_long", "Is longer than {max_length} characters."),
    "string_too_short": ("too_short", "Must not be empty."),
    "bool_type": ("wrong_type", "Must be true or false."),
    "list_type": ("wrong_type", "Must be a list."),
    "tuple_type": ("wrong_type", "Must be a list."),
    "dict_type": ("wrong_type", "Must be an object."),
    "model_type": ("wrong_type", "Must be an object."),
    "model_attributes_type": ("wrong_type", "Must be an object."),
    "literal_error": ("invalid_choice", "Must be {expected}."),
    "too_long": ("too_many", "Has {actual_length} elements; {max_length} are allowed."),
}


class Shape(BaseModel):
    """Part of a request: unknown fields are refused by name, a null counts as absent unless it resets the field."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    #: fields that other services know and this one does not (yet), each with what to do instead
    not_here: ClassVar[Mapping[str, str]] = {}
    #: fields of a change, as they are written, whose null means: as if it had never been set
    resets: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None or name in cls.resets}
        return data


S = TypeVar("S", bound=Shape)


def fault(code: str, message: str) -> PydanticCustomError:
    """To be raised by a validator; `message` may hold anything, braces too."""
    return PydanticCustomError(code, "{message}", {"message": message})


def faults_of(error: ValidationError, shape: type[Shape], index: int | None = None) -> list[Fault]:
    found = error.errors(include_url=False, include_input=False)
    faults = [_fault(details, shape, index) for details in found[:MOST_FAULTS]]
    if len(found) > MOST_FAULTS:
        faults.append(Fault("", "too_many_faults", f"And {len(found) - MOST_FAULTS} more faults.", index))
    return faults


def _fault(details: ErrorDetails, shape: type[Shape], index: int | None) -> Fault:
    kind, path = details["type"], details["loc"]
    name = field_name(path)
    if kind == "extra_forbidden":
        return Fault(name, *_unknown(str(path[-1]), _shape_at(shape, path[:-1])), index)
    if kind in _WORDS and "message" not in details.get("ctx", {}):  # a fault() may bear the same word
        code, words = _WORDS[kind]
        return Fault(name, code, words.format(**{**details.get("ctx", {}), "name": path[-1] if path else ""}), index)
    return Fault(name, kind, details["msg"], index)


def _unknown(name: str, shape: type[Shape]) -> tuple[str, str]:
    if name in shape.not_here:
        return "not_available", shape.not_here[name]
    known = sorted(field.alias or key for key, field in shape.model_fields.items())
    if not known:
        return "unknown_field", "No fields are known here; send an empty object or nothing."
    return "unknown_field", no_such("field", name, known)


def no_such(kind: str, name: str, known: Sequence[str]) -> str:
    """That there is no `kind` (field, parameter) of this name, and which one may have been meant."""
    if near := difflib.get_close_matches(name[:100], known, n=1):
        return f"There is no such {kind}; did you mean `{near[0]}`?"
    return f"There is no such {kind}; known are {', '.join(known)}."


def _shape_at(shape: type[Shape], path: Sequence[str | int]) -> type[Shape]:
    """The shape that a path leads to: `("attachments", 0)` → the attachment's."""
    for step in path:
        if isinstance(step, int):
            continue
        for key, field in shape.model_fields.items():
            if (field.alias or key) == step and (inner := _inner(field.annotation)):
                shape = inner
    return shape


def _inner(annotation: Any) -> type[Shape] | None:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if found := _inner(part):
            return found
    return None


def refusal(faults: Sequence[Fault]) -> BadInput:
    """The faults under Resend's word for them: the most telling one that fits all."""
    codes, fields = {f.code for f in faults}, {f.field.partition("[")[0] for f in faults}
    if codes == {"missing_required_field"}:
        name = "missing_required_field"
    elif fields == {"attachments"}:
        name = "invalid_attachment"
    elif fields == {"from"} and "missing_required_field" not in codes:
        name = "invalid_from_address"
    else:
        name = "validation_error"
    return BadInput(list(faults), name, 422)


def read_shape(body: Body, shape: type[S], also: Callable[[dict[str, Any]], list[Fault]] | None = None) -> S:
    """The body as `shape`; BadInput with every fault, those of `also` (rules across fields) included."""
    if not isinstance(body.value, dict):
        raise BadInput([Fault("", "wrong_type", "The body must be a JSON object.")], "validation_error", 400)
    found, faults = check(body.value, shape, also)
    if body.faults or found is None:
        raise refusal(merged(body.faults, faults))
    return found


def check(
    value: Any, shape: type[S], also: Callable[[dict[str, Any]], list[Fault]] | None = None, index: int | None = None
) -> tuple[S | None, list[Fault]]:
    """`value` as `shape`, or None and what is wrong with it."""
    faults: list[Fault] = []
    found = None
    try:
        found = shape.model_validate(value)
    except ValidationError as error:
        faults = faults_of(error, shape, index)
    if also and isinstance(value, dict):
        faults += [Fault(f.field, f.code, f.message, index) for f in also(value)]
    return (None, faults) if faults else (found, [])


def merged(first: Sequence[Fault], others: Sequence[Fault]) -> list[Fault]:
    """Both; what one of `first` tells of a field, or of a part of it, is not told again."""
    told = {(f.index, f.field) for f in first}
    others = [f for f in others if not {(f.index, f.field), (f.index, f.field.partition("[")[0])} & told]
    return [*first, *others][: MOST_FAULTS + 1]
