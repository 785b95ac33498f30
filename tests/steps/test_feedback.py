"""What comes back acts once, for the delivery that its token names, and without a token not at all."""

from __future__ import annotations

import json
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from deliveries import feedback, queue
from deliveries.mime import verp
from deliveries.models import (
    Delivery,
    Event,
    InboundMessage,
    Queued,
    Suppression,
    WebhookDelivery,
    WebhookEndpoint,
)
from deliveries.models.sql import execute
from deliveries.notify.body import bodies
from deliveries.record.outcomes import record
from deliveries.states import Status
from tests.fakes.house import House, build
from tests.fakes.returned import VACATION, address, came, complaint, dsn, token
from tests.steps.test_record import DEFERRED, DELIVERED, result

pytestmark = pytest.mark.django_db(transaction=True)


def delivered(house: House, to: str = "ann@one.test", **fields) -> Delivery:
    (delivery,) = house.send(to, **fields)
    lease = uuid4()
    queue.claim(lease, 100, 1 << 26, {})
    record([result(delivery.id, lease, DELIVERED)])
    return delivery


def bounced_under_way(house: House) -> tuple[Delivery, UUID]:
    """Its worker has not recorded the 250 when the bounce comes."""
    (delivery,) = house.send("ann@one.test")
    lease = uuid4()
    queue.claim(lease, 100, 1 << 26, {})
    queue.start(lease, [delivery.id])
    came(address(delivery), dsn("ann@one.test"))
    return delivery, lease


def told(house: House) -> list[str]:
    return list(Event.objects.filter(tenant_id=house.tenant.id).order_by("id").values_list("type", flat=True))


def state(mail: InboundMessage) -> str:
    mail.refresh_from_db()
    return mail.state


def test_a_late_bounce_is_told_suppresses_and_the_next_mail_is_suppressed_with_its_reason() -> None:
    house = build()
    WebhookEndpoint.objects.create(tenant=house.tenant, url="https://x.test/", secret=b"s")
    delivery = delivered(house, "Ann@one.test")
    mail = came(address(delivery), dsn("ann@one.test"))
    assert feedback.run() == 1
    delivery.refresh_from_db()
    assert (delivery.status, delivery.late, delivery.category) == ("bounced", True, "bad_mailbox")
    assert "5.1.1" in delivery.reason and delivery.enhanced == "5.1.1"
    assert told(house) == ["email.sent", "email.delivered", "email.bounced", "suppression.added"]
    bounce = Event.objects.get(tenant_id=house.tenant.id, type="email.bounced")
    assert bounce.data["late"] is True and bounce.recipient == "Ann@one.test"
    outbox = WebhookDelivery.objects.filter(tenant_id=house.tenant.id).values_list("type", flat=True)
    assert sorted(outbox) == ["email.bounced", "email.delivered", "email.sent", "suppression.added"]
    suppression = Suppression.objects.get(tenant=house.tenant)
    assert (suppression.address, suppression.stream, suppression.reason) == ("ann@one.test", "*", "bounce")
    assert suppression.source_event == bounce.id
    (again,) = house.send("ann@one.test")
    assert (again.status, again.reason) == ("suppressed", "The address is on the suppression list (bounce).")
    assert state(mail) == "acted" and (mail.delivery_id, mail.tenant_id) == (delivery.id, house.tenant.id)


def test_the_same_report_read_again_makes_no_second_event() -> None:
    house = build()
    delivery = delivered(house)
    first, second = (came(address(delivery), dsn("ann@one.test")) for _ in range(2))
    feedback.run()
    InboundMessage.objects.filter(id=first.id).update(state="waiting")
    feedback.run()
    assert told(house).count("email.bounced") == 1
    assert (state(first), state(second)) == ("read", "read")
    assert first.note == "The delivery had bounced already; nothing was changed."


def test_a_mail_blocked_for_our_sake_bounces_and_suppresses_nobody() -> None:
    house = build()
    delivery = delivered(house)
    came(address(delivery), dsn("ann@one.test", status="5.7.1", said="550 5.7.1 Message rejected due to DMARC policy"))
    feedback.run()
    assert Delivery.objects.get(id=delivery.id).status == "bounced"
    assert not Suppression.objects.filter(tenant=house.tenant).exists()


def test_the_token_says_whose_mail_bounced_and_a_report_about_another_kills_nobody() -> None:
    """A team's server passes the mail to its members under our reverse-path; one of them has left."""
    house = build()
    came(address(delivered(house, "team@one.test")), dsn("carl@elsewhere.test"))
    for to, named in (
        ("ann@one.test", "Ann@mbx7.one.test"),
        ("eve+shop@one.test", "eve@one.test"),
        ("x@one.test", "X"),
    ):
        came(address(delivered(house, to)), dsn(named))
    feedback.run()
    assert set(Delivery.objects.values_list("status", "category")) == {("bounced", "bad_mailbox")}
    assert set(Suppression.objects.filter(tenant=house.tenant).values_list("address", flat=True)) == {
        "ann@one.test", "eve+shop@one.test", "x@one.test",
    }  # fmt: skip
    team = Delivery.objects.get(recipient="team@one.test")
    assert team.rule == "unknown-user-of-another"
    bounce = Event.objects.get(delivery_id=team.id, type="email.bounced")
    assert json.loads(bodies([bounce.id])[bounce.id])["data"]["bounce"]["type"] == "Transient"


def test_of_several_recipients_ours_counts_and_of_a_lists_members_the_one_that_lives() -> None:
    house = build()
    field = b"Final-Recipient"
    full = dsn("bob@one.test", status="5.2.2", said="552 5.2.2 Mailbox full").partition(field)[2].partition(b"--b")[0]
    both = dsn("carol@one.test").replace(field, field + full + field, 1)
    listed, living, dead = (
        delivered(house, "list@one.test"),
        delivered(house, "bob@one.test"),
        delivered(house, "carol@one.test"),
    )
    for delivery in (listed, living, dead):
        came(address(delivery), both)
    feedback.run()
    assert set(Delivery.objects.values_list("recipient", "category")) == {
        ("list@one.test", "mailbox_full"), ("bob@one.test", "mailbox_full"), ("carol@one.test", "bad_mailbox"),
    }  # fmt: skip
    assert list(Suppression.objects.values_list("address", flat=True)) == ["carol@one.test"]


@pytest.mark.parametrize("action", ["delayed", "relayed", "delivered", "expanded"])
def test_a_report_that_says_no_failure_changes_nothing(action) -> None:
    house = build()
    delivery = delivered(house)
    status = "4.4.1" if action == "delayed" else "2.0.0"
    mail = came(address(delivery), dsn("ann@one.test", action, status, "250 ok"))
    feedback.run()
    assert (state(mail), Delivery.objects.get(id=delivery.id).status) == ("read", "delivered")
    assert told(house) == ["email.sent", "email.delivered"]
    assert mail.delivery_id == delivery.id


def test_the_null_path_of_the_envelope_tells_a_bounce_that_nothing_in_the_mail_tells() -> None:
    house = build()
    text = b"From: Mail <noreply@one.test>\r\nSubject: x\r\n\r\n<ann@one.test>: 550 5.1.1 No such user here\r\n"
    told = {}
    for path in ("", "noreply@one.test"):
        delivery = delivered(house)
        came(address(delivery), text, helo="mx.one.test", reverse_path=path)
        feedback.run()
        told[path] = Delivery.objects.get(id=delivery.id).status
        Suppression.objects.all().delete()
    assert told == {"": "bounced", "noreply@one.test": "delivered"}


def test_a_vacation_note_changes_nothing() -> None:
    house = build()
    delivery = delivered(house)
    mail = came(address(delivery), VACATION)
    feedback.run()
    assert (state(mail), mail.kind, Delivery.objects.get(id=delivery.id).status) == ("read", "auto_reply", "delivered")


def test_a_bounce_read_before_its_250_was_recorded_stays_bounced_and_is_not_sent_again() -> None:
    house = build()
    delivery, lease = bounced_under_way(house)
    feedback.run()
    assert Queued.objects.filter(delivery_id=delivery.id).exists()  # its worker still has it
    record([result(delivery.id, lease, DELIVERED)])
    delivery.refresh_from_db()
    assert (delivery.status, delivery.late, delivery.attempts) == ("bounced", True, 1)
    assert "5.1.1" in delivery.reason and delivery.settled_at is not None
    assert not Queued.objects.filter(delivery_id=delivery.id).exists()
    assert told(house) == ["email.sent", "email.bounced", "suppression.added"]


def test_a_bounce_that_is_written_while_its_250_waits_to_be_recorded_stays_bounced() -> None:
    house = build()
    delivery, lease = bounced_under_way(house)

    def recorder() -> None:
        try:
            record([result(delivery.id, lease, DELIVERED)])
        finally:
            connection.close()

    thread = threading.Thread(target=recorder)
    with transaction.atomic():
        feedback.run()
        thread.start()
        while not execute("SELECT pid FROM pg_locks WHERE NOT granted").fetchall() and thread.is_alive():
            time.sleep(0.01)
    thread.join()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.late, delivery.attempts) == ("bounced", True, 1)
    assert not Queued.objects.filter(delivery_id=delivery.id).exists()
    assert told(house) == ["email.sent", "email.bounced", "suppression.added"]


def test_a_table_that_somebody_holds_costs_a_bounce_no_try() -> None:
    delivery = delivered(build())
    mail = came(address(delivery), dsn("ann@one.test"))
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
        other.execute("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE")
        execute("SET lock_timeout = '50ms'")
        try:
            for _ in range(feedback.MAX_TRIES + 1):
                with pytest.raises(OperationalError):
                    feedback.run()
        finally:
            execute("RESET lock_timeout")
        other.rollback()
    feedback.run()
    assert (state(mail), mail.tries, Delivery.objects.get(id=delivery.id).status) == ("acted", 1, "bounced")


def test_the_retry_of_a_mail_that_bounced_meanwhile_is_called_off() -> None:
    house = build()
    (delivery,) = house.send("ann@one.test")
    lease = uuid4()
    queue.claim(lease, 100, 1 << 26, {})
    record([result(delivery.id, lease, DEFERRED)])
    came(address(delivery), dsn("ann@one.test"))
    feedback.run()
    assert Delivery.objects.get(id=delivery.id).status == "bounced"
    assert not Queued.objects.filter(delivery_id=delivery.id).exists()


def test_a_row_that_is_claimed_but_not_started_is_taken_from_its_worker() -> None:
    house = build()
    (delivery,) = house.send("ann@one.test")
    lease = uuid4()
    queue.claim(lease, 100, 1 << 26, {})
    came(address(delivery), dsn("ann@one.test"))
    feedback.run()
    assert queue.start(lease, [delivery.id]) == set()


def test_a_canceled_delivery_stays_canceled() -> None:
    house = build()
    (delivery,) = house.send("ann@one.test")
    Delivery.objects.filter(id=delivery.id).update(status=Status.CANCELED)
    mail = came(address(delivery), dsn("ann@one.test"))
    feedback.run()
    assert (state(mail), Delivery.objects.get(id=delivery.id).status) == ("read", "canceled")


def test_a_complaint_is_flagged_told_and_suppresses_for_the_stream_of_the_mail() -> None:
    house = build()
    delivery = delivered(house, stream="newsletter")
    mails = [came(address(delivery), complaint()) for _ in range(2)]
    feedback.run()
    delivery.refresh_from_db()
    assert delivery.status == "delivered" and delivery.complained_at is not None
    suppression = Suppression.objects.get(tenant=house.tenant)
    assert (suppression.stream, suppression.reason) == ("newsletter", "complaint")
    assert told(house)[2:] == ["email.complained", "suppression.added"]
    assert [state(m) for m in mails] == ["acted", "read"]
    assert house.send("ann@one.test", stream="newsletter")[0].status == "suppressed"
    assert house.send("ann@one.test")[0].status == "queued"


def test_a_redacted_complaint_to_abuse_acts_by_the_signed_header_that_it_returns() -> None:
    house = build()
    delivery = delivered(house)
    mail = came("abuse@bounce.localhost.localdomain", complaint(head=f"{verp.TOKEN_HEADER}: {token(delivery)}\n"))
    feedback.run()
    assert state(mail) == "acted" and Delivery.objects.get(id=delivery.id).complained_at is not None


def test_a_letter_to_abuse_is_kept_for_a_person() -> None:
    mail = came("abuse@bounce.localhost.localdomain", b"From: a@b.test\r\nSubject: your mail\r\n\r\nPlease stop.\r\n")
    feedback.run()
    assert state(mail) == "kept"


def test_not_spam_is_no_complaint() -> None:
    house = build()
    delivery = delivered(house)
    mail = came(address(delivery), complaint("not-spam"))
    feedback.run()
    assert (state(mail), Delivery.objects.get(id=delivery.id).complained_at) == ("read", None)


def test_an_old_token_is_good_for_a_complaint_and_no_longer_for_a_bounce() -> None:
    house = build()
    delivery = delivered(house)
    late = came(address(delivery, days=-100), dsn("ann@one.test"))
    feedback.run()
    assert (state(late), late.note) == ("unmatched", "The token in the address is expired.")
    report = came(address(delivery, days=-100), complaint())
    too_late = came(address(delivery, days=-151.5), complaint())
    feedback.run()
    assert (state(report), state(too_late)) == ("acted", "unmatched")
    assert told(house)[2:] == ["email.complained", "suppression.added"]


def test_forged_and_expired_tokens_make_no_event() -> None:
    house = build()
    delivery = delivered(house)
    good, expired = token(delivery), token(delivery, days=-200)
    stranger = verp.mint(verp.Keys({1: b"somebody else's secret"}), delivery.id, datetime.now(UTC) + timedelta(days=9))
    rng = random.Random(7)
    rows = []
    for n in range(1_000):  # the long run of 10,000 takes the same road
        at = rng.randrange(48)
        other = rng.choice([c for c in "abcdefghijklmnopqrstuvwxyz234567" if c != good[at]])
        forged = (good[:at] + other + good[at + 1 :], expired, stranger)[n % 3]
        octets = dsn(
            "ann@one.test", head=f"{verp.TOKEN_HEADER}: {forged}\nMessage-ID: <{delivery.message.message_id}>\n"
        )
        rows.append(
            InboundMessage(
                received_at=datetime.now(UTC),
                peer="192.0.2.1",
                forward_path=f"bounces+{forged}@bounce.localhost.localdomain",
                octets=octets,
            )
        )
    InboundMessage.objects.bulk_create(rows)
    while feedback.run():
        pass
    assert told(house) == ["email.sent", "email.delivered"]
    assert Delivery.objects.get(id=delivery.id).status == "delivered"
    assert InboundMessage.objects.filter(state="unmatched").count() == 1_000


def test_a_mail_that_kills_its_reader_is_set_aside_after_three_and_the_others_are_read(monkeypatch) -> None:
    house = build()
    delivery = delivered(house)
    killer = came(address(delivery), b"From: x@y.test\r\n\r\nboom")
    other = came(address(delivery), dsn("ann@one.test"))

    class Killed(BaseException):
        pass

    real = feedback.read_report

    def read(octets: bytes, reverse_path: str | None):
        if octets.endswith(b"boom"):
            raise Killed
        return real(octets, reverse_path)

    monkeypatch.setattr(feedback, "read_report", read)
    for _ in range(3):
        with pytest.raises(Killed):
            feedback.run()
    feedback.run()
    assert (state(killer), state(other)) == ("unreadable", "acted")
    assert "3 readers" in killer.note


def test_a_bug_of_ours_in_reading_one_mail_does_not_stop_the_others(monkeypatch) -> None:
    house = build()
    delivery = delivered(house)
    odd = came(address(delivery), b"From: x@y.test\r\n\r\nodd")
    other = came(address(delivery), dsn("ann@one.test"))
    real = feedback.read_report
    monkeypatch.setattr(feedback, "read_report", lambda o, _: real(o) if not o.endswith(b"odd") else 1 / 0)
    feedback.run()
    assert (state(odd), state(other)) == ("unreadable", "acted")


def test_octets_without_a_header_are_set_aside() -> None:
    house = build()
    mail = came(address(delivered(house)), b"\x00\xff" * 100)
    feedback.run()
    assert state(mail) == "unreadable"


def test_two_readers_side_by_side_act_once() -> None:
    house = build()
    deliveries = [delivered(house, f"a{n}@one.test") for n in range(10)]
    for delivery in deliveries:
        came(address(delivery), dsn(delivery.recipient))

    def alone() -> None:
        try:
            feedback.run()
        finally:
            connection.close()

    threads = [threading.Thread(target=alone) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert told(house).count("email.bounced") == 10
    assert set(InboundMessage.objects.values_list("tries", "state")) == {(1, "acted")}


def test_a_suppression_that_had_run_out_is_made_anew() -> None:
    house = build()
    past = datetime.now(UTC) - timedelta(days=1)
    Suppression.objects.create(
        tenant=house.tenant, address="ann@one.test", reason="manual", created_at=past, expires_at=past
    )
    came(address(delivered(house)), dsn("ann@one.test"))
    feedback.run()
    suppression = Suppression.objects.get(tenant=house.tenant)
    assert (suppression.reason, suppression.expires_at) == ("bounce", None)
