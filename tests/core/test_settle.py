"""What a result means for a delivery, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from deliveries.record.settle import Result, Row, Standing, Tried, settle, words
from deliveries.retry import Schedule
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Replied, Stage, Verdict
from deliveries.smtp.reply import Reply
from deliveries.states import Category, EventType, Status

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = uuid4()
PLAN = Schedule(waits_s=(60, 600), max_age_s=86400, unknown_wait_s=900, jitter=0)
AT = Standing(
    id=uuid4(),
    tenant_id=uuid4(),
    message_id=uuid4(),
    recipient="a@b.test",
    status=Status.QUEUED,
    attempts=0,
    unknowns=0,
    expires_at=NOW + timedelta(days=1),
    queued=True,
    leased_by=LEASE,
    started=True,
)
DELIVERED = Verdict(Status.DELIVERED, "2xx", text="250 ok")
DEFERRED = Verdict(Status.DEFERRED, "greylisting", Category.GREYLISTED, text="451 later")
BOUNCED = Verdict(Status.BOUNCED, "user-unknown", Category.BAD_MAILBOX, suppress=True, text="550 5.1.1 no such user")
UNKNOWN = Verdict(Status.UNKNOWN, "no-final-reply", Category.NETWORK)


def result(verdict: Verdict, lease=LEASE) -> Result:
    attempted = Attempted(Hop("mx.b.test", "127.0.0.1"), Replied(Stage.DOT, Reply(250)), NOW, NOW, "")
    return Result(AT.id, lease, verdict, (Tried(uuid4(), attempted, verdict),), "mx.b.test")


def change(at: Standing, verdict: Verdict, lease=LEASE, policy="retry"):
    return settle(at, result(verdict, lease), NOW, PLAN, policy)


def test_a_2xx_ends_the_delivery() -> None:
    done = change(AT, DELIVERED)
    assert (done.status, done.row, done.settled, done.event) == (
        Status.DELIVERED, Row.DELETE, True, EventType.DELIVERED,
    )  # fmt: skip
    assert not done.duplicate_possible and done.attempts == 1


def test_a_2xx_counts_even_when_the_lease_went_to_another_and_says_so_where_that_one_had_started() -> None:
    taken = replace(AT, leased_by=uuid4(), started=True)
    done = change(taken, DELIVERED)
    assert done.status is Status.DELIVERED and done.row is Row.DELETE and done.duplicate_possible
    assert not change(replace(taken, started=False), DELIVERED).duplicate_possible


def test_a_2xx_after_an_unknown_may_be_the_second_copy() -> None:
    assert change(replace(AT, status=Status.UNKNOWN, unknowns=1), DELIVERED).duplicate_possible


@pytest.mark.parametrize("verdict", [DEFERRED, BOUNCED, UNKNOWN])
def test_anything_but_a_2xx_from_a_lost_lease_changes_nothing(verdict: Verdict) -> None:
    done = change(replace(AT, leased_by=uuid4()), verdict)
    assert done.status is None and done.row is Row.LEAVE


def test_deferrals_follow_the_schedule_and_its_last_wait_repeats() -> None:
    waits = [change(replace(AT, attempts=n), DEFERRED).next_attempt_at - NOW for n in range(4)]
    assert [w.total_seconds() for w in waits] == [60, 600, 600, 600]


def test_the_last_wait_is_cut_at_the_end_of_life() -> None:
    at = replace(AT, attempts=5, expires_at=NOW + timedelta(seconds=30))
    assert change(at, DEFERRED).next_attempt_at == at.expires_at


def test_the_first_deferral_is_told_and_the_second_is_not_news() -> None:
    assert change(AT, DEFERRED).event is EventType.DELIVERY_DELAYED
    assert change(replace(AT, status=Status.DEFERRED), DEFERRED).event is None


def test_a_hard_bounce_suppresses_and_ends() -> None:
    done = change(AT, BOUNCED)
    assert (done.status, done.row, done.suppress) == (Status.BOUNCED, Row.DELETE, True)


def test_an_unknown_is_tried_once_more_and_not_before_its_pause() -> None:
    done = change(AT, UNKNOWN)
    assert (done.status, done.row, done.unknowns) == (Status.UNKNOWN, Row.MOVE, 1)
    assert done.next_attempt_at == NOW + timedelta(seconds=900) and not done.settled


def test_the_second_unknown_is_final() -> None:
    done = change(replace(AT, status=Status.UNKNOWN, unknowns=1), UNKNOWN)
    assert (done.status, done.row, done.settled, done.duplicate_possible) == (Status.UNKNOWN, Row.DELETE, True, True)


def test_by_policy_an_unknown_waits_for_a_person() -> None:
    done = change(AT, UNKNOWN, policy="hold")
    assert (done.status, done.row, done.next_attempt_at) == (Status.HELD, Row.MOVE, None)


def test_an_unknown_that_grows_too_old_stays_unknown_for_it_may_have_arrived() -> None:
    expired = Verdict(Status.EXPIRED, "age", Category.EXPIRED, text="too old")
    done = change(replace(AT, status=Status.UNKNOWN, unknowns=1), expired)
    assert (done.status, done.row, done.settled) == (Status.UNKNOWN, Row.DELETE, True)
    assert change(AT, expired).status is Status.EXPIRED
    # put off by a 4xx, or let go by a person, after the try that got no answer
    for status in (Status.DEFERRED, Status.QUEUED):
        done = change(replace(AT, status=status, unknowns=1), expired)
        assert done.status is Status.UNKNOWN and done.settled and done.reason.endswith("so it may have arrived.")


def test_every_status_has_a_sentence_for_a_person() -> None:
    for verdict in (DELIVERED, DEFERRED, BOUNCED, UNKNOWN):
        assert change(AT, verdict).reason.startswith("mx.b.test ")


def test_a_bounce_that_a_report_told_stands_when_the_250_of_its_round_is_recorded_later() -> None:
    bounced = replace(AT, status=Status.BOUNCED, late=True)
    for verdict in (DELIVERED, DEFERRED, UNKNOWN, BOUNCED):
        done = change(bounced, verdict)
        assert (done.status, done.row, done.kept) == (Status.BOUNCED, Row.DELETE, True)
        assert done.event is None and done.attempts == 1


def test_a_bounce_of_a_round_still_gives_way_to_a_2xx() -> None:
    at = replace(AT, status=Status.BOUNCED, queued=False, leased_by=None)
    assert change(at, DELIVERED).status is Status.DELIVERED


def test_a_receiver_that_answered_is_not_called_out_of_reach() -> None:
    busy = Verdict(Status.DEFERRED, "server-busy", Category.NETWORK, code=421, text="421 4.3.2 Service shutting down")
    assert words(result(busy)) == "mx.b.test did not take it yet: 421 4.3.2 Service shutting down"
    silent = Verdict(Status.DEFERRED, "broken-network", Category.NETWORK, text="connection refused")
    assert words(result(silent)) == "mx.b.test could not be reached: connection refused"
