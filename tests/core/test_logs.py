"""Lines of the log: one JSON object each, with ids, and without what is secret or personal."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from mailapi import logs


def line(message: str, *args: object, level: int = logging.INFO, error: BaseException | None = None, **extra: object):
    record = logging.getLogger("deliveries.record.brakes").makeRecord(
        "deliveries.record.brakes", level, __file__, 1, message, args,
        (type(error), error, error.__traceback__) if error else None, "pull", extra,
    )  # fmt: skip
    return record


def test_an_object_says_when_who_where_and_what(monkeypatch) -> None:
    monkeypatch.setenv("MAILAPI_ROLE", "jobs")
    told = json.loads(
        logs.Json().format(line("mail to %s is held\nfor long", "one.test", tenant=7, event="brake.site"))
    )
    assert told["time"].endswith("Z") and told["level"] == "info" and told["role"] == "jobs" and told["host"]
    assert (told["event"], told["tenant"], told["message"]) == (
        "brake.site", "7", "mail to one.test is held\nfor long",
    )  # fmt: skip
    assert "\n" not in logs.Json().format(line("a\nb"))


def test_a_line_without_a_name_of_its_own_is_named_by_the_function_that_wrote_it() -> None:
    assert json.loads(logs.Json().format(line("x")))["event"] == "deliveries.record.brakes.pull"


def test_an_exception_stands_in_its_line() -> None:
    try:
        raise ValueError("for ann@example.com")
    except ValueError as e:
        told = json.loads(logs.Json().format(line("broke", level=logging.ERROR, error=e)))
    assert "Traceback" in told["exception"] and "for …@example.com" in told["exception"]


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("to ann@example.com now", "to …@example.com now"),
        ('<bounces+abc.def=x@b.test> and "o\'neil"@x.test', None),
        ("FROM:<käthe@example.com>", "FROM:<…@example.com>"),
        ("the key re_abcdefgh12345678 is", "the key re_… is"),
        ("redis://:secret@127.0.0.1:6379/0", None),
    ],
)
@pytest.mark.parametrize("form", [logs.Line, logs.Json])
def test_addresses_and_keys_are_not_told(said, seen, form) -> None:
    told = form().format(line("%s", said))
    if form is logs.Json:
        told = json.loads(told)["message"]
    for secret in ("ann@", "abc.def", "käthe", "abcdefgh", "secret", "neil"):
        assert secret not in told
    assert seen is None or seen in told
    assert said in logs.Line().format(line("%s", said, level=logging.DEBUG))


def test_a_line_that_is_written_while_a_request_is_answered_has_its_id_tenant_and_key() -> None:
    caller = type("Caller", (), {"tenant_id": "t1", "prefix": "re_abcde"})()
    asked = SimpleNamespace(request_id="order-17", user=caller)
    before = logs.request.set(asked)
    try:
        told = json.loads(logs.Json().format(line("x")))
        assert (told["request_id"], told["tenant"], told["key"]) == ("order-17", "t1", "re_abcde")
        asked.user = "a panel's lazy user, who is not looked up"
        assert "tenant" not in json.loads(logs.Json().format(line("x")))
        assert "[request order-17]" in logs.Line().format(line("x"))
    finally:
        logs.request.reset(before)
