"""Beat rings and workers answer, whatever happens to the clocks of their hosts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from kombu.utils.imports import symbol_by_name

from mailapi import celery as engine
from mailapi.clocks import APART, Bell, Scheduler

HOURS = timedelta(hours=2)


@dataclass
class Clock:
    now: datetime


def beat(folder: Path) -> Scheduler:
    app = Celery("clocks", set_as_current=False)
    app.conf.beat_schedule = {name: {"task": name, "schedule": every} for name, every in (("a", 1.0), ("b", 5.0))}
    return Scheduler(app=app, schedule_filename=str(folder / "schedule"))


def rung(scheduler: Scheduler, clock: Clock, seconds: int) -> set[str]:
    names: set[str] = set()
    scheduler.apply_entry = lambda entry, producer: names.add(entry.task)
    for _ in range(seconds):
        clock.now += timedelta(seconds=1)
        while scheduler.tick() == 0:
            pass
    return names


def test_beat_rings_on_when_its_clock_is_set_back_and_when_it_is_started_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert symbol_by_name(engine.app.conf.beat_scheduler) is Scheduler
    monkeypatch.setattr(Scheduler, "producer", None)
    clock = Clock(datetime.now(UTC))
    monkeypatch.setattr(Celery, "now", lambda app: clock.now)
    scheduler = beat(tmp_path)
    assert rung(scheduler, clock, 6) >= {"a", "b"}
    clock.now -= HOURS
    assert rung(scheduler, clock, 6) >= {"a", "b"}
    clock.now += HOURS
    assert rung(scheduler, clock, 6) >= {"a", "b"}
    scheduler.close()
    clock.now -= HOURS
    scheduler = beat(tmp_path)
    assert rung(scheduler, clock, 6) >= {"a", "b"}
    scheduler.close()


def test_a_bell_from_a_host_whose_clock_is_somewhat_behind_is_heard() -> None:
    assert symbol_by_name(engine.app.Task.Request) is Bell
    for ago, ended in ((timedelta(0), False), (APART / 2, False), (2 * APART, True)):
        bell = object.__new__(Bell)
        bell._expires, bell.id = datetime.now(UTC) - ago, "a bell"
        assert bell.maybe_expire() is ended
    bell._expires = None
    assert not bell.maybe_expire()
