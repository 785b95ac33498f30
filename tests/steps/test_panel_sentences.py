"""One plain sentence for every state of a delivery."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from deliveries.read.sentences import Standing, sentence, when
from deliveries.states import Category, Status

NOW = datetime(2026, 11, 23, 10, 40, tzinfo=UTC)
AT = NOW.replace(hour=10, minute=2, second=7)
BASE = Standing(
    Status.DELIVERED, "anna@gmail.com", host="mx.gmail.com", reply="250 2.0.0 OK 1700 abc", attempts=1, created_at=AT,
    expires_at=NOW + timedelta(days=3), settled_at=AT, tls="TLSv1.3 TLS_AES_256_GCM_SHA384, not verified",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "mx.gmail.com accepted it at 10:02:07 over TLS 1.3, saying “250 2.0.0 OK 1700 abc”."),
        (
            {"tls": "TLSv1.3 TLS_AES_256_GCM_SHA384, verified"},
            "mx.gmail.com accepted it at 10:02:07 over TLS 1.3 (certificate verified), saying “250 2.0.0 OK 1700 abc”.",
        ),
        ({"tls": ""}, "mx.gmail.com accepted it at 10:02:07 in clear (no TLS), saying “250 2.0.0 OK 1700 abc”."),
        (
            {"status": Status.DEFERRED, "category": Category.RATE_LIMITED, "reply": "421 4.7.28 too fast",
             "attempts": 3, "next_attempt_at": NOW + timedelta(minutes=20), "settled_at": None},
            "mx.gmail.com asked us to slow down: “421 4.7.28 too fast”. Attempt 4 at 11:00:00; gives up on Thu 26 Nov "
            "at 10:40.",
        ),
        (
            {"status": Status.BOUNCED, "category": Category.NETWORK, "reply": "554 5.3.0 local error"},
            "mx.gmail.com had trouble of its own, at 10:02:07: “554 5.3.0 local error”.",
        ),
        (
            {"status": Status.BOUNCED, "category": Category.NETWORK, "reply": "connection closed by the server"},
            "mx.gmail.com could not be reached, or the connection broke, at 10:02:07: “connection closed by the "
            "server”.",
        ),
        (
            {"status": Status.BOUNCED, "category": Category.BAD_MAILBOX, "reply": "550 5.1.1 no such user"},
            "mx.gmail.com says that there is no such mailbox, at 10:02:07: “550 5.1.1 no such user”.",
        ),
        (
            {"status": Status.BOUNCED, "category": Category.MAILBOX_FULL, "reply": "over quota", "late": True},
            "Accepted first, then returned at 10:02:07: mx.gmail.com says that the mailbox is full: “over quota”.",
        ),
        (
            {"status": Status.UNKNOWN, "next_attempt_at": NOW + timedelta(minutes=15)},
            "mx.gmail.com gave no usable answer after the whole mail was sent: it may have arrived. It is sent "
            "once more at 10:55:00, with the same Message-ID.",
        ),
        (
            {"status": Status.UNKNOWN},
            "mx.gmail.com gave no usable answer after the whole mail was sent: it may have arrived. It is not "
            "sent again, so that it does not arrive twice.",
        ),
        ({"status": Status.QUEUED, "in_flight": True}, "Is being sent right now."),
        ({"status": Status.QUEUED, "next_attempt_at": AT}, "Waits for its turn since 10:02:07."),
        (
            {"status": Status.SCHEDULED, "next_attempt_at": NOW + timedelta(days=1)},
            "Will be sent on Tue 24 Nov at 10:40, as the sender asked.",
        ),
        ({"status": Status.HELD, "reason": "Held by dora."}, "Held until a person releases it: “Held by dora.”."),
        (
            {"status": Status.EXPIRED, "attempts": 12, "reply": "451 busy"},
            "Given up at 10:02:07 after 12 attempts. The last answer of mx.gmail.com: “451 busy”.",
        ),
        (
            {"complained_at": AT, "reply": "250 OK", "duplicate_possible": True},
            "mx.gmail.com accepted it at 10:02:07 over TLS 1.3, saying “250 OK”. The recipient reported it as spam at "
            "10:02:07. It may have arrived twice.",
        ),
    ],
)  # fmt: skip
def test_a_sentence_says_who_what_and_when(changes, text):
    assert sentence(replace(BASE, **changes), NOW) == text


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("bare", [True, False])
def test_every_status_has_a_sentence_even_when_little_is_known(status, bare):
    standing = Standing(status, "a@b") if bare else replace(BASE, status=status)
    text = sentence(standing, NOW)
    assert text[-1] == "." and "None" not in text and "  " not in text and ".." not in text, text


def test_a_long_reply_is_shortened_and_stands_in_one_line():
    text = sentence(replace(BASE, reply="250 line\n" * 100), NOW)
    assert len(text) < 300 and "\n" not in text and "…”" in text


def test_a_time_of_another_day_or_year_names_it():
    assert when(NOW - timedelta(days=1), NOW) == "on Sun 22 Nov at 10:40"
    assert when(NOW - timedelta(days=400), NOW) == "on Sun 19 Oct 2025 at 10:40"
