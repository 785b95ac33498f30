"""Times in words: what they mean, and that nothing is guessed."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailapi.schemas.phrases import moment

#: a Wednesday
NOW = datetime(2026, 11, 25, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-11-25T15:00"),
        ("in 1 min", "2026-11-25T15:01"),
        ("In  90 Seconds", "2026-11-25T15:01:30"),
        ("in an hour", "2026-11-25T16:00"),
        ("in half an hour", "2026-11-25T15:30"),
        ("in 1 hour and 30 minutes", "2026-11-25T16:30"),
        ("in 1h 30min", "2026-11-25T16:30"),
        ("in 2 days, 3 hours", "2026-11-27T18:00"),
        ("two weeks from now", "2026-12-09T15:00"),
        ("tomorrow at 9am", "2026-11-26T09:00"),
        ("tomorrow 9 a.m.", "2026-11-26T09:00"),
        ("tomorrow at noon", "2026-11-26T12:00"),
        ("9am tomorrow", "2026-11-26T09:00"),
        ("at 9am tomorrow ET", "2026-11-26T14:00"),
        ("at 9am ET tomorrow", "2026-11-26T14:00"),
        ("Friday at 3pm ET", "2026-11-27T20:00"),
        ("on fri, 3:15 pm pst", "2026-11-27T23:15"),
        ("3pm on Friday", "2026-11-27T15:00"),
        # today, since 4 pm is still to come; in a week, since 2 pm is not
        ("Wednesday at 4pm", "2026-11-25T16:00"),
        ("Wednesday at 2pm", "2026-12-02T14:00"),
        ("today at 17:00", "2026-11-25T17:00"),
        ("tonight at 8pm", "2026-11-25T20:00"),
        # 15:00 in UTC is 23:00 in Singapore
        ("tomorrow at 08:00 Asia/Singapore", "2026-11-26T00:00"),
        ("12am EST", "2026-11-26T05:00"),
        ("12pm", "2026-11-26T12:00"),
        ("5pm EST", "2026-11-25T22:00"),
        ("noon", "2026-11-26T12:00"),
        ("Dec 24, 2026 6:30 pm PST", "2026-12-25T02:30"),
        ("24 December at 18:30 Europe/Berlin", "2026-12-24T17:30"),
        ("december 1st at 9am", "2026-12-01T09:00"),
        ("Jan 2 at 9am", "2027-01-02T09:00"),
        ("2026-12-24 at 9am", "2026-12-24T09:00"),
        ("tomorrow at 09:00 +05:30", "2026-11-26T03:30"),
        ("tomorrow at 09:00 UTC-3", "2026-11-26T12:00"),
        ("may 1 at 9am", "2027-05-01T09:00"),
    ],
)
def test_a_phrase_means_one_moment(text, meant):
    assert moment(text, NOW) == datetime.fromisoformat(meant).replace(tzinfo=UTC)


def test_a_zone_by_region_follows_its_summer_time():
    assert moment("tomorrow at 3pm ET", datetime(2026, 7, 1, tzinfo=UTC)).hour == 19
    assert moment("tomorrow at 3pm ET", datetime(2026, 12, 1, tzinfo=UTC)).hour == 20


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "soon", "tomorrow", "friday", "tonight", "may", "2", "25", "9", "at 9", "9 ET", "3:00",
        "tomorrow at 9", "midnight", "friday at midnight", "next friday at 9am", "this friday at 9am",
        "12/11/2026 9am", "24.12.2026 9am", "in 5", "in 5 m", "in -5 minutes", "in 1 month", "in", "in 1 hour and",
        "in 5 minutes or so", "5 minutes", "13pm", "0am", "tomorrow at 25:00", "tomorrow at 9:60 am", "Feb 30 at 9am",
        "2026-13-01 at 9am", "tomorrow at 9am IST", "tomorrow at 9am Mars/Olympus", "tomorrow at 9am +15:00",
        "tomorrow at 9am ET PT", "tomorrow at 9am 10am", "tomorrow tomorrow at 9am", "9am ET tomorrow PT",
        "yesterday at 9am", "in 1e9 years", "tomorrow at 9am\0", "tomorrow at ９am", "../../etc/passwd",
        "tomorrow at 9am ../../etc/passwd", "in 1 min" * 20, "9999-12-31 at 23:00 PST", "0001-01-01 at 01:00 +02:00",
        "in 99999 weeks, 99999 weeks, 99999 weeks, 99999 weeks, 99999 weeks",
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_not_understood_is_refused(text):
    with pytest.raises(ValueError):
        moment(text, NOW)


@pytest.mark.parametrize("text", ["2027-03-28 at 02:30 Europe/Berlin", "2027-10-31 at 02:30 Europe/Berlin"])
def test_an_hour_that_the_clocks_skip_or_repeat_is_refused(text):
    with pytest.raises(ValueError, match="clocks change"):
        moment(text, NOW)


_WORDS = st.sampled_from(
    "in at on a an 1 2 30 9am pm 21:30 friday tomorrow today noon hour minutes and , et utc dec 24 2026 +02:00 from "
    "now".split()
)


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(max_size=90), st.lists(_WORDS, max_size=12).map(" ".join)))
def test_any_text_is_a_moment_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert moment(text, NOW).tzinfo is UTC
