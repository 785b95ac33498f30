"""A bounce that was read wrongly: what a changed rule would alter is told, and one is corrected by the operator."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.test import Client

from deliveries import queue
from deliveries.models import AuditEntry, Delivery, Suppression
from deliveries.record import corrections
from deliveries.record.outcomes import record
from deliveries.record.settle import Result, Tried
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Replied, Stage, Verdict
from deliveries.smtp.reply import Reply
from deliveries.states import Category, Status
from tests.fakes import mail
from tests.fakes.house import build, known_sites

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def bounced(settings):
    """A refusal for a block list, which an old rule took for a dead address."""
    settings.MAIL_ROUTE = "mx"
    where = f"{uuid4().hex[:10]}.test"
    known_sites(where)
    house = build()
    (delivery,) = house.send(f"ann@{where}")
    lease, now = uuid4(), datetime.now(UTC)
    queue.claim(lease, 1000, 1 << 30, {})
    reply = Reply(550, ("5.7.1 Service unavailable; client host blocked using Spamhaus",))
    done = Attempted(
        Hop(f"mx.{where}", "192.0.2.1", site=where), Replied(Stage.RCPT, reply), now, now, "S: 550"
    )  # fmt: skip
    verdict = Verdict(Status.BOUNCED, "too-eager", Category.BAD_MAILBOX, True, "5.7.1", 550, reply.text)
    record([Result(delivery.id, lease, verdict, (Tried(uuid4(), done, verdict),), done.hop.host)])
    assert Suppression.objects.filter(tenant=house.tenant, rule="too-eager", site=where).exists()
    return house, delivery


def test_a_dry_run_tells_what_a_rule_change_would_alter_and_changes_nothing(bounced) -> None:
    house, delivery = bounced
    out = StringIO()
    call_command("reclassify", "--dry-run", stdout=out)
    line = next(x for x in out.getvalue().splitlines() if "too-eager" in x)
    assert "bad_mailbox by too-eager, suppressed → ip_reputation by" in line
    assert "nothing was changed" in out.getvalue() and "Spamhaus" in out.getvalue()
    delivery.refresh_from_db()
    assert delivery.category == "bad_mailbox" and Suppression.objects.filter(tenant=house.tenant).exists()


def test_without_dry_run_the_bounce_is_corrected_and_its_suppression_goes(bounced) -> None:
    house, delivery = bounced
    call_command("reclassify", stdout=StringIO())
    delivery.refresh_from_db()
    assert (delivery.status, delivery.category) == ("bounced", "ip_reputation")
    assert not Suppression.objects.filter(tenant=house.tenant).exists()
    assert AuditEntry.objects.filter(tenant=house.tenant, action="delivery.reclassified").count() == 1


def test_a_correction_leaves_alone_what_did_not_bounce_and_what_another_cause_suppressed(bounced) -> None:
    house, delivery = bounced
    Suppression.objects.filter(tenant=house.tenant).update(source_event=uuid4())
    assert corrections.correct(delivery.id, Category.IP_REPUTATION, "eve")
    assert not corrections.correct(delivery.id, Category.IP_REPUTATION, "eve")
    assert Suppression.objects.filter(tenant=house.tenant).exists()
    (other,) = house.send("bob@elsewhere.test")
    assert not corrections.correct(other.id, Category.BAD_MAILBOX, "eve")


def test_the_operator_corrects_one_in_the_panel_and_a_member_does_not(bounced) -> None:
    house, delivery = bounced
    here = f"/admin/deliveries/message/{delivery.message_id}/"
    for user, word in (
        (mail.person(f"dev{uuid4().hex[:6]}", house.tenant, role="owner"), "bad_mailbox"),
        (mail.person(f"root{uuid4().hex[:6]}", operator=True), "content_spam"),
    ):
        client = Client()
        client.force_login(user)
        assert ("The bounce means" in client.get(f"{here}change/").content.decode()) is user.is_superuser
        client.post(f"{here}act/", {"verb": "correct", "delivery": str(delivery.id), "category": "content_spam"})
        assert Delivery.objects.get(id=delivery.id).category == word
    assert not Suppression.objects.filter(tenant=house.tenant).exists()
