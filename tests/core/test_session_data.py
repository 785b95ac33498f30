"""Mail data on the wire, and paths: what goes out is CRLF, dot-stuffed and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries.errors import ComposeError
from deliveries.smtp import data
from deliveries.smtp.path import BadPath, mailbox_on_wire, parse_path_argument, relay_shape

SMUGGLING = Path(__file__).parents[3] / "shared/corpora/vectors/smuggling.jsonl"


@pytest.mark.parametrize(
    "octets",
    [
        b"a\nb\r\n",
        b"a\rb\r\n",
        b"a\r\n.\n",
        b"a\n.\r\nb\r\n",
        b"\r\r\n.\r\r\n",
        b"a\0b\r\n",
        b"x" * 999 + b"\r\n",
        b"a\r",
    ],
)
def test_data_that_no_receiver_can_be_trusted_with_is_refused(octets: bytes) -> None:
    with pytest.raises(ComposeError):
        data.check(octets)


@given(st.binary(max_size=300))
def test_what_passes_has_one_end_of_data_only(octets: bytes) -> None:
    try:
        data.check(octets)
    except ComposeError:
        return
    wire = b"\r\n" + data.stuffed(octets) + data.FINAL_DOT
    assert wire.find(b"\r\n.\r\n") == len(wire) - 5
    assert b"\n." not in wire.replace(b"\r\n..", b"").replace(b"\r\n.\r\n", b"")


@given(st.lists(st.text("a.", max_size=5)))
def test_dot_stuffing_is_undone_by_the_receiver(lines: list[str]) -> None:
    octets = "".join(line + "\r\n" for line in lines).encode()
    undone = b"".join(line.removeprefix(b".") + b"\r\n" for line in data.stuffed(octets).split(b"\r\n")[:-1])
    assert undone == octets


@pytest.mark.skipif(not SMUGGLING.exists(), reason="the shared corpora are not beside this checkout")
def test_the_outbound_smuggling_vectors_never_go_out_as_they_are() -> None:
    rows = [json.loads(line) for line in SMUGGLING.read_text().splitlines()]
    for row in (r for r in rows if r["where"].startswith("outbound")):
        octets = bytes.fromhex(row["payload_hex"])
        if "wire bytes=" in row["expect"]:
            data.check(octets)
            expected = row["expect"].partition("'")[2].rstrip("'").encode().decode("unicode_escape").encode()
            assert data.stuffed(octets) + data.FINAL_DOT == expected
        elif octets == b"bad":
            assert data.stuffed(octets) == b"bad\r\n"
        else:
            with pytest.raises(ComposeError):
                data.check(octets)


@pytest.mark.parametrize(
    ("addr", "wire"),
    [
        ("a@b.test", "a@b.test"),
        ("", ""),
        ("bounces+abc-_=x@b.test", "bounces+abc-_=x@b.test"),
        ('"a b"@b.test', '"a b"@b.test'),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("a..b@b.test", "a..b@b.test"),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
    ],
)
def test_a_mailbox_goes_onto_the_wire(addr: str, wire: str) -> None:
    assert mailbox_on_wire(addr) == wire


@pytest.mark.parametrize(
    ("argument", "keyword", "mailbox", "parameters"),
    [
        ("FROM:<a@b.test> SIZE=5 BODY=8BITMIME", "FROM", "a@b.test", {"SIZE": "5", "BODY": "8BITMIME"}),
        ("from:<>", "FROM", "", {}),
        ("FROM: <a@b.test>", "FROM", "a@b.test", {}),
        ('TO:<"a>b"@b.test>', "TO", '"a>b"@b.test', {}),
        ("TO:<Postmaster>", "TO", "Postmaster", {}),
        ("TO:<@x.test,@y.test:a@b.test>", "TO", "a@b.test", {}),
    ],
)
def test_an_argument_of_mail_or_rcpt_is_read(
    argument: str, keyword: str, mailbox: str, parameters: dict[str, str]
) -> None:
    path = parse_path_argument(argument, keyword)
    assert not isinstance(path, BadPath)
    assert (path.mailbox, path.parameters) == (mailbox, parameters)


@pytest.mark.parametrize(
    "argument",
    ["", "TO", "TO:", "TO:a@b.test", "TO:<a@b.test", "FROM:<a@b.test>", "TO:<a b@c.test>", "TO:<a@b.test> X=\x01",
     "TO:<a@b..test>", "TO:<a@b.test> SIZE=1 SIZE=2", "TO:<a>", "TO:<@x>", "TO:<" + "a" * 300 + "@b.test>",
     'TO:<"a@b.test>'],
)  # fmt: skip
def test_a_malformed_argument_is_refused(argument: str) -> None:
    assert isinstance(parse_path_argument(argument, "TO"), BadPath)


@given(st.text(max_size=100))
def test_no_argument_raises(argument: str) -> None:
    parse_path_argument("TO:" + argument, "TO")
    parse_path_argument(argument, "FROM")


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("<a%other.test@ours.test>", "percent hack"),
        ("<other.test!a@ours.test>", "bang path"),
        ('<"a@other.test"@ours.test>', "quoted address"),
        ("<@ours.test:a@other.test>", "source route"),
        ("<a@[192.0.2.1]>", "address literal"),
        ("<a@ours.test>", None),
    ],
)
def test_the_old_relay_shapes_are_known_by_name(path: str, shape: str | None) -> None:
    parsed = parse_path_argument(f"TO:{path}", "TO")
    assert not isinstance(parsed, BadPath)
    assert relay_shape(parsed) == shape
