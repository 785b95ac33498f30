"""VERP tokens: they bring a delivery back, and nothing that we did not mint is believed."""

from __future__ import annotations

import base64
import random
import string
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from deliveries.errors import TokenError
from deliveries.mime.verp import TOKEN_HEADER, Keys, mint, read, reverse_path, token_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EXPIRES = NOW + timedelta(days=30)
OLD, NEW = b"o" * 32, b"n" * 32
KEYS = Keys({1: OLD})
DELIVERY = uuid.UUID("019aa000-0000-7000-8000-0123456789ab")


def refusal(token: str, now: datetime = NOW, keys: Keys = KEYS, grace: timedelta = timedelta(0)) -> str:
    with pytest.raises(TokenError) as caught:
        read(keys, token, now, grace)
    return str(caught.value)


def test_a_token_brings_its_delivery_back() -> None:
    token = mint(KEYS, DELIVERY, EXPIRES)
    assert len(token) == 48 and set(token) <= set(string.ascii_lowercase + "234567")
    assert read(KEYS, token, NOW) == DELIVERY
    assert read(KEYS, token.upper(), NOW) == DELIVERY  # relays fold local parts


def test_the_same_delivery_has_the_same_token_in_every_retry() -> None:
    assert mint(KEYS, DELIVERY, EXPIRES) == mint(KEYS, DELIVERY, EXPIRES.astimezone(timezone(timedelta(hours=9))))


def test_the_local_part_stays_within_sixty_octets() -> None:
    path = reverse_path(mint(KEYS, DELIVERY, EXPIRES), "bounces.example.com")
    local, _, domain = path.rpartition("@")
    assert len(local) <= 60 and domain == "bounces.example.com"


@pytest.mark.parametrize(
    "form", ["{}", "<{}>", "rfc822;{}", "SRS0=abcd=XY=example.com={}", "prvs=1234567890={}", "Bounce <{}>"]
)
def test_a_token_is_found_in_the_forms_that_reports_and_forwarders_use(form: str) -> None:
    token = mint(KEYS, DELIVERY, EXPIRES)
    path = reverse_path(token, "b.example.com")
    assert token_of(form.format(path)) == token
    assert token_of(form.format(path.upper())) == token


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a@example.com",
        "bounces@b.example.com",
        "bounces+short@b.example.com",
        "bounces+" + "1" * 48 + "@x",
        "bounceſ+" + "a" * 48 + "@x",
    ],
)
def test_an_address_without_a_token_gives_none(address: str) -> None:
    assert token_of(address) is None


def test_a_token_ends_with_its_day_and_a_report_gets_its_grace() -> None:
    token = mint(KEYS, DELIVERY, EXPIRES)
    assert read(KEYS, token, EXPIRES) == DELIVERY
    assert refusal(token, EXPIRES + timedelta(days=1)) == "expired"
    assert read(KEYS, token, NOW + timedelta(days=179), grace=timedelta(days=150)) == DELIVERY
    assert refusal(token, NOW + timedelta(days=182), grace=timedelta(days=150)) == "expired"


def test_keys_rotate_and_the_first_one_signs() -> None:
    old_token = mint(KEYS, DELIVERY, EXPIRES)
    both = Keys({2: NEW, 1: OLD})
    new_token = mint(both, DELIVERY, EXPIRES)
    assert read(both, old_token, NOW) == read(both, new_token, NOW) == DELIVERY
    assert refusal(new_token) == "unknown key"
    assert refusal(old_token, keys=Keys({1: NEW})) == "forged"


def test_keys_are_read_in_order() -> None:
    encoded = base64.b64encode(NEW).decode(), base64.b64encode(OLD).decode()
    assert list(Keys.parse(f"2:{encoded[0]}, 1:{encoded[1]}").secrets.items()) == [(2, NEW), (1, OLD)]
    assert "nnnn" not in repr(Keys({2: NEW})) and encoded[0] not in repr(Keys({2: NEW}))


@pytest.mark.parametrize(
    "text",
    ["", ",", "1", "x:AAAA", "1:!", "1:AAAA", f"0:{'A' * 44}", f"256:{'A' * 44}", f"1:{'A' * 44},1:{'A' * 44}"],
)
def test_bad_key_settings_are_refused_without_showing_the_secret(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        Keys.parse(text)
    assert "AAAA" not in str(refused.value)


@pytest.mark.parametrize(
    "token", ["", "a" * 47, "a" * 49, "1" * 48, "a" * 48, "ä" * 48, "a" * 47 + "\n", "a" * 47 + "="]
)
def test_what_is_no_token_is_malformed(token: str) -> None:
    assert refusal(token) == "malformed"


def test_ten_thousand_forged_and_altered_tokens_are_all_refused() -> None:
    rng = random.Random(20261123)
    alphabet = string.ascii_lowercase + "234567"
    genuine = mint(KEYS, DELIVERY, EXPIRES)
    tried = 0
    words: dict[str, int] = {}
    while tried < 10_000:
        shape = tried % 5
        other = mint(KEYS, uuid.UUID(bytes=rng.randbytes(16)), EXPIRES)
        if shape == 0:  # one letter altered
            at = rng.randrange(48)
            token = genuine[:at] + rng.choice(alphabet) + genuine[at + 1 :]
        elif shape == 1:  # out of thin air
            token = "".join(rng.choices(alphabet, k=48))
        elif shape == 2:  # another delivery or a later expiry under the old MAC
            octets = bytearray(base64.b32decode(genuine.upper()))
            octets[rng.randrange(2, 20)] = rng.randrange(256)
            token = base64.b32encode(bytes(octets)).decode().lower()
        elif shape == 3:  # minted with another secret
            token = mint(Keys({1: rng.randbytes(32)}), uuid.UUID(bytes=rng.randbytes(16)), EXPIRES)
        else:  # halves of two genuine ones
            at = rng.randrange(4, 44)
            token = genuine[:at] + other[at:]
        if token in (genuine, other):
            continue
        tried += 1
        reason = refusal(token)
        words[reason] = words.get(reason, 0) + 1
    assert set(words) <= {"malformed", "unknown key", "forged"} and sum(words.values()) == 10_000


def test_the_header_field_has_one_name() -> None:
    assert TOKEN_HEADER == "X-Mailapi-Delivery"
