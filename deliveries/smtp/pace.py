"""How fast a site is served: what is known of it and what it said → how it is served from now on. Pure.

    seen = observe(rounds)                                 what a batch of rounds said, by site
    pace = next_pace(name, pace, profile, seen[name], now) the same object where nothing changes

Places (transactions at a time) grow by one for each full set of places that was delivered, as TCP's window does,
and halve when the site asks for less (421, 4.7.x). Who goes on asking is left alone for a while: minutes that
double, with a bound and jitter. Every pause has a reason in words and an end.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from deliveries.smtp.outcome import Attempted, Broken, Replied, Stage, Verdict
from deliveries.smtp.providers import Profile
from deliveries.states import Category, Status

#: replies that ask for less within this time of the last step belong to it: they answer what was under way then
STORM_S = 10.0
#: so long after the last request to slow down nothing grows
CALM_S = 300.0
#: the second request in a row is followed by such a pause, doubled for each one more
FIRST_REST_S = 60.0
#: rounds in a row that reached none of a site's hosts, after which it is left alone for a minute
MISSES = 3
#: bound of the pauses for hosts that are not reached: mail to a host that came back waits no longer
LONGEST_MISS_REST_S = 300.0
#: a transaction that takes longer on average holds its place like a tar-pit does
SLOW_S = 20.0
#: the longest quotation of a peer in a reason
_QUOTE = 200

_BEFORE_MAIL = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS})


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of a site. `most_places` is an operator's bound; `paused_by` names who paused it, else empty."""

    places: int
    proven: bool = False
    misses: int = 0
    strikes: int = 0
    slowed_at: datetime | None = None
    suspended_until: datetime | None = None
    reason: str = ""
    last_reply: str = ""
    most_places: int | None = None
    paused_by: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What rounds with one site said. A round missed it where none of its hosts could be reached."""

    delivered: int = 0
    answered: int = 0
    missed: int = 0
    took_s: float = 0.0  #: summed over `answered + missed`
    slow_down: str = ""  #: the last reply that asked for less
    our_route: str = ""  #: the last refusal of ourselves by our own relay
    missed_text: str = ""


def first_pace(profile: Profile) -> Pace:
    """A site that was never met."""
    return Pace(places=profile.start, proven=profile.trusted)


def observe(rounds: Iterable[Sequence[tuple[Attempted, Verdict]]]) -> dict[str, Seen]:
    """By site (`Hop.site`); transactions with hops that name none are left out."""
    seen: dict[str, Seen] = {}
    for tries in rounds:
        of_round: dict[str, Seen] = {}
        for attempted, verdict in tries:
            if site := attempted.hop.site:
                of_round[site] = _add_try(of_round.get(site, Seen()), attempted, verdict)
        for site, one in of_round.items():
            at = seen.get(site, Seen())
            reached = one.answered > 0
            seen[site] = Seen(
                at.delivered + one.delivered,
                at.answered + reached,
                at.missed + (not reached),
                at.took_s + one.took_s,
                one.slow_down or at.slow_down,
                one.our_route or at.our_route,
                one.missed_text or at.missed_text,
            )
    return seen


def _add_try(at: Seen, attempted: Attempted, verdict: Verdict) -> Seen:
    outcome = attempted.outcome
    # what broke later, or by TLS, came from a host that is there
    missed = isinstance(outcome, Broken) and outcome.stage in _BEFORE_MAIL and outcome.cause is Category.NETWORK
    return Seen(
        at.delivered + (verdict.status is Status.DELIVERED),
        at.answered + (not missed),
        at.missed + missed,
        at.took_s + max((attempted.finished_at - attempted.started_at).total_seconds(), 0.0),
        _quoted(verdict.text) if verdict.slow_down and isinstance(outcome, Replied) else at.slow_down,
        _quoted(verdict.text) if verdict.our_route else at.our_route,
        _quoted(verdict.text) if missed else at.missed_text,
    )


def _quoted(text: str) -> str:
    return text if len(text) <= _QUOTE else text[:_QUOTE].rstrip() + "…"


def next_pace(
    name: str, pace: Pace, profile: Profile, seen: Seen, now: datetime, rng: random.Random | None = None
) -> Pace:
    """What `seen` makes of `pace`: the same object where nothing changes, so that nothing is written."""
    if pace.suspended_until and pace.suspended_until > now:
        return pace  # what ends now was under way before; the end stands, a person's above all
    if pace.paused_by:
        pace = replace(pace, paused_by="")
    if seen.our_route and not seen.delivered:
        return _route_refused(name, pace, profile, seen, now, rng)
    if seen.slow_down:
        return _slowed(name, pace, profile, seen, now, rng)
    if not seen.answered:
        return _missed(name, pace, profile, seen, now, rng)
    return _answered(pace, profile, seen, now)


def _route_refused(
    name: str, pace: Pace, profile: Profile, seen: Seen, now: datetime, rng: random.Random | None
) -> Pace:
    strikes = pace.strikes + 1
    return replace(
        pace,
        proven=True,
        misses=0,
        strikes=strikes,
        slowed_at=now,
        suspended_until=_until(FIRST_REST_S * 2 ** (strikes - 1), profile.longest_rest_s, now, rng),
        reason=f"Our route {name} refused us: {seen.our_route}",
        last_reply=seen.our_route,
    )


def _slowed(name: str, pace: Pace, profile: Profile, seen: Seen, now: datetime, rng: random.Random | None) -> Pace:
    if pace.slowed_at and now - pace.slowed_at < timedelta(seconds=STORM_S):
        return pace
    strikes = pace.strikes + 1
    places = max(profile.least, pace.places // 2)
    # the first request makes it slower; who asks again, or has one place only, is left alone
    rest_s = FIRST_REST_S * 2 ** max(strikes - 2, 0) if strikes > 1 or places == pace.places else 0.0
    return replace(
        pace,
        places=places,
        proven=True,
        misses=0,
        strikes=strikes,
        slowed_at=now,
        suspended_until=_until(rest_s, profile.longest_rest_s, now, rng),
        reason=f"{name} asked us to slow down: {seen.slow_down}",
        last_reply=seen.slow_down,
    )


def _missed(name: str, pace: Pace, profile: Profile, seen: Seen, now: datetime, rng: random.Random | None) -> Pace:
    misses = pace.misses + min(seen.missed, MISSES)  # one step at a time: a batch is one moment
    if misses // MISSES == pace.misses // MISSES:
        return replace(pace, misses=misses, proven=pace.proven and not drags(seen))
    rest_s = FIRST_REST_S * 2 ** min(misses // MISSES - 1, 10)
    return replace(
        pace,
        places=max(profile.least, pace.places // 2),
        proven=profile.longest_rest_s == 0,
        misses=misses,
        suspended_until=_until(rest_s, min(profile.longest_rest_s, LONGEST_MISS_REST_S), now, rng),
        reason=f"{name} cannot be reached: {seen.missed_text}",
    )


def _answered(pace: Pace, profile: Profile, seen: Seen, now: datetime) -> Pace:
    proven, misses = not drags(seen) or profile.longest_rest_s == 0, 0
    most = pace.most_places or profile.most
    since = max(filter(None, (pace.slowed_at, pace.suspended_until)), default=now)
    calm = pace.slowed_at is None or now - since > timedelta(seconds=CALM_S)
    places, strikes, slowed_at = pace.places, pace.strikes, pace.slowed_at
    reason, until = pace.reason, pace.suspended_until
    if seen.delivered >= places and calm and places < most:
        places = min(most, places + max(1, seen.delivered // places))
    if seen.delivered and calm and slowed_at is not None:
        # it took mail for so long without asking again: the next request counts as the first
        strikes, slowed_at, reason = 0, None, ""
    if until is not None and seen.delivered and slowed_at is None:
        until, reason = None, ""  # the pause is over, and it takes mail again
    if (proven, misses, places, strikes, slowed_at, until, reason) == (
        pace.proven, pace.misses, pace.places, pace.strikes, pace.slowed_at, pace.suspended_until, pace.reason,
    ):  # fmt: skip
        return pace
    return replace(
        pace, proven=proven, misses=misses, places=places, strikes=strikes, slowed_at=slowed_at,
        suspended_until=until, reason=reason,
    )  # fmt: skip


def drags(seen: Seen) -> bool:
    """Whether its answers took so long that it holds places as a tar-pit does."""
    return seen.took_s > SLOW_S * (seen.answered + seen.missed)


def _until(rest_s: float, longest_s: float, now: datetime, rng: random.Random | None) -> datetime | None:
    """The end of a pause, a tenth earlier or later; None where there is none."""
    rest_s = min(rest_s, longest_s)
    if rest_s <= 0:
        return None
    return now + timedelta(seconds=rest_s * (rng or random).uniform(0.9, 1.1))
