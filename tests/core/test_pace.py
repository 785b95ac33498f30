"""How a site is served from now on: pure decisions, each with a reason and an end."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from deliveries.gcra import Meter
from deliveries.shaping import BURST_S, part
from deliveries.smtp import pace as paces
from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Broken, Outcome, Replied, Stage
from deliveries.smtp.pace import Pace, Seen, first_pace, next_pace, observe
from deliveries.smtp.providers import Profile, parse_providers, profile_of, trusted_sites
from deliveries.smtp.reply import Reply
from deliveries.states import Category

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
PROFILE = Profile("test", start=8, most=16, messages_per_connection=10, rate_per_minute=0, source="a test")
MET = replace(first_pace(PROFILE), proven=True)
SLOWER = "421 4.7.28 Gmail has detected an unusual rate of mail"


def after(pace: Pace, seen: Seen, seconds: float = 0, profile: Profile = PROFILE) -> Pace:
    return next_pace("google.com", pace, profile, seen, NOW + timedelta(seconds=seconds), random.Random(1))


def attempted(outcome: Outcome, site: str = "google.com", took_s: float = 1) -> Attempted:
    hop = Hop("mx.google.com", "192.0.2.1", site=site)
    return Attempted(hop, outcome, NOW, NOW + timedelta(seconds=took_s), "")


def test_a_site_grows_by_one_place_for_each_full_set_that_was_delivered() -> None:
    assert after(MET, Seen(delivered=7, answered=7)) is MET
    assert after(MET, Seen(delivered=8, answered=8)).places == 9


def test_it_never_grows_beyond_its_profile_and_then_changes_nothing() -> None:
    full = replace(MET, places=16)
    assert after(replace(MET, places=15), Seen(delivered=100, answered=100)).places == 16
    assert after(full, Seen(delivered=100, answered=100)) is full


def test_an_operators_bound_holds_in_place_of_the_profiles() -> None:
    assert after(replace(MET, places=3, most_places=3), Seen(delivered=50, answered=50)).places == 3
    assert after(replace(MET, places=16, most_places=40), Seen(delivered=16, answered=16)).places == 17


def test_a_first_request_to_slow_down_halves_its_places_and_says_why() -> None:
    slowed = after(MET, Seen(delivered=3, answered=4, slow_down=SLOWER))
    assert (slowed.places, slowed.strikes, slowed.suspended_until) == (4, 1, None)
    assert slowed.reason == f"google.com asked us to slow down: {SLOWER}" and slowed.last_reply == SLOWER


def test_answers_to_what_was_under_way_then_are_the_same_request() -> None:
    slowed = after(MET, Seen(answered=1, slow_down=SLOWER))
    assert after(slowed, Seen(answered=1, slow_down=SLOWER), seconds=5) is slowed


def test_who_asks_again_is_left_alone_for_minutes_that_double_up_to_a_bound() -> None:
    pace, at, rests = MET, 0.0, []
    for _ in range(9):
        pace = after(pace, Seen(answered=1, slow_down=SLOWER), seconds=at)
        if pace.suspended_until is not None:
            rests.append((pace.suspended_until - NOW).total_seconds() - at)
            at += rests[-1]
        at += 11
    assert pace.places == 1
    for rest, want in zip(rests, [60, 120, 240, 480, 960, 1800, 1800, 1800], strict=True):
        assert want * 0.9 <= rest <= want * 1.1


def test_while_a_site_rests_nothing_changes_its_end() -> None:
    resting = replace(MET, suspended_until=NOW + timedelta(minutes=5), reason="x")
    for seen in (Seen(delivered=9, answered=9), Seen(answered=1, slow_down=SLOWER), Seen(missed=9)):
        assert after(resting, seen) is resting


def test_after_a_calm_while_it_grows_again_and_the_next_request_is_the_first() -> None:
    slowed = after(MET, Seen(answered=1, slow_down=SLOWER))
    assert after(slowed, Seen(delivered=4, answered=4), seconds=paces.CALM_S - 1) is slowed
    calm = after(slowed, Seen(delivered=4, answered=4), seconds=paces.CALM_S + 1)
    assert (calm.places, calm.strikes, calm.reason) == (5, 0, "")


def test_a_long_rest_is_no_calm_while() -> None:
    end = NOW + timedelta(seconds=900)
    rested = replace(MET, strikes=5, slowed_at=NOW, suspended_until=end, reason="x")
    assert after(rested, Seen(delivered=2, answered=2), seconds=901).strikes == 5
    assert after(rested, Seen(answered=1, slow_down=SLOWER), seconds=901).strikes == 6


def test_hosts_that_nobody_reaches_rest_shortly_so_that_they_hold_no_places() -> None:
    gone = Seen(missed=1, missed_text="connect: timed out")
    pace = after(after(MET, gone), gone)
    assert pace.suspended_until is None and pace.misses == 2
    pace = after(pace, gone)
    assert pace.suspended_until is not None and not pace.proven and pace.places == 4
    assert (pace.suspended_until - NOW).total_seconds() <= 66
    assert pace.reason == "google.com cannot be reached: connect: timed out"


def test_a_batch_of_misses_is_one_step_and_the_rests_are_bounded() -> None:
    pace, at = MET, 0.0
    for _ in range(12):
        pace = after(pace, Seen(missed=200, missed_text="refused"), seconds=at)
        assert pace.suspended_until is not None
        rest = (pace.suspended_until - NOW).total_seconds() - at
        assert rest <= paces.LONGEST_MISS_REST_S * 1.1
        at += rest + 1
    back = after(pace, Seen(delivered=1, answered=1, took_s=1), seconds=at)
    assert back.proven and back.misses == 0 and back.suspended_until is None and back.reason == ""


def test_a_tar_pit_that_answers_after_long_is_not_proven_and_is_again_when_it_hurries() -> None:
    dragging = after(MET, Seen(delivered=1, answered=1, took_s=120))
    assert not dragging.proven
    assert after(dragging, Seen(delivered=1, answered=1, took_s=2)).proven


def test_a_refusal_by_our_own_relay_rests_the_route_unless_it_takes_other_mail() -> None:
    refused = Seen(answered=1, our_route="535 5.7.8 authentication failed")
    resting = next_pace("relay.example", MET, PROFILE, refused, NOW, random.Random(1))
    assert resting.suspended_until and resting.reason.startswith("Our route relay.example refused us: 535")
    assert resting.places == MET.places
    assert after(MET, replace(refused, delivered=1, answered=2)).suspended_until is None


def test_a_pause_by_a_person_ends_with_its_time_and_then_the_site_speaks_for_itself() -> None:
    paused = replace(MET, paused_by="ann", suspended_until=NOW + timedelta(minutes=1), reason="maintenance")
    assert after(paused, Seen(answered=1, slow_down=SLOWER)) is paused
    assert after(paused, Seen(delivered=1, answered=1), seconds=61).paused_by == ""


def test_the_receiver_lab_is_never_slowed_or_left_alone() -> None:
    lab = profile_of("sandbox")
    pace = first_pace(lab)
    for n in range(5):
        pace = after(pace, Seen(answered=1, slow_down="421 4.7.0 slow down"), seconds=20 * n, profile=lab)
        pace = after(pace, Seen(missed=5), seconds=20 * n + 15, profile=lab)
    assert (pace.places, pace.suspended_until, pace.proven) == (lab.most, None, True)


def test_a_round_that_reached_the_second_host_did_not_miss_the_site() -> None:
    dead = attempted(Broken(Stage.CONNECT, Category.NETWORK, "refused"))
    good = attempted(Replied(Stage.DOT, Reply(250, ("2.0.0 ok",))))
    seen = observe([[(a, classify(a.outcome)) for a in (dead, good)]])["google.com"]
    assert (seen.delivered, seen.answered, seen.missed, seen.took_s) == (1, 1, 0, 2)
    assert observe([[(dead, classify(dead.outcome))] * 5])["google.com"].missed == 1


@pytest.mark.parametrize("outcome", [
    Broken(Stage.RCPT, Category.NETWORK, "reset"),
    Broken(Stage.STARTTLS, Category.TLS, "bad certificate"),
])  # fmt: skip
def test_a_host_that_breaks_off_later_is_there(outcome: Broken) -> None:
    tried = attempted(outcome)
    assert observe([[(tried, classify(outcome))]])["google.com"].answered == 1


@pytest.mark.parametrize("line", [
    "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail",
    "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints",
    "421 4.7.0 Too many connections from your host",
])  # fmt: skip
def test_what_providers_say_in_a_storm_is_heard_as_a_request_to_slow_down(line: str) -> None:
    code, text = line.split(" ", 1)
    outcome = Replied(Stage.MAIL, Reply(int(code), (text,)))
    seen = observe([[(attempted(outcome), classify(outcome))]])["google.com"]
    assert seen.slow_down == line


# --- profiles ---------------------------------------------------------------------------------------------------


def test_every_profile_names_the_source_of_its_numbers() -> None:
    for site in (*trusted_sites(), "anything.example"):
        profile = profile_of(site)
        assert profile.source and 1 <= profile.least <= profile.start <= profile.most
    assert profile_of("yahoodns.net").messages_per_connection == 20


def test_a_doubled_site_or_an_unknown_key_is_refused() -> None:
    default = {"start": 1, "most": 2, "messages_per_connection": 1, "rate_per_minute": 0, "source": "x"}
    row = {"name": "n", "site": ["a.test"], **default}
    for wrong in ([row, row], [{**row, "colour": 1}], [{**row, "start": 3}]):
        with pytest.raises(ValueError):
            parse_providers({"default": default, "provider": wrong})


# --- parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_the_parts_of_all_processes_add_up_to_the_places(processes: int) -> None:
    for places in (0, 1, 5, 20, 50):
        assert sum(part(places, rank, processes, "google.com") for rank in range(processes)) == places


def test_single_places_of_many_sites_are_spread_over_the_processes() -> None:
    taken = [sum(part(1, rank, 4, f"site{n}.test") for n in range(400)) for rank in range(4)]
    assert sum(taken) == 400 and min(taken) > 60


def test_a_rate_lets_a_burst_go_and_then_its_share_of_each_second() -> None:
    meter = Meter(BURST_S)
    assert meter.grant("a", 600, 1000, 0.0).n == 50  # 5 s worth
    assert meter.grant("a", 600, 10, 0.0).n == 0
    assert meter.grant("a", 600, 100, 1.0).n == 10
    assert meter.grant("a", 600, -4, 1.0).n == -4 and meter.grant("a", 600, 100, 1.0).n == 4
    assert meter.grant("slow", 6, 5, 0.0).n == 1  # one at a time, however low the rate
