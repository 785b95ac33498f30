"""Backup, more mail, a crash, a restore: what is said of every mail then is true, and nothing leaves twice unasked.

RESTORE_MAILS=1000 is the full size; the default is short.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest

from mailapi.up import postgres
from tests.fakes.town import Town

MAILS = int(os.environ.get("RESTORE_MAILS", "100"))
DELIVER = ("deliver1", "deliver2")
PARTS = ("web", "smtpd", "beat", "jobs", *DELIVER)


@pytest.fixture
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    town = Town(lease_s=30)
    town.parts = getattr(request, "param", town.parts)
    try:
        town.env["MAILAPI_VAR"] = str(town.folder / "var")
        (town.folder / "var").mkdir()
        town.build()
        yield town
    finally:
        town.tear_down()


def send(town: Town, many: int, subject: str, who: str = "delivered", **more: str) -> list[str]:
    mails = [
        {"from": town.sender, "to": f"{who}+{subject}{n}@simulator.test", "subject": subject, "text": "x", **more}
        for n in range(many)
    ]
    return [i for k in range(0, many, 100) for i in town.post_batch(mails[k : k + 100], key=f"{subject}-{k}")]


def copies(town: Town, ids: list[str], message_ids: dict[str, str]) -> Counter[int]:
    taken = town.copies()
    return Counter(taken[message_ids[i]] for i in ids)


def names(town: Town) -> dict[str, str]:
    """Message → its Message-ID."""
    return {str(i): m for i, m in town.sql("SELECT id, message_id FROM message")}


def settled(town: Town) -> Counter[str]:
    """What the lab has taken, once it has taken what the dead had still written."""
    before, now = None, town.copies()
    while before != now:
        time.sleep(2)
        before, now = now, town.copies()
    return now


def waits(town: Town, status: str) -> int:
    return int(town.sql("SELECT count(*) FROM delivery WHERE status = %s", status)[0][0])


def event(town: Town, ident: str) -> str:
    """What GET /emails/{id} says."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{town.web_port}/emails/{ident}", headers={"Authorization": f"Bearer {town.key}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["last_event"])


def kill_all(town: Town) -> None:
    for name in PARTS:
        town.kill9(name)


def start_all(town: Town) -> None:
    for name in town.parts:
        if name not in town.procs:
            town.start(name)
    town.until(lambda: town.answers(town.web_port), "web is back")


def test_after_a_restore_nothing_leaves_twice_before_somebody_was_asked(town: Town) -> None:
    backups = town.folder / "backups"
    done = send(town, MAILS, "done")
    town.until(lambda: waits(town, "delivered") == MAILS, "the first mails are delivered")
    later = send(town, 5, "later", scheduled_at="in 3 hours")
    # what waits at the backup, and is sent after it: the danger
    for name in DELIVER:
        town.stop(name)
    waiting = send(town, MAILS, "waiting")
    town._manage("backup", str(backups))
    for name in DELIVER:
        town.start(name)
    town.until(lambda: waits(town, "delivered") == 2 * MAILS, "what waited is delivered after the backup", 240)
    since = send(town, MAILS, "since")
    message_ids = names(town)
    town.until(lambda: copies(town, since, message_ids)[1] > 0, "more mail is under way")
    kill_all(town)
    at_the_crash = settled(town)

    good = town._manage("rehearse", str(backups))
    assert good.startswith("good: ") and f"{MAILS + 5} deliveries waiting" in good, good

    postgres.ask(town._url("postgres"), "DROP DATABASE mailapi WITH (FORCE)", 120)
    postgres.make_database(town._url("postgres"), "mailapi")
    town._manage("restore", str(backups))
    start_all(town)
    town.until(
        lambda: "nothing is sent until a person answers" in town.said("deliver1") + town.said("deliver2"), "asked"
    )
    fresh = send(town, 3, "fresh")  # accepted meanwhile, and sent once somebody has answered
    assert waits(town, "queued") >= MAILS + 3 and town.copies() == at_the_crash

    assert f"{MAILS} deliveries" in town._manage("restored", "hold")
    town.until(lambda: waits(town, "delivered") == MAILS + 3, "what was accepted since the restore is delivered")
    assert waits(town, "held") == MAILS and waits(town, "scheduled") == 5
    reasons = town.sql("SELECT DISTINCT reason FROM delivery WHERE status = 'held'")
    assert len(reasons) == 1 and "was restored" in reasons[0][0] and "may have been sent since" in reasons[0][0]
    assert [event(town, i) for i in (done[0], later[0], waiting[0], fresh[0])] == [
        "delivered", "scheduled", "queued", "delivered",
    ]  # fmt: skip
    taken = settled(town)
    assert {i: taken[m] for i, m in message_ids.items()} == {i: at_the_crash[m] for i, m in message_ids.items()}

    town._manage("restored", "release", "--all")
    town.until(lambda: waits(town, "delivered") == 2 * MAILS + 3, "what was released is delivered")
    settled(town)
    assert copies(town, waiting, message_ids) == {2: MAILS}
    told = town.sql("SELECT count(*) FROM delivery WHERE duplicate_possible")[0][0]
    assert told == MAILS  # each of them says that it may have arrived twice, and no other
    assert copies(town, done, message_ids) == {1: MAILS}


def status(town: Town) -> tuple[bool, str]:
    """What `manage.py restored` says: whether mail may leave, and why not."""
    said = json.loads(town._manage("restored", "status", "--json").splitlines()[0])
    return said["fit"], said["why"]


@pytest.mark.parametrize("town", [("web", "jobs", "beat")], indirect=True)
def test_a_copied_data_directory_and_a_recovery_are_noticed_by_themselves(town: Town) -> None:
    """Nobody runs `restore` here: Postgres' own files are set back, and then recovered to another timeline."""
    data, copy = town.place.data, town.folder / "copy"

    def beats() -> int:
        return int(town.sql("SELECT coalesce(max(beats), 0) FROM installation")[0][0])

    def count_to(number: int) -> bool:
        town.ring("sweep")
        return beats() >= number

    def stop_all() -> None:
        for name in (*town.parts, "postgres"):
            town.stop(name)

    town.until(lambda: count_to(2), "the sweeper counts", 240)
    stop_all()
    subprocess.run(["cp", "-a", str(data), str(copy)], check=True)
    town.revive_postgres()
    at_the_copy = beats()
    start_all(town)
    town.until(lambda: count_to(at_the_copy + 2), "it counts on", 240)
    assert status(town) == (True, "")
    stop_all()
    shutil.rmtree(data)
    copy.rename(data)
    town.flush_broker()  # Valkey may be lost in the same night; the host has its file
    town.revive_postgres()
    assert beats() == at_the_copy
    fit, why = status(town)
    assert not fit and "beats further" in why
    town._manage("restored", "nothing-lost")
    assert status(town) == (True, "")

    town.stop("postgres")
    (data / "recovery.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    town.revive_postgres()
    town.until(lambda: not town.sql("SELECT pg_is_in_recovery()")[0][0], "the recovery has ended")
    fit, why = status(town)
    assert not fit and "another place" in why
