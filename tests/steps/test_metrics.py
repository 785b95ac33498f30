"""GET /metrics: what Prometheus reads, and that nobody else does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from django.db import connection
from django.test import Client
from django.utils import timezone
from kombu.asynchronous.timer import Timer
from prometheus_client.parser import text_string_to_metric_families

from deliveries import counters, metrics, valkey
from deliveries.alerts.judge import Kind
from deliveries.canary import METRICS
from deliveries.models import Destination, Queued
from deliveries.record import figures, operator
from mailapi.celery import Lives
from tests.fakes.house import build

pytestmark = pytest.mark.django_db(transaction=True)
DOCKER = Path(__file__).resolve().parents[2] / "docker"


def look(settings) -> dict[tuple[str, ...], float]:
    settings.METRICS_TOKEN = "hush"
    answer = Client().get("/metrics", headers={"Authorization": "Bearer hush"})
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.content.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_nobody_reads_them_without_the_token(settings) -> None:
    assert Client().get("/metrics").status_code == 404
    settings.METRICS_TOKEN = "hush"
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "hush"}, {"Authorization": "Bearer é"}):
        assert Client().get("/metrics", headers=header).status_code == 401


def test_mail_is_counted_once_however_often_it_is_asked_for(settings, monkeypatch) -> None:
    monkeypatch.setattr(figures, "SETTLE_S", 0)
    before = look(settings)
    house = build()
    deliveries = [house.send(f"n{n}@one.test")[0] for n in range(3)]
    operator.cancel([deliveries[0].id], "test")
    figures.tally()
    after = look(settings)
    accepted = ("mailapi_mail_total", "accepted")
    assert after[accepted] - before[accepted] == 3
    assert look(settings)[accepted] == after[accepted]
    assert after["mailapi_queue_waiting",] == Queued.objects.count() == 2


def test_the_age_of_what_is_due_grows_and_what_is_not_due_has_none(settings) -> None:
    house = build()
    house.send("a@one.test", scheduled_at=timezone.now() + timedelta(hours=1))
    assert look(settings)["mailapi_queue_oldest_due_seconds", "normal"] == 0
    house.send("a@one.test")
    Destination.objects.update(next_due=timezone.now() - timedelta(seconds=90))
    assert 90 <= look(settings)["mailapi_queue_oldest_due_seconds", "normal"] < 600


def test_what_every_process_counts_is_added_up(settings) -> None:
    name = ("mailapi_bells_failed_total",)
    before = look(settings)
    counters.BELLS_FAILED.inc(3)
    assert counters.flush()
    script = (
        "import django; django.setup(); from deliveries import counters, valkey\n"
        "valkey.PATIENCE_S = 60  # on a busy machine it may not answer at once; asked twice, it would count twice\n"
        "counters.BELLS_FAILED.inc(); assert counters.flush()"
    )
    env = {**os.environ, "DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "mailapi.settings"}
    subprocess.run([sys.executable, "-c", script], env=env, cwd=DOCKER.parent, check=True, timeout=120)
    after = look(settings)
    assert after[name] - before[name] == 4
    assert after["mailapi_valkey_answers",] == 1


def test_what_valkey_does_not_take_waits_and_is_not_told_as_zero(settings, monkeypatch) -> None:
    counters.flush()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    valkey.client.cache_clear()
    try:
        counters.LOGS_DROPPED.inc(2)
        assert not counters.flush()
        away = look(settings)
        assert away["mailapi_valkey_answers",] == 0
        assert ("mailapi_request_logs_dropped_total",) not in away
        assert counters.LOGS_DROPPED.take() == 2
    finally:
        valkey.client.cache_clear()


def database_url() -> str:
    db = connection.settings_dict
    return f"postgres://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}"


def test_alerts_and_dashboard_ask_for_metrics_that_exist(settings) -> None:
    known = {name for name, *_ in look(settings)} | set(METRICS)
    rules = yaml.safe_load((DOCKER / "monitoring" / "alerts.yml").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    panels = json.loads((DOCKER / "monitoring" / "grafana.json").read_text())["panels"]
    asked += [target["expr"] for panel in panels for target in panel["targets"]]
    for expression in asked:
        names = set(re.findall(r"mailapi_\w+", expression))
        assert names <= known, expression
    assert all(rule["annotations"]["what_to_do"] for group in rules["groups"] for rule in group["rules"])


def test_every_alert_stands_in_the_table_of_operations() -> None:
    rules = yaml.safe_load((DOCKER / "monitoring" / "alerts.yml").read_text())
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    table = re.findall(r"(?m)^\| `(\w+)` \| [^|]{10,} \| [^|]{8,} \|$", operations())
    assert names <= set(table), names - set(table)
    assert set(table) == names | {kind.value for kind in Kind}


def operations() -> str:
    return (DOCKER.parent / "docs" / "operations.md").read_text().partition("## Alerts")[2].partition("\n## ")[0]


def test_two_installations_on_one_valkey_do_not_take_each_others_life_for_theirs(settings, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "_said", {})
    metrics.alive("neighbour")
    assert metrics.signs(("neighbour",)) == {"neighbour"}
    assert metrics.mark("neighbour", 60) is True and metrics.mark("neighbour", 60) is False
    ours = settings.SECRET_KEY
    settings.SECRET_KEY = "of another house"
    assert metrics.signs(("neighbour",)) == set()
    assert metrics.unmark("neighbour") is False
    settings.SECRET_KEY = ours
    assert metrics.unmark("neighbour") is True


def test_a_worker_says_that_it_lives_while_its_consumer_runs(settings, monkeypatch) -> None:
    settings.ROLE = "jobs"
    monkeypatch.setattr(metrics, "_said", {})
    consumer = SimpleNamespace(timer=Timer())
    lives = Lives(consumer)
    lives.stop(consumer)  # the broker was away from the start
    lives.start(consumer)
    assert metrics.signs(("jobs",)) == {"jobs"}
    (saying,) = (scheduled.entry for scheduled in consumer.timer.queue)
    lives.stop(consumer)
    assert saying.canceled
