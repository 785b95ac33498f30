"""Two beats on one broker, as on two hosts: everything is rung for twice, and nothing happens twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from mailapi.up import serve
from tests.fakes.receiver import receiver
from tests.fakes.town import Town

SCHEDULED, GOOD, REFUSED = 20, 60, 60


class TwoBeats(Town):
    parts = ("lab", "smtpd", "web", "deliver1", "deliver2", "jobs", "jobs2", "beat", "beat2")

    def _command(self, name: str) -> tuple[tuple[str, ...], str]:
        match name:
            case "beat" | "beat2":
                return serve.beat(str(self.folder / name)), "beat"
            case "jobs2":
                return serve.jobs(name), "jobs"
        return super()._command(name)

    def rings_alone(self, name: str) -> None:
        """Waits until this beat has rung while the other one stands still."""
        (other,) = {"beat", "beat2"} - {name}
        sign, keys = redis.Redis.from_url(self.redis_url), set[bytes]()

        def gives_a_sign() -> bool:
            keys.update(sign.keys("mailapi:*:alive:beat"))
            return bool(keys)

        self.until(gives_a_sign, "a beat rings")
        self.signal(other, signal.SIGSTOP)
        try:
            time.sleep(1)  # what it had rung for before
            (key,) = keys
            sign.delete(key)
            self.until(lambda: bool(sign.exists(key)), f"{name} rings alone")
            sign.close()
        finally:
            self.signal(other, signal.SIGCONT)

    def signal(self, name: str, number: signal.Signals) -> None:
        guard = self.procs[name].pid
        (part,) = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
        os.kill(int(part), number)


@pytest.fixture
def town() -> Iterator[TwoBeats]:
    town = TwoBeats(BRAKES="1", WEBHOOK_ALLOW_PRIVATE="1")
    try:
        town.build()
        yield town
    finally:
        town.tear_down()


def test_what_two_beats_ring_for_happens_once(town: TwoBeats) -> None:
    with receiver() as hook:
        town._post("/webhooks", {"endpoint": hook.url(), "events": []}, key="hook")
        scheduled = set()
        for n in range(SCHEDULED):  # one after the other: a batch has no scheduled mail
            at = datetime.now(UTC) + timedelta(seconds=10)  # one that had passed would be sent as any other
            scheduled.add(town.post(_mail(town, f"delivered+s{n}", scheduled_at=at.isoformat()), key=f"s{n}"))
        town.post_batch([_mail(town, f"delivered+{n}") for n in range(GOOD)], key="good")
        town.post_batch([_mail(town, f"bounced+{n}") for n in range(REFUSED)], key="bad")
        town.rings_alone("beat")
        town.rings_alone("beat2")
        for _ in range(4):
            town.ring("housekeeping")
        town.until(lambda: town.sql("SELECT count(*) FROM brake")[0][0] > 0, "the brake is pulled")
        # what the brake holds goes on when a person says so
        town.execute("UPDATE site SET suspended_until = NULL, paused_by = ''")
        town.execute("UPDATE destination SET next_due = now()")
        done = "SELECT count(*) FROM delivery WHERE settled_at IS NOT NULL"
        town.until(lambda: town.sql(done)[0][0] == SCHEDULED + GOOD + REFUSED, "every mail ends", 240)
        town.kill9("beat")
        last = town.post(_mail(town, "delivered+last"), key="last")
        status = "SELECT status FROM delivery WHERE message_id = %s"
        town.until(lambda: town.sql(status, last)[0][0] == "delivered", "one beat is enough")
        pending = "SELECT count(*) FROM webhook_delivery WHERE state = 'pending'"
        town.until(lambda: town.sql(pending)[0][0] == 0, "every webhook is told", 240)
        posted = Counter(came.headers["webhook-id"] for came in hook.came)
    events = town.sql("SELECT type, count(*) FROM event GROUP BY type")
    assert set(posted.values()) == {1} and len(posted) == town.sql("SELECT count(*) FROM webhook_delivery")[0][0]
    # the lab writes down what it took a moment after its 250
    town.until(lambda: len(town.copies()) == SCHEDULED + GOOD + 1, "all of it was taken")
    assert set(town.copies().values()) == {1}
    sent = town.sql("SELECT id::text FROM message WHERE scheduled_at IS NOT NULL")
    assert {row[0] for row in sent} == scheduled
    # one alert: one brake, one entry of the audit log, one event
    assert town.sql("SELECT count(*) FROM brake")[0][0] == 1
    assert town.sql("SELECT count(*) FROM audit_entry WHERE action = 'brake.pulled'")[0][0] == 1
    assert dict(events)["site.held"] == 1
    # each event counts once for its tenant, and once for everybody
    counted = "SELECT count, count(*) FROM hour_tally WHERE what = 'delivered' GROUP BY count"
    town.until(lambda: town.sql(counted) == [(SCHEDULED + GOOD + 1, 2)], "the figures are what happened")
    for name in ("jobs", "jobs2"):
        assert "Traceback" not in town.said(name), town.said(name)[-3000:]


def _mail(town: Town, who: str, **more: str) -> dict[str, str]:
    return {"from": town.sender, "to": f"{who}@simulator.test", "subject": "s", "text": "x", **more}
