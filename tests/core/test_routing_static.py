"""MAIL_ROUTES: what an operator may write, and how he is told what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deliveries.routing.static import StaticRoute, find, parse
from deliveries.smtp.hop import Credentials, Dsn, Tls


def one(**fields: Any) -> StaticRoute:
    return parse(json.dumps({"example.org": fields}))["example.org"]


def test_a_smarthost_with_auth_is_verified_on_587() -> None:
    route = one(host="smtp.example.net", username="u", password="p")
    assert route == StaticRoute(
        "smtp.example.net", (("smtp.example.net", 587),), False, Credentials("u", "p"), Tls.VERIFY
    )
    assert route.return_path == "verp"


def test_port_465_speaks_tls_from_the_first_octet() -> None:
    assert one(host="smtp.example.net", port=465).tls is Tls.IMPLICIT


def test_lmtp_and_plain_relays_have_their_own_defaults() -> None:
    assert one(host="10.0.0.1", lmtp=True).hosts == (("10.0.0.1", 24),)
    assert one(host="10.0.0.1").hosts == (("10.0.0.1", 25),)
    assert one(host="10.0.0.1").tls is Tls.MAY


def test_several_hosts_each_may_name_a_port() -> None:
    route = one(host=["a.example", "b.example:2525", "[2001:db8::1]:26", "2001:db8::2"], port=10025)
    assert route.hosts == (("a.example", 10025), ("b.example", 2525), ("2001:db8::1", 26), ("2001:db8::2", 10025))


def test_a_password_is_never_shown() -> None:
    assert "hunter2" not in repr(one(host="a.example", username="u", password="hunter2"))


def test_the_nearest_entry_wins() -> None:
    table = parse("""{
        "example.org": {"host": "exact.example"}, ".example.org": {"host": "below.example"},
        ".mail.example.org": {"host": "nearer.example"}, "*": {"host": "rest.example"}
    }""")
    for domain, host in [
        ("example.org", "exact.example"),
        ("a.example.org", "below.example"),
        ("x.mail.example.org", "nearer.example"),
        ("badexample.org", "rest.example"),
        ("org", "rest.example"),
    ]:
        route = find(table, domain)
        assert route is not None and route.name == host
    assert find(parse('{".example.org": {"host": "h"}}'), "example.org") is None
    assert find({}, "example.org") is None


def test_a_domain_may_be_taken_out_of_the_rest_and_sent_by_mx() -> None:
    route = parse('{"*": {"host": "h"}, "direct.example": {"mx": true, "tls": "verify"}}')["direct.example"]
    assert (route.hosts, route.tls, route.name) == ((), Tls.VERIFY, "direct.example")


def test_empty_is_no_routes() -> None:
    assert parse("") == parse("  \n") == parse("{}") == {}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ".host:"),
        ({"host": ""}, ".host:"),
        ({"host": []}, ".host:"),
        ({"host": 5}, ".host:"),
        ({"host": "a b"}, ".host:"),
        ({"host": "smtp://a"}, ".host:"),
        ({"host": "a:0"}, ".host:"),
        ({"host": "a", "port": 0}, ".port:"),
        ({"host": "a", "port": "25"}, ".port:"),
        ({"host": "a", "port": True}, ".port:"),
        ({"host": "a", "username": "u"}, ".password:"),
        ({"host": "a", "password": "p"}, ".username:"),
        ({"host": "a", "tls": "dane"}, ".tls:"),
        ({"host": "a", "tls": "yes"}, ".tls:"),
        ({"host": "a", "username": "u", "password": "p", "tls": "may"}, ".tls:"),
        ({"host": "a", "username": "u", "password": "p", "tls": "none"}, ".tls:"),
        ({"host": "a", "lmtp": 1}, ".lmtp:"),
        ({"host": "a", "return_path": "none"}, ".return_path:"),
        ({"host": "a", "passwrod": "p"}, ".passwrod: unknown"),
        ({"host": "a", "mx": True}, ".host:"),
        ({"mx": True, "tls": "implicit"}, ".tls:"),
    ],
)
def test_an_error_names_the_key(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError) as wrong:
        one(**fields)
    assert f"MAIL_ROUTES['example.org']{names}" in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"example.org": "a"}', "'example.org'] must be an object"),
        ('{"exa mple.org": {"host": "a"}}', "'exa mple.org'"),
        ('{"*.example.org": {"host": "a"}}', "'*.example.org'"),
        ('{"": {"host": "a"}}', "''"),
        ('{"a.example": {"host": "a"}, "a.example": {"host": "b"}}', "twice"),
        ('{"a.example": {"host": "a"}, "A.example.": {"host": "b"}}', "twice"),
    ],
)
def test_a_broken_table_is_told_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError) as wrong:
        parse(text)
    assert says in str(wrong.value) and "\n" not in str(wrong.value)


def test_a_route_may_ask_for_notices() -> None:
    assert one(host="h.example").dsn is None
    assert one(host="h.example", notify="success, delay", ret="hdrs").dsn == Dsn("SUCCESS,DELAY", "HDRS")
    assert one(mx=True, notify="never").dsn == Dsn("NEVER")
    for fields in ({"notify": "never,delay"}, {"notify": "always"}, {"ret": "body"}, {"notify": ["delay"]}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            one(host="h.example", **fields)
