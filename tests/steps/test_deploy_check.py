"""manage.py deploy_check, on the database of the tests."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from deliveries import metrics
from deliveries.models import Destination
from tests.fakes.house import build

pytestmark = pytest.mark.django_db(transaction=True)


def told(code: int) -> dict[str, dict[str, str]]:
    out = StringIO()
    if code:
        with pytest.raises(SystemExit) as ended:
            call_command("deploy_check", "--json", stdout=out)
        assert ended.value.code == code
    else:
        call_command("deploy_check", "--json", stdout=out)
    return {row["name"]: row for row in map(json.loads, out.getvalue().splitlines())}


@pytest.fixture(autouse=True)
def _fit(settings, monkeypatch) -> None:
    settings.SECRET_KEY = "k" * 50
    monkeypatch.setattr(metrics, "living", set)


def test_an_installation_that_works_passes() -> None:
    found = told(0)
    assert found["Database"]["tone"] == found["Work"]["tone"] == "good"


def test_a_dead_worker_late_mail_and_weak_secrets_are_bad(settings, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "living", lambda roles: {"jobs"})
    settings.SECRET_KEY = "short"
    build().send("a@one.test")
    Destination.objects.update(next_due=timezone.now() - timedelta(seconds=90))
    found = told(1)
    assert {name for name, row in found.items() if row["tone"] == "missing"} >= {"Workers", "Queue", "SECRET_KEY"}
    assert all(row["advice"] for row in found.values() if row["tone"] == "missing")
