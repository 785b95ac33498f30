"""What is told of troubles, and when: decisions on values alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deliveries.alerts.judge import AGAIN, DAILY, Kind, Known, Trouble, judge, told

T0 = datetime(2026, 11, 25, 12, tzinfo=UTC)
QUIET = timedelta(minutes=2)


class Desk:
    """The state between looks, as Postgres would keep it; `told` is what went out."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Known] = {}
        self.out: list[tuple[str, str]] = []

    def look(self, at: timedelta, *seen: Trouble, delivered: bool = True, **scope) -> list[str]:
        words = []
        for step in judge(seen, self.known, T0 + at, QUIET, **scope):
            known = step.known
            if step.word is not None:
                words.append(f"{known.trouble.subject or known.trouble.kind} {step.word}")
                if delivered:
                    known = told(step, T0 + at)
            self.known[known.trouble.key] = known
        return words


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_trouble_of_any_kind_is_told_once_then_daily_and_its_end_once(kind: Kind) -> None:
    desk, trouble = Desk(), Trouble(kind, "x", "It is broken.")
    assert desk.look(minutes(0), trouble) == ["x begins"]
    for n in range(1, 24 * 60, 17):
        assert desk.look(minutes(n), trouble) == []
    assert desk.look(DAILY, trouble) == ["x lasts"]
    assert desk.look(DAILY + minutes(1), trouble) == []
    assert desk.look(DAILY + minutes(2)) == [], "not seen, and perhaps back at once"
    assert desk.look(DAILY + minutes(4)) == ["x ends"]
    assert desk.look(DAILY + minutes(5)) == []


def test_one_that_comes_and_goes_is_no_storm() -> None:
    desk, trouble = Desk(), Trouble(Kind.ROLE_GONE, "beat", "No beat.")
    words = []
    for n in range(0, 12 * 60, 5):  # half a day of five minutes there, five minutes not
        words += desk.look(minutes(n), *([trouble] if n % 10 == 0 else []))
    assert words.count("beat begins") <= 12 + 1 and words.count("beat ends") <= words.count("beat begins")


def test_what_begins_again_soon_after_its_end_is_told_an_hour_after_the_last_word_if_it_lasts() -> None:
    desk, trouble = Desk(), Trouble(Kind.DISK, "a:/var", "Little room.")
    assert desk.look(minutes(0), trouble) == ["a:/var begins"]
    assert desk.look(minutes(2)) == ["a:/var ends"]
    assert desk.look(minutes(10), trouble) == []
    assert desk.look(minutes(30), trouble) == []
    assert desk.look(minutes(2) + AGAIN, trouble) == ["a:/var begins"]


def test_one_that_was_never_told_again_has_no_end_to_tell() -> None:
    desk, trouble = Desk(), Trouble(Kind.DISK, "a:/var", "Little room.")
    desk.look(minutes(0), trouble)
    desk.look(minutes(2))
    assert desk.look(minutes(10), trouble) == []
    assert desk.look(minutes(13)) == []


def test_what_could_not_be_told_is_told_by_the_next_look() -> None:
    desk, trouble = Desk(), Trouble(Kind.BRAKE, "one.test", "It refuses everybody.")
    assert desk.look(minutes(0), trouble, delivered=False) == ["one.test begins"]
    assert desk.look(minutes(1), trouble) == ["one.test begins"]
    assert desk.look(minutes(2), trouble) == []


def test_a_look_ends_only_what_it_would_have_seen() -> None:
    desk = Desk()
    desk.look(minutes(0), Trouble(Kind.DISK, "b:/", "x"), Trouble(Kind.MAIL_WAITS, "", "y"))
    here = {"looked_at": lambda trouble: not trouble.subject.startswith("b:")}
    assert desk.look(minutes(5), **here) == ["mail_waits ends"]
    assert desk.look(minutes(6)) == ["b:/ ends"]


def test_words_that_change_are_the_same_trouble() -> None:
    desk = Desk()
    desk.look(minutes(0), Trouble(Kind.MAIL_WAITS, "", "for 61 s"))
    assert desk.look(minutes(1), Trouble(Kind.MAIL_WAITS, "", "for 121 s")) == []
    assert desk.known["mail_waits", ""].trouble.words == "for 121 s"
