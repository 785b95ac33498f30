"""The suppression list: changed with an event and an audit entry, looked up by tenant and stream."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from deliveries import prune, queue, suppress
from deliveries.deliver import jobs
from deliveries.mime.address import folded
from deliveries.models import AuditEntry, Event, IdempotencyKey, Suppression, WebhookDelivery, WebhookEndpoint
from deliveries.models.fields import uuid7
from deliveries.models.sql import execute
from deliveries.record import retention, suppressions, visits
from deliveries.record.outcomes import record
from deliveries.smtp.outcome import Verdict
from deliveries.states import Category, Status
from tests.fakes.house import House, build, known_sites
from tests.steps.test_record import result

pytestmark = pytest.mark.django_db(transaction=True)


def types(house: House) -> list[str]:
    return list(Event.objects.filter(tenant_id=house.tenant.id).order_by("id").values_list("type", flat=True))


def test_an_address_put_on_the_list_is_told_audited_and_refused_at_the_next_send() -> None:
    house = build()
    WebhookEndpoint.objects.create(tenant=house.tenant, url="https://x.test/", secret=b"s")
    row = suppressions.add(house.tenant, " Ann@One.test ", "manual", "asked by phone", "eve")
    assert (row.address, row.reason, row.detail, row.stream) == ("ann@one.test", "manual", "asked by phone", "*")
    assert suppressions.add(house.tenant.id, "ann@one.test", "import", "", "eve").id == row.id
    assert types(house) == ["suppression.added"]
    assert WebhookDelivery.objects.filter(tenant_id=house.tenant.id).count() == 1
    assert AuditEntry.objects.get(tenant=house.tenant).action == "suppression.added"
    assert house.send("ann@one.test")[0].status == "suppressed"


def test_an_address_is_the_same_in_large_letters_of_any_script() -> None:
    known_sites("one.test")
    house, large, small = build(), "JÜRGEN.ΣΊ@one.test", "jürgen.σί@one.test"
    letters = "".join(chr(c) for c in range(1, 0x2100)) + "ẞİΣßİ"
    assert folded(letters) == execute("SELECT folded_address(%(a)s) AS f", {"a": letters}).fetchone()["f"]
    (before,) = house.send(large)
    row = suppressions.add(house.tenant, large, "manual", "", "eve")
    assert row.address == small and set(suppress.find(house.tenant.id, [large])) == {large}
    lease = uuid4()
    _, (refused,) = jobs.load(queue.claim(lease, 100, 1 << 26, {}).rows, lease)
    assert (refused.delivery_id, refused.verdict.status) == (before.id, "suppressed")
    assert [house.send(a)[0].status for a in (large, small)] == ["suppressed"] * 2

    other = build()
    (left,), (bounced,) = other.send(large), other.send("Ännchen@one.test")
    visits.left(left.id)
    assert len(queue.claim(lease, 100, 1 << 26, {}).rows) == 2
    gone = Verdict(Status.BOUNCED, "gone", Category.BAD_MAILBOX, True, "5.1.1", 550, "550 5.1.1 no such user")
    record([result(bounced.id, lease, gone)])
    assert [other.send(a)[0].status for a in (large, small, "ännchen@one.test")] == ["suppressed"] * 3


def test_many_addresses_are_added_in_one_go_and_given_back_in_their_order() -> None:
    house = build()
    rows = suppressions.add_many(house.tenant, ["c@x.test", "A@x.test", "c@x.test"], "import", "", "eve", "news")
    assert [r.address for r in rows] == ["c@x.test", "a@x.test", "c@x.test"]
    assert types(house) == ["suppression.added"] * 2


def test_an_address_taken_off_the_list_gets_mail_again() -> None:
    house, other = build(), build()
    row = suppressions.add(house.tenant, "ann@one.test", "manual", "", "eve")
    assert suppressions.remove([row.id], "eve", tenant_id=other.tenant.id) == 0
    assert suppressions.remove([row.id], "eve") == 1
    assert suppressions.remove([row.id], "eve") == 0
    assert types(house) == ["suppression.added", "suppression.removed"]
    assert house.send("ann@one.test")[0].status == "queued"


def test_a_look_up_finds_what_holds_for_the_stream_of_the_tenant_and_has_not_run_out() -> None:
    house, other = build(), build()
    suppressions.add(house.tenant, "all@x.test", "manual", "", "eve")
    suppressions.add(house.tenant, "news@x.test", "unsubscribe", "", "eve", "news")
    past = timezone.now() - timedelta(seconds=1)
    suppressions.add(house.tenant, "past@x.test", "manual", "", "eve", expires_at=past)
    asked = ["All@x.test", "news@x.test", "past@x.test", "free@x.test"]
    assert set(suppress.find(house.tenant.id, asked)) == {"All@x.test"}
    assert set(suppress.find(house.tenant.id, asked, "news")) == {"All@x.test", "news@x.test"}
    assert suppress.find(other.tenant.id, asked, "news") == {}
    suppressions.add(house.tenant, "past@x.test", "manual", "", "eve")
    assert Suppression.objects.get(tenant=house.tenant, address="past@x.test").expires_at is None


def test_housekeeping_forgets_answers_after_twenty_five_hours_and_makes_partitions(monkeypatch) -> None:
    house = build()
    monkeypatch.setattr(retention, "BATCH", 2)
    for hours in (30, 26, 25.5, 24.5, 0):
        IdempotencyKey.objects.create(
            id=uuid7(), tenant_id=house.tenant.id, endpoint="emails", key=str(hours), body_hash=b"", answer={},
            created_at=timezone.now() - timedelta(hours=hours),
        )  # fmt: skip
    prune.run()
    kept = set(IdempotencyKey.objects.filter(tenant_id=house.tenant.id).values_list("key", flat=True))
    assert kept == {"24.5", "0"}
