"""Scheduling, thinking again, and the race with a worker that takes the mail meanwhile."""

import json
import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from deliveries import queue
from deliveries.models import AuditEntry, Delivery, Destination, Event, Message, Queued, Suppression, WebhookEndpoint
from deliveries.notify.body import bodies
from deliveries.record import schedule
from deliveries.record.schedule import Change
from mailapi import auth
from mailapi.schemas import answers
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api():
    auth.forget()
    return Client(make_tenant())


def in_hours(hours):
    return timezone.now() + timedelta(hours=hours)


def scheduled(api, hours=2, **fields):
    return api.send(scheduled_at=in_hours(hours).isoformat(), **fields).json()["id"]


def types(message_id):
    return list(Event.objects.filter(message_id=message_id).order_by("id").values_list("type", flat=True))


def claimable(api):
    found = queue.claim(uuid4(), 100, 1 << 26, {}).rows
    return {row.delivery_id for row in found} & set(
        Delivery.objects.filter(tenant_id=api.tenant.id).values_list("id", flat=True)
    )


def test_a_mail_is_scheduled_in_words(api):
    sent = api.send(scheduled_at="in 10 minutes").json()["id"]
    wait = Message.objects.get(id=sent).scheduled_at - timezone.now()
    assert timedelta(minutes=9) < wait <= timedelta(minutes=10)
    assert Delivery.objects.get(message_id=sent).status == "scheduled"


@pytest.mark.parametrize("at", ["tomorrow", "soon", "next friday at 9am", "in 5 weeks", "x" * 5000, "in 1 min" * 900])
def test_words_that_are_not_understood_are_a_fault_with_the_way_out(api, at):
    answer = api.send(scheduled_at=at)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["field"], fault["code"]) == ("scheduled_at", "invalid_time") and fault["message"].endswith(".")


def test_a_scheduled_mail_tells_when_it_will_leave(api):
    at = in_hours(2)
    sent = api.send(scheduled_at=at.isoformat()).json()["id"]
    event = Event.objects.get(message_id=sent)
    told = json.loads(bodies([event.id])[event.id])["data"]
    assert told["scheduled_at"] == at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- another time -------------------------------------------------------------------------------------------


def test_a_scheduled_mail_leaves_at_another_time(api):
    sent, at = scheduled(api), in_hours(5)
    answer = api.patch(f"/emails/{sent}", {"scheduled_at": at.isoformat()})
    assert answer.status_code == 200 and answer.json() == {"object": "email", "id": sent}
    answers.EmailChanged.model_validate(answer.json())
    row = Delivery.objects.get(message_id=sent)
    assert (row.status, row.next_attempt_at, Message.objects.get(id=sent).scheduled_at) == ("scheduled", at, at)
    assert Queued.objects.get(delivery_id=row.id).due_at == at and row.expires_at > at
    assert types(sent) == ["email.scheduled", "email.scheduled"] and claimable(api) == set()
    assert AuditEntry.objects.filter(tenant=api.tenant, action="delivery.rescheduled").count() == 1


def test_an_earlier_time_wakes_its_destination(api):
    sent = scheduled(api, 20, to=f"a@{uuid4().hex}.test")
    home = Queued.objects.get(tenant_id=api.tenant.id).destination
    assert api.patch(f"/emails/{sent}", {"scheduled_at": (at := in_hours(1)).isoformat()}).status_code == 200
    assert Destination.objects.get(name=home).next_due == at


@pytest.mark.parametrize("at", ["now", "2001-01-01T00:00:00Z"])
def test_a_time_that_has_passed_sends_it_now(api, at):
    sent = scheduled(api, to=["a@simulator.test", "b@simulator.test"])
    assert api.patch(f"/emails/{sent}", {"scheduled_at": at}).status_code == 200
    assert api.get(f"/emails/{sent}").json()["last_event"] == "queued"
    assert len(claimable(api)) == 2 and types(sent)[-1] == "email.queued"


def test_an_end_that_was_asked_for_stays_and_cannot_be_passed(api):
    sent = scheduled(api, deliver_before=600)
    before = Delivery.objects.get(message_id=sent)
    answer = api.patch(f"/emails/{sent}", {"scheduled_at": in_hours(3).isoformat()})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "scheduled_at"
    row = Delivery.objects.get(message_id=sent)
    assert (row.next_attempt_at, row.expires_at, row.events) == (before.next_attempt_at, before.expires_at, 1)
    assert api.patch(f"/emails/{sent}", {"scheduled_at": in_hours(1).isoformat()}).status_code == 200
    assert Delivery.objects.get(message_id=sent).expires_at == before.expires_at


def test_the_id_may_stand_in_the_body_too_as_long_as_it_is_the_paths(api):
    sent = scheduled(api)
    body = {"id": sent, "scheduled_at": in_hours(3).isoformat()}
    assert api.patch(f"/emails/{sent}", body).status_code == 200
    answer = api.patch(f"/emails/{sent}", {**body, "id": str(uuid4())})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "id"


@pytest.mark.parametrize("body", [{}, {"scheduled_at": None}, {"scheduled_at": 5}, {"subject": "x"}, []])
def test_only_a_time_can_be_changed(api, body):
    sent = scheduled(api)
    answer = api.http.patch(
        f"/emails/{sent}", json.dumps(body), content_type="application/json",
        HTTP_AUTHORIZATION=f"Bearer {api.secret}",
    )  # fmt: skip
    assert answer.status_code in (400, 422), answer.json()
    assert types(sent) == ["email.scheduled"]


# --- never --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"", b"{}", b" {}\n"])
def test_a_scheduled_mail_is_canceled_for_all_its_recipients(api, octets):
    WebhookEndpoint.objects.create(
        tenant=api.tenant, url="https://hooks.example/", secret=b"x" * 32, events=["email.canceled"]
    )
    sent = scheduled(api, to=["a@simulator.test", "b@simulator.test"])
    answer = api.raw(f"/emails/{sent}/cancel", octets)
    assert answer.status_code == 200 and answer.json() == {"object": "email", "id": sent}
    assert api.get(f"/emails/{sent}").json()["last_event"] == "canceled"
    assert not Queued.objects.filter(tenant_id=api.tenant.id).exists()
    rows = Delivery.objects.filter(message_id=sent)
    assert {(r.status, r.reason, r.next_attempt_at) for r in rows} == {("canceled", "Canceled by the sender.", None)}
    assert types(sent).count("email.canceled") == 2
    again = api.raw(f"/emails/{sent}/cancel", octets)
    assert again.status_code == 409 and again.json()["name"] == "not_scheduled"


def test_recipients_that_were_suppressed_at_once_do_not_stand_in_the_way(api):
    Suppression.objects.create(
        tenant=api.tenant, address="a@simulator.test", reason="manual", created_at=datetime.now(UTC)
    )
    sent = scheduled(api, to=["a@simulator.test", "b@simulator.test"])
    assert api.raw(f"/emails/{sent}/cancel", b"").status_code == 200
    rows = Delivery.objects.filter(message_id=sent).order_by("position")
    assert [row.status for row in rows] == ["suppressed", "canceled"]


def test_what_is_not_scheduled_cannot_be_changed(api):
    sent = api.send().json()["id"]
    for answer in (
        api.raw(f"/emails/{sent}/cancel", b"{}"),
        api.patch(f"/emails/{sent}", {"scheduled_at": "in 1 hour"}),
    ):
        assert answer.status_code == 409 and answer.json()["name"] == "not_scheduled"
        answers.Error.model_validate(answer.json())
    assert Delivery.objects.get(message_id=sent).status == "queued" and types(sent) == ["email.sent"]


def test_another_tenants_mail_is_not_there(api):
    sent = scheduled(api)
    other = Client(make_tenant())
    assert other.raw(f"/emails/{sent}/cancel", b"").status_code == 404
    assert other.patch(f"/emails/{sent}", {"scheduled_at": "in 1 hour"}).status_code == 404
    assert other.raw(f"/emails/{uuid4()}/cancel", b"").status_code == 404
    assert Delivery.objects.get(message_id=sent).status == "scheduled"


# --- the race with a worker ---------------------------------------------------------------------------------


def due_now(message_id):
    Queued.objects.filter(delivery_id__in=Delivery.objects.filter(message_id=message_id).values("id")).update(
        due_at=timezone.now() - timedelta(seconds=1)
    )
    Destination.objects.update(next_due=timezone.now() - timedelta(seconds=1))


def test_what_one_worker_holds_leaves_for_all_recipients(api):
    sent = scheduled(api, to=["a@simulator.test", "b@simulator.test"])
    first = Delivery.objects.filter(message_id=sent).order_by("position").first()
    Queued.objects.filter(delivery_id=first.id).update(lease_id=uuid4(), leased_until=in_hours(1))
    assert api.raw(f"/emails/{sent}/cancel", b"").status_code == 409
    assert api.patch(f"/emails/{sent}", {"scheduled_at": "in 1 hour"}).status_code == 409
    assert set(Delivery.objects.filter(message_id=sent).values_list("status", flat=True)) == {"scheduled"}
    assert types(sent) == ["email.scheduled"] * 2


def test_a_claim_passes_over_what_is_being_canceled_and_the_other_way_round(api):
    """Both orders of the race, held open: whoever has the rows first has its way, the other one sees it."""
    sent = scheduled(api)
    due_now(sent)
    with transaction.atomic():
        assert schedule.cancel(api.tenant.id, Message.objects.get(id=sent).id, "eve") == Change.DONE
        seen = []
        other = threading.Thread(target=lambda: (seen.append(claimable(api)), connection.close()))
        other.start()
        other.join(60)
    assert seen == [set()] and claimable(api) == set()

    sent = scheduled(api)
    due_now(sent)
    outcome = []
    with transaction.atomic():
        assert len(claimable(api)) == 1  # not committed yet
        canceling = threading.Thread(
            target=lambda: (outcome.append(schedule.cancel(api.tenant.id, sent, "eve")), connection.close())
        )
        canceling.start()
        canceling.join(0.5)
        assert canceling.is_alive()  # it waits for the claim
    canceling.join(60)
    assert outcome == [Change.NOT_SCHEDULED]
    assert Delivery.objects.get(message_id=sent).status == "scheduled" and types(sent) == ["email.scheduled"]


def test_many_claims_against_many_cancels_never_both_have_the_same_mail(api):
    ids = [scheduled(api, to=f"r{i}@simulator.test") for i in range(40)]
    for sent in ids:
        due_now(sent)
    canceled, claimed, start = set(), set(), threading.Barrier(3)

    def cancel_all(order):
        start.wait()
        for sent in order:
            if schedule.cancel(api.tenant.id, sent, "eve") == Change.DONE:
                canceled.add(sent)
        connection.close()

    def claim_all():
        start.wait()
        for _ in range(60):
            for row in queue.claim(uuid4(), 3, 1 << 26, {}).rows:
                claimed.add(row.delivery_id)
        connection.close()

    threads = [
        threading.Thread(target=f, args=a)
        for f, a in ((cancel_all, (ids,)), (cancel_all, (ids[::-1],)), (claim_all, ()))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    taken = {str(m) for m in Delivery.objects.filter(id__in=claimed).values_list("message_id", flat=True)} & set(ids)
    assert canceled | taken == set(ids) and not canceled & taken
    for sent in ids:
        assert types(sent).count("email.canceled") == (1 if sent in canceled else 0)
