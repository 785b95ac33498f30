"""From octets to JSON under caps, without a database."""

import io
import threading

import pytest
from django.test import RequestFactory

from deliveries.errors import BadInput
from mailapi.schemas import body as reading
from mailapi.schemas.body import field_name, json_body, parse

_MANY = 2_000_000

HEAVY = {
    "empty strings": (b'{"to":[' + b'"",' * _MANY + b'""]}', "too_complex"),
    "objects": (b"[" + b"{}," * _MANY + b"{}]", "too_complex"),
    "short lists": (b"[" + b"[1]," * _MANY + b"[1]]", "too_complex"),
    "brackets": (b"[" * _MANY, "too_complex"),
    "brackets and digits": (b"[1" * _MANY, "too_complex"),
    "quotation marks": (b'"' * _MANY, "too_complex"),
    "words": (b"[" + b"true," * _MANY + b"1]", "too_complex"),
    "a string without end": (b'{"html":"' + b"x" * _MANY, "invalid_json"),
    "escaped quotation marks without end": (b'{"html":"' + b'\\"' * _MANY, "invalid_json"),
    "backslashes without end": (b'{"html":"' + b"\\" * (2 * _MANY), "invalid_json"),
}


@pytest.mark.parametrize(("octets", "code"), HEAVY.values(), ids=HEAVY)
def test_a_body_that_would_fill_memory_is_refused_before_it_is_parsed(octets, code):
    with pytest.raises(BadInput) as caught:
        parse(octets)
    assert [f.code for f in caught.value.faults] == [code]


@pytest.mark.parametrize(
    "octets",
    [
        b'{"content":[' + b"7," * _MANY + b"7]}",
        b'{"content":[' + b"\n        255," * 500_000 + b"7]}",
        b'{"html":"' + b'\\"\\n' * _MANY + b'"}',
        b'{"html":"' + b"{[,:" * _MANY + b'"}',
    ],
)
def test_a_large_file_or_text_is_not_too_complex(octets):
    value, _ = parse(octets)
    assert len(value) == 1


def test_the_order_mark_of_some_editors_is_passed_over():
    assert parse(b'\xef\xbb\xbf{"a": 1}')[0] == {"a": 1}


def test_paths_are_written_as_people_read_them():
    assert field_name(("attachments", 0, "content")) == "attachments[0].content"
    assert field_name((3, "to", 1)) == "[3].to[1]"
    assert field_name(()) == ""


def test_text_that_cannot_be_stored_is_named_wherever_it_stands():
    octets = b'{"a": "x\\u0000", "b": [{"c": "\\ud800"}, "\\ud83c\\udf89"], "d\\u0000": 1, "e": "\\\\u0000"}'
    request = RequestFactory().post("/emails", octets, content_type="application/json")
    with json_body(request) as body:
        assert {(f.field, f.code) for f in body.faults} == {
            ("a", "control_character"), ("b[0].c", "invalid_character"), ("", "control_character"),
        }  # fmt: skip


class _Endless(io.RawIOBase):
    """A peer that never stops; counts what was taken from it."""

    taken = 0

    def read(self, size=-1):
        self.taken += size
        return b" " * size


def test_a_stream_without_a_length_is_read_up_to_the_cap_only():
    stream = _Endless()
    request = RequestFactory().post("/emails", **{"wsgi.input": stream, "wsgi.input_terminated": True})
    request.META.pop("CONTENT_LENGTH", None)
    with pytest.raises(BadInput) as caught:
        reading.read(request, 1_000_000)
    assert caught.value.http_status == 413 and stream.taken < 1_200_000


def test_a_declared_length_above_the_cap_is_refused_without_reading():
    stream = _Endless()
    request = RequestFactory().post("/emails", **{"wsgi.input": stream, "CONTENT_LENGTH": "1000001"})
    with pytest.raises(BadInput) as caught:
        reading.read(request, 1_000_000)
    assert caught.value.http_status == 413 and stream.taken == 0


def test_a_body_that_ends_early_is_refused():
    request = RequestFactory().post("/emails", **{"wsgi.input": io.BytesIO(b"{}"), "CONTENT_LENGTH": "3"})
    with pytest.raises(BadInput) as caught:
        reading.read(request, 1_000_000)
    assert [f.code for f in caught.value.faults] == ["incomplete_body"]


def test_large_bodies_wait_for_each_other_and_are_turned_away_in_the_end(monkeypatch):
    monkeypatch.setattr(reading, "_turns", threading.BoundedSemaphore(1))
    monkeypatch.setattr(reading, "_TURN_S", 0.01)
    octets = b'{"html": "' + b"x" * 2_000_000 + b'"}'

    def request():
        return RequestFactory().post("/emails", octets, content_type="application/json")

    with json_body(request()), pytest.raises(BadInput) as caught, json_body(request()):
        pass
    assert caught.value.http_status == 429
    with json_body(request()) as body:  # the turn was given back
        assert len(body.value["html"]) == 2_000_000


def test_a_name_that_stands_twice_among_very_many_is_found_in_one_pass() -> None:
    names = [*(f"a{i}" for i in range(80_000)), "a79999"]
    octets = ("{" + ",".join(f'"{name}":1' for name in names) + "}").encode()
    with pytest.raises(BadInput) as refused:
        parse(octets)
    assert [(f.field, f.code) for f in refused.value.faults] == [("a79999", "duplicate_field")]
