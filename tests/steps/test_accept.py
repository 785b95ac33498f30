"""Accept: one statement, one commit; any other answer means that nothing was stored."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from deliveries import keys
from deliveries.accept import Accepted, Draft, Idempotency, Reports, accept
from deliveries.errors import BadInput, Conflict, KeyRefused, OverQuota
from deliveries.mime.compose import Attachment
from deliveries.models import (
    Attachment as StoredAttachment,
)
from deliveries.models import (
    Delivery,
    Destination,
    Event,
    IdempotencyKey,
    Message,
    MessageContent,
    Queued,
    QuotaUse,
    ReportRequest,
    Suppression,
    Tenant,
    WebhookDelivery,
    WebhookEndpoint,
)
from deliveries.models.asked import Notify
from deliveries.models.sql import execute
from deliveries.states import Lane
from tests.fakes.clock import DAY, stay_within
from tests.fakes.house import build

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _by_mx(settings) -> None:
    settings.MAIL_ROUTE = "mx"


def stored() -> tuple[int, ...]:
    models = (Message, MessageContent, StoredAttachment, Delivery, Queued, Event, WebhookDelivery)
    return tuple(m.objects.count() for m in models)


def test_a_statement_holds_what_its_request_needs_and_a_quota_that_comes_or_goes_meanwhile_is_kept() -> None:
    stay_within(DAY)
    house, file = build(), Attachment("a.pdf", "application/pdf", b"%PDF")
    tenants = Tenant.objects.filter(id=house.tenant.id)

    def most() -> tuple[Draft, Idempotency]:
        wants = Reports("app@house.test", {"a@one.test": (int(Notify.FAILURE), "")})
        draft = house.draft("a@one.test", attachments=(file,), reports=wants)
        return draft, Idempotency("emails", uuid4().hex, b"x" * 32)

    def least() -> tuple[Draft, None]:
        return house.draft("a@one.test"), None

    for quota, counted in ((None, 0), (6, 4), (None, 4), (6, 6)):
        tenants.update(daily_quota=quota)
        for draft, once in (most(), least(), *([most(), least()] if counted == 4 and quota else [])):
            accept(keys.hash_of(house.secret), [draft], once)
        assert sum(QuotaUse.objects.filter(tenant_id=house.tenant.id).values_list("used", flat=True)) == counted
    before = stored()
    for draft, once in (most(), least()):
        with pytest.raises(OverQuota):
            accept(keys.hash_of(house.secret), [draft], once)
    assert stored() == before and IdempotencyKey.objects.filter(tenant_id=house.tenant.id).count() == 5
    assert StoredAttachment.objects.count() == ReportRequest.objects.count() == 5


def test_a_mail_is_stored_whole_with_a_row_for_each_forward_path() -> None:
    house = build()
    file = Attachment("a.pdf", "application/pdf", b"%PDF\x00\xff")
    deliveries = house.send("a@one.test", "b@two.test", attachments=(file,), tags=(("kind", "receipt"),))
    message = Message.objects.get(tenant=house.tenant)
    assert [d.recipient for d in deliveries] == ["a@one.test", "b@two.test"]
    assert {d.status for d in deliveries} == {"queued"}
    assert message.to == ["a@one.test", "b@two.test"] and message.tags == [{"name": "kind", "value": "receipt"}]
    assert MessageContent.objects.get(id=message.id).text == "Thank you."
    assert bytes(StoredAttachment.objects.get(message_id=message.id).content) == b"%PDF\x00\xff"
    queued = Queued.objects.filter(tenant_id=house.tenant.id).values_list("destination", flat=True)
    assert sorted(queued) == ["one.test", "two.test"]
    events = Event.objects.filter(message=message).order_by("id")
    assert [(e.type, e.recipient) for e in events] == [("email.sent", "a@one.test"), ("email.sent", "b@two.test")]


@pytest.mark.parametrize("once", [None, "key"])
def test_the_bell_rings_before_the_disk_has_it_and_the_answer_waits(once: str | None, monkeypatch) -> None:
    house, seen = build(), []

    def log_ends() -> str:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_current_wal_insert_lsn()::text FROM message WHERE tenant_id = %s", [house.tenant.id]
            )
            return cursor.fetchone()[0]

    monkeypatch.setattr("deliveries.queue.wake", lambda ids: seen.append(log_ends()))
    with connection.cursor() as cursor:
        cursor.execute(_WITNESS)
        try:
            for _ in range(2):  # the second time with a key is a replay of the first
                if once:
                    keyed(house, once)
                else:
                    accept(keys.hash_of(house.secret), [house.draft("a@one.test")])
                cursor.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", [seen[-1]])
                assert cursor.fetchone() == (True,)
                cursor.execute("SET synchronous_commit = off; INSERT INTO witness VALUES ('off')")
                seen.append(log_ends())
                cursor.execute("RESET synchronous_commit")
            cursor.execute("SELECT DISTINCT waits FROM witness")
            assert cursor.fetchall() == [("off",)]
            with transaction.atomic():  # another's commit stays what it is
                keyed(house, "nested")
                cursor.execute("SHOW synchronous_commit")
                assert cursor.fetchone() == ("on",)
        finally:
            cursor.execute("DROP TABLE witness; DROP FUNCTION bear_witness() CASCADE")


_WITNESS = """
CREATE TABLE witness (waits text);
CREATE FUNCTION bear_witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO witness VALUES (current_setting('synchronous_commit')); RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER witness AFTER INSERT ON queued DEFERRABLE INITIALLY DEFERRED
   FOR EACH ROW EXECUTE FUNCTION bear_witness();
"""


def test_a_message_id_of_the_senders_is_kept_as_the_mails_own() -> None:
    house = build()
    house.send("a@one.test", headers=(("Message-Id", "<mine@app.test>"),))
    assert Message.objects.get(tenant=house.tenant).message_id == "mine@app.test"


def test_a_person_who_stands_in_to_and_cc_gets_one_copy() -> None:
    house = build()
    draft = house.draft("a@one.test")
    accept(keys.hash_of(house.secret), [type(draft)(draft.sender, to=draft.to, cc=draft.to, bcc=draft.to, text="x")])
    assert Delivery.objects.filter(tenant=house.tenant).count() == 1


def test_a_batch_is_all_or_nothing() -> None:
    house, other = build(), build()
    before = stored()
    with pytest.raises(BadInput) as refused:
        accept(keys.hash_of(house.secret), [house.draft("a@one.test"), other.draft("b@one.test")])
    assert [(f.field, f.code, f.index) for f in refused.value.faults] == [("from", "domain_not_verified", 1)]
    assert stored() == before


def test_an_unverified_domain_may_not_send() -> None:
    house = build()
    type(house.domain).objects.filter(id=house.domain.id).update(verified_at=None)
    with pytest.raises(BadInput):
        house.send("a@one.test")
    assert not Message.objects.filter(tenant=house.tenant).exists()


def test_a_key_revoked_after_it_was_looked_up_is_refused_by_the_statement_itself() -> None:
    house = build()
    type(house.key).objects.filter(id=house.key.id).update(revoked_at=timezone.now())
    with pytest.raises(KeyRefused):
        house.send("a@one.test")


def test_a_suspended_account_is_told_so_and_stores_nothing() -> None:
    house = build()
    type(house.tenant).objects.filter(id=house.tenant.id).update(suspended_at=timezone.now())
    with pytest.raises(KeyRefused) as refused:
        house.send("a@one.test")
    assert refused.value.name == "account_suspended"
    assert not Message.objects.filter(tenant=house.tenant).exists()


def test_a_suppressed_address_is_told_at_once_and_never_queued() -> None:
    house = build()
    Suppression.objects.create(tenant=house.tenant, address="gone@one.test", reason="bounce", created_at=timezone.now())
    good, gone = house.send("a@one.test", "Gone@one.test")
    assert (good.status, gone.status) == ("queued", "suppressed")
    assert "suppression list (bounce)" in gone.reason and gone.settled_at is not None
    assert not Queued.objects.filter(delivery_id=gone.id).exists()
    assert Event.objects.get(delivery_id=gone.id).type == "email.suppressed"


def test_a_suppression_of_one_stream_does_not_block_the_other_and_an_expired_one_blocks_nothing() -> None:
    house = build()
    now = timezone.now()
    for address, stream, expires in [
        ("a@one.test", "news", None),
        ("b@one.test", "*", now - timedelta(days=1)),
    ]:
        Suppression.objects.create(
            tenant=house.tenant, address=address, stream=stream, reason="manual", created_at=now, expires_at=expires
        )
    assert {d.status for d in house.send("a@one.test", "b@one.test")} == {"queued"}
    assert house.send("a@one.test", stream="news")[0].status == "suppressed"


def test_a_scheduled_mail_is_due_at_its_hour() -> None:
    house = build()
    at = timezone.now() + timedelta(hours=2)
    (delivery,) = house.send("a@later.test", scheduled_at=at)
    assert delivery.status == "scheduled" and delivery.next_attempt_at == at
    assert Queued.objects.get(delivery_id=delivery.id).due_at == at
    assert Destination.objects.get(name="later.test").next_due == at
    house.send("b@later.test")  # what is due earlier pulls the destination forward
    assert Destination.objects.get(name="later.test").next_due <= timezone.now()


def test_lanes_make_destinations_of_their_own() -> None:
    house = build()
    house.send("a@lanes.test", lane=Lane.BULK)
    house.send("a@lanes.test", lane=Lane.HIGH)
    assert sorted(Destination.objects.filter(name="lanes.test").values_list("lane", flat=True)) == [0, 2]


def test_only_endpoints_that_ask_for_the_event_get_an_outbox_row() -> None:
    house, other = build(), build()
    for tenant, events in [(house.tenant, []), (house.tenant, ["email.sent"]), (house.tenant, ["email.bounced"]),
                           (other.tenant, [])]:  # fmt: skip
        WebhookEndpoint.objects.create(tenant=tenant, url="https://x.test/", events=events, secret=b"s")
    house.send("a@one.test")
    told = WebhookDelivery.objects.filter(tenant_id=house.tenant.id)
    assert sorted(e.events for e in (w.endpoint for w in told)) == [[], ["email.sent"]]
    assert not WebhookDelivery.objects.filter(tenant_id=other.tenant.id).exists()


def keyed(house, key: str, body: bytes = b"x") -> Accepted:
    return accept(keys.hash_of(house.secret), [house.draft("a@one.test")], Idempotency("emails", key, body.ljust(32)))


def test_the_same_key_and_body_give_the_first_answer_and_another_body_a_conflict() -> None:
    house = build()
    first = keyed(house, "k")
    assert keyed(house, "k") == Accepted(first.ids, replayed=True)
    with pytest.raises(Conflict, match="another body"):
        keyed(house, "k", b"y")
    assert Message.objects.filter(tenant=house.tenant).count() == 1


def test_a_refused_request_leaves_its_key_free() -> None:
    house = build()
    type(house.domain).objects.filter(id=house.domain.id).update(verified_at=None)
    with pytest.raises(BadInput):
        keyed(house, "k")
    type(house.domain).objects.filter(id=house.domain.id).update(verified_at=timezone.now())
    assert not keyed(house, "k").replayed


def test_the_same_key_of_two_tenants_is_two_keys() -> None:
    assert not keyed(build(), "k").replayed
    assert not keyed(build(), "k").replayed


#: another request with the key "k" that has not committed
_SAME_KEY = """
INSERT INTO idempotency_key (id, tenant_id, endpoint, key, body_hash, answer, created_at)
VALUES (gen_random_uuid(), '{tenant}', 'emails', 'k', '', '{{}}', now())
"""


@pytest.mark.parametrize("held", [_SAME_KEY, "LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE"])
def test_only_a_request_with_the_same_key_is_told_as_one_and_a_lock_of_others_is_worth_another_try(held: str) -> None:
    house = build()
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
        other.execute(held.format(tenant=house.tenant.id))
        execute("SET lock_timeout = '50ms'")
        try:
            with pytest.raises(Conflict if held is _SAME_KEY else OperationalError):
                keyed(house, "k")
            if held is not _SAME_KEY:
                with pytest.raises(OperationalError):
                    house.send("ann@one.test")
        finally:
            execute("RESET lock_timeout")
        other.rollback()
    assert not keyed(house, "k").replayed


def test_twelve_requests_at_once_with_one_key_make_one_mail() -> None:
    house = build()
    answers: list[Accepted] = []
    ready = threading.Barrier(12)

    def post() -> None:
        try:
            ready.wait()
            answers.append(keyed(house, "same"))
        finally:
            connection.close()

    threads = [threading.Thread(target=post) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12 and len({a.ids for a in answers}) == 1
    assert sum(not a.replayed for a in answers) == 1
    assert Message.objects.filter(tenant=house.tenant).count() == 1
