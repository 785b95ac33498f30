"""The brakes: a provider that refuses everybody is held and one action undoes it; a tenant nobody wants is held too."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from deliveries import brakes, queue, suppress
from deliveries.models import (
    AuditEntry,
    Brake,
    Delivery,
    Event,
    InboundMessage,
    Queued,
    Refusals,
    Site,
    Suppression,
    Tenant,
)
from deliveries.record import brakes as record_brakes
from deliveries.record import sites, tally
from deliveries.record.outcomes import record
from deliveries.record.reports import Reading, Refused, bounced
from deliveries.record.settle import Result, Tried
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Replied, Stage, Verdict
from deliveries.smtp.reply import Reply
from deliveries.states import Category, Status
from tests.fakes.house import build, known_sites

pytestmark = pytest.mark.django_db(transaction=True)

GONE = Verdict(Status.BOUNCED, "user-unknown", Category.BAD_MAILBOX, True, "5.1.1", 550, "550 5.1.1 no such user")
TAKEN = Verdict(Status.DELIVERED, "accepted", code=250, text="250 2.0.0 ok")
NO_DOMAIN = Verdict(Status.BOUNCED, "no-domain", Category.BAD_DOMAIN, False, "5.1.2", 550, "550 5.1.2 no such domain")


@pytest.fixture(autouse=True)
def _on(settings) -> None:
    settings.BRAKES = True
    settings.MAIL_ROUTE = "mx"
    tally._calm.clear()


def site() -> str:
    """A receiver of this test alone."""
    name = f"{uuid4().hex[:10]}.test"
    known_sites(name, places=500)
    return name


def result(delivery_id: UUID, lease: UUID, verdict: Verdict, where: str) -> Result:
    now = datetime.now(UTC)
    hop = Hop(f"mx.{where}", "192.0.2.1", site=where)
    done = Attempted(hop, Replied(Stage.RCPT, Reply(verdict.code or 250)), now, now, "S: 550")
    return Result(delivery_id, lease, verdict, (Tried(uuid4(), done, verdict),), hop.host)


def answered(house, where: str, count: int, verdict: Verdict = GONE, word: str = "u") -> list[Delivery]:
    """`count` mails to `where`, each answered with `verdict`."""
    deliveries = []
    for start in range(0, count, 50):
        to = [f"{word}{i}@{where}" for i in range(start, min(start + 50, count))]
        deliveries += house.send(*to)
    lease = uuid4()
    got = queue.claim(lease, 1000, 1 << 30, {}).rows
    assert {d.id for d in deliveries} <= {r.delivery_id for r in got}
    record([result(d.id, lease, verdict, where) for d in deliveries])
    return deliveries


def test_an_outage_holds_the_providers_mail_makes_suppressions_provisional_and_one_action_undoes_it() -> None:
    house, where = build(), site()
    answered(house, where, 60)
    assert Suppression.objects.filter(tenant=house.tenant, site=where).count() == 60
    (brake,) = [b for b in brakes.run() if b.site == where]
    assert brake.refused == 60 and "60 of 60" in brake.reason
    row = Site.objects.get(name=where)
    assert row.paused_by == "brake" and row.suspended_until == brake.until
    assert Suppression.objects.filter(tenant=house.tenant, brake_id=brake.id).count() == 60
    assert Event.objects.filter(tenant_id=house.tenant.id, type="site.held").count() == 1
    assert AuditEntry.objects.filter(action="brake.pulled", subject__startswith=where).exists()
    # provisional: mail to them is accepted, and waits
    assert suppress.find(house.tenant.id, [f"u1@{where}"]) == {}
    waiting = house.send(f"u1@{where}", f"new@{where}")
    assert {d.status for d in waiting} == {"queued"}
    assert not {r.delivery_id for r in queue.claim(uuid4(), 1000, 1 << 30, {}).rows} & {d.id for d in waiting}
    assert [b for b in brakes.run() if b.site == where] == []

    done = record_brakes.undo(brake.id, "eve")
    assert (done.removed, done.refused) == (60, 60)
    assert not Suppression.objects.filter(tenant=house.tenant, site=where).exists()
    assert Event.objects.filter(tenant_id=house.tenant.id, type="suppression.removed").count() == 60
    assert not Refusals.objects.filter(site=where, category="bad_mailbox").exists()
    brake.refresh_from_db()
    assert (brake.state, brake.decided_by) == ("undone", "eve")
    got = {r.delivery_id for r in queue.claim(uuid4(), 1000, 1 << 30, {}).rows}
    assert {d.id for d in waiting} <= got
    assert [b for b in brakes.run() if b.site == where] == []
    assert record_brakes.undo(brake.id, "eve").removed == 0


def test_an_outage_that_comes_back_by_reports_pulls_the_brake_too() -> None:
    house, where = build(), site()
    for delivery in answered(house, where, 50, TAKEN):
        mail = InboundMessage.objects.create(received_at=timezone.now(), peer="", forward_path="b", octets=b"")
        said = Refused(Category.BAD_MAILBOX, "user-unknown", True, "550 5.1.1 no such user", "5.1.1")
        assert bounced(Reading(mail.id, "bounce"), delivery.id, said)
    (brake,) = [b for b in brakes.run() if b.site == where]
    assert Suppression.objects.filter(tenant=house.tenant, brake_id=brake.id).count() == 50


def test_what_was_refused_before_a_person_resumed_the_site_does_not_pull_the_brake_at_once_again() -> None:
    house, where = build(), site()
    answered(house, where, 60)
    assert [b.site for b in brakes.run() if b.site == where] == [where]
    sites.resume_site(where, "eve")
    assert [b for b in brakes.run() if b.site == where] == []
    assert Brake.objects.get(site=where).state == "ended"


def test_mail_that_was_in_flight_when_the_brake_was_pulled_is_in_doubt_too() -> None:
    house, where = build(), site()
    late = house.send(f"late@{where}")
    lease = uuid4()
    queue.claim(lease, 1000, 1 << 30, {})
    answered(house, where, 50)
    (brake,) = [b for b in brakes.run() if b.site == where]
    record([result(late[0].id, lease, GONE, where)])
    brakes.run()
    assert Suppression.objects.filter(brake_id=brake.id).count() == 51


def test_confirmed_refusals_count_and_are_believed_for_a_day() -> None:
    house, where = build(), site()
    answered(house, where, 50)
    (brake,) = [b for b in brakes.run() if b.site == where]
    assert record_brakes.confirm(brake.id, "eve") == 50
    assert suppress.find(house.tenant.id, [f"u1@{where}"])
    assert Site.objects.get(name=where).suspended_until is None
    answered(house, where, 60, word="more")
    assert [b for b in brakes.run() if b.site == where] == []


def test_a_brake_that_nobody_decides_ends_and_so_does_one_whose_site_a_person_resumed() -> None:
    house = build()
    first, second = site(), site()
    answered(house, first, 50)
    answered(house, second, 50)
    pulled = {b.site: b for b in brakes.run()}
    sites.resume_site(second, "eve")
    brakes.run(timezone.now() + timedelta(minutes=1))
    pulled[second].refresh_from_db()
    assert (pulled[second].state, pulled[second].decided_by) == ("ended", "")
    brakes.run(timezone.now() + record_brakes.HELD)
    pulled[first].refresh_from_db()
    assert pulled[first].state == "ended" and Site.objects.get(name=first).paused_by == ""
    assert record_brakes.undo(pulled[first].id, "eve").removed == 50


def test_as_many_refusals_as_usual_or_few_of_a_large_mailing_are_no_outage() -> None:
    now = timezone.now()
    minute = now.replace(second=0, microsecond=0)
    few, usual, part = site(), site(), site()
    tally.add(Counter({(few, "bad_mailbox"): 49, (few, ""): 49}), minute)
    tally.add(Counter({(usual, "bad_mailbox"): 60, (usual, ""): 60}), minute)
    tally.add(Counter({(usual, "bad_mailbox"): 20_000}), minute - timedelta(days=3))
    tally.add(Counter({(part, "bad_mailbox"): 60, (part, ""): 900}), minute)
    assert not {b.site for b in brakes.run(now)} & {few, usual, part}
    found = {j.site: j for j in brakes.jumps(now)}
    assert few not in found and not found[usual].alarming and not found[part].alarming
    assert found[usual].usual == pytest.approx(20_000 / 1007)


def test_what_a_site_took_is_counted_with_its_refusals_and_alone_writes_nothing() -> None:
    house, where = build(), site()
    answered(house, where, 30, TAKEN)
    assert not Refusals.objects.filter(site=where).exists()
    answered(house, where, 5, GONE, word="gone")
    counted = Counter()
    for row in Refusals.objects.filter(site=where):
        counted[row.category] += row.count
    assert counted["bad_mailbox"] == 5 and counted[""] in (5, 35)  # 5 where the minute turned in between


def test_the_brake_stays_off_where_it_is_switched_off(settings) -> None:
    settings.BRAKES = False
    house, where = build(), site()
    answered(house, where, 60)
    assert brakes.run() == [] and brakes.watch() == []


# --- a domain that does not exist -----------------------------------------------------------------------------


def test_a_missing_domain_suppresses_when_it_is_seen_twice_a_day_apart() -> None:
    house, where = build(), site()
    (first,) = answered(house, where, 1, NO_DOMAIN)
    answered(house, where, 1, NO_DOMAIN)
    assert not Suppression.objects.filter(tenant=house.tenant).exists()
    Delivery.objects.filter(id=first.id).update(settled_at=timezone.now() - timedelta(hours=25))
    answered(house, where, 1, NO_DOMAIN)
    row = Suppression.objects.get(tenant=house.tenant)
    assert (row.address, row.reason, row.category, row.rule) == (f"u0@{where}", "bounce", "bad_domain", "no-domain")


def test_a_missing_domain_that_took_mail_in_between_is_not_suppressed() -> None:
    house, where = build(), site()
    (first,) = answered(house, where, 1, NO_DOMAIN)
    Delivery.objects.filter(id=first.id).update(settled_at=timezone.now() - timedelta(hours=25))
    answered(house, where, 1, TAKEN)
    answered(house, where, 1, NO_DOMAIN)
    assert not Suppression.objects.filter(tenant=house.tenant).exists()


def test_a_suppression_that_had_run_out_is_made_new_by_the_next_bounce() -> None:
    house, where = build(), site()
    at = timezone.now() - timedelta(days=2)
    Suppression.objects.create(
        tenant=house.tenant, address=f"u0@{where}", reason="manual", created_at=at, expires_at=at + timedelta(days=1)
    )
    answered(house, where, 1)
    row = Suppression.objects.get(tenant=house.tenant)
    assert (row.reason, row.expires_at, row.site) == ("bounce", None, where)


# --- tenants --------------------------------------------------------------------------------------------------


def test_a_tenant_with_too_many_bounces_is_held_and_its_release_frees_what_was_held() -> None:
    from deliveries.deliver.jobs import load

    house, where = build(), site()
    answered(house, where, 180, TAKEN)
    answered(house, where, 20, word="gone")
    assert house.tenant.id not in brakes.watch(), "20 of 200 is the bound, not above it"
    answered(house, where, 3, word="also")
    waiting = house.send(f"waits@{where}")
    assert house.tenant.id in brakes.watch()
    tenant = Tenant.objects.get(id=house.tenant.id)
    assert tenant.suspended_at and "23 of 203" in tenant.suspended_reason
    assert Event.objects.filter(tenant_id=tenant.id, type="tenant.held").count() == 1
    lease = uuid4()
    rows = [r for r in queue.claim(lease, 1000, 1 << 30, {}).rows if r.delivery_id == waiting[0].id]
    _, refused = load(rows, lease)
    record(refused)
    assert Delivery.objects.get(id=waiting[0].id).status == "held"
    assert record_brakes.release_tenant(tenant.id, "eve") == 1
    assert Delivery.objects.get(id=waiting[0].id).status == "queued"
    assert Queued.objects.get(delivery_id=waiting[0].id).due_at <= timezone.now()
    assert tenant.id not in brakes.watch(), "what led to the hold is forgiven"
    assert Brake.objects.get(tenant=tenant).state == "undone"


def test_a_tenant_with_complaints_is_held_and_one_whose_provider_is_braked_is_not() -> None:
    house, where = build(), site()
    taken = answered(house, where, 200, TAKEN)
    Delivery.objects.filter(id=taken[0].id).update(complained_at=timezone.now())
    assert house.tenant.id in brakes.watch()

    other, broken = build(), site()
    answered(other, broken, 210)
    assert broken in {b.site for b in brakes.run()}
    assert other.tenant.id not in brakes.watch()
    record_brakes.undo(Brake.objects.get(site=broken).id, "eve")
    assert other.tenant.id not in brakes.watch()


@pytest.mark.parametrize("what", ["domain", "key"])
def test_a_suspended_domain_or_key_sends_nothing_and_its_release_frees_what_was_held(what) -> None:
    from deliveries import keys
    from deliveries.deliver.jobs import load
    from deliveries.errors import BadInput, KeyRefused
    from deliveries.models import ApiKey, SendingDomain

    house, where = build(), site()
    model, row = (SendingDomain, house.domain) if what == "domain" else (ApiKey, house.key)
    waiting = house.send(f"waits@{where}")
    assert record_brakes.suspend(model.objects.filter(pk=row.pk), "eve") == 1
    assert record_brakes.suspend(model.objects.filter(pk=row.pk), "eve") == 0
    with pytest.raises((BadInput, KeyRefused)):
        house.send(f"more@{where}")
    assert (keys.find(house.secret) is None) is (what == "key")
    lease = uuid4()
    rows = [r for r in queue.claim(lease, 1000, 1 << 30, {}).rows if r.delivery_id == waiting[0].id]
    _, refused = load(rows, lease)
    record(refused)
    held = Delivery.objects.get(id=waiting[0].id)
    assert (held.status, held.rule) == ("held", f"{what}-suspended")
    assert record_brakes.release(model.objects.filter(pk=row.pk), "eve") == 1
    assert Delivery.objects.get(id=waiting[0].id).status == "queued"
    assert house.send(f"more@{where}")[0].status == "queued"
    actions = AuditEntry.objects.filter(tenant=house.tenant, actor="eve").values_list("action", flat=True)
    assert {f"{what}.suspended", f"{what}.released"} <= set(actions)
