"""IP pools with real sockets: the receiver sees from which of our addresses, on loopback, a mail came."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deliveries import claim, deliver, queue
from deliveries.admin.sources import AddressForm
from deliveries.alerts import look
from deliveries.deliver import jobs
from deliveries.deliver.sweep import sweep
from deliveries.models import (
    AuditEntry,
    Delivery,
    Membership,
    PoolRule,
    Queued,
    SourceAddress,
    SourcePool,
    SourceRest,
    User,
)
from deliveries.models.sql import execute
from deliveries.record import rests
from deliveries.record.outcomes import record
from deliveries.record.settle import Result, Tried
from deliveries.retry import Schedule
from deliveries.sandbox.lab import Lab
from deliveries.smtp import sources as deciding
from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Replied, Stage
from deliveries.smtp.reply import Reply
from deliveries.smtp.sources import REST_RULE, RULE
from deliveries.sources import NEVER, Sources, wake
from deliveries.states import Lane
from tests.fakes.clock import DAY, stay_within
from tests.fakes.house import House, build, known_sites
from tests.fakes.labs import fresh_pump, running_lab

pytestmark = pytest.mark.django_db(transaction=True)

ONE, TWO, THREE, ELSEWHERE, SIX = "127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.99", "::1"


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    settings.SOURCE_IPS = (ONE, TWO, THREE)
    with running_lab(keep=2000) as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.RETRY = Schedule(waits_s=(0.05,), max_age_s=3600, unknown_wait_s=0.3, jitter=0)
        jobs._kept.clear()
        known_sites("sandbox")
        yield lab


@pytest.fixture
def operator(lab: Lab, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def today() -> date:
    """For `warm_from`: what may be sent is counted by the UTC day."""
    stay_within(DAY)
    return timezone.now().date()


def pool(name: str, *addresses: str, overflow: SourcePool | None = None, **facts: object) -> SourcePool:
    made = SourcePool.objects.create(name=name, overflow=overflow)
    facts.setdefault("seen_at", timezone.now())
    for address in addresses:
        SourceAddress.objects.create(address=address, pool=made, **facts)
    return made


def look_again() -> None:
    """What was changed counts within seconds; here at once."""
    if deliver._engine is not None:
        deliver._engine.sources._read_at = NEVER


def pump_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    look_again()
    while not done():
        assert time.monotonic() < end, "it never came to that"
        deliver.run()
        time.sleep(0.02)


def send(house: House, count: int, **fields: object) -> list[Delivery]:
    return [d for n in range(count) for d in house.send(f"delivered+{n}@simulator.test", **fields)]


def ended(deliveries: list[Delivery], status: str = "delivered") -> Callable[[], bool]:
    ids = [d.id for d in deliveries]
    return lambda: Delivery.objects.filter(id__in=ids, status=status).count() == len(ids)


def peers(lab: Lab) -> Counter[str]:
    return Counter(mail.peer for mail in lab.messages)


def test_each_stream_leaves_from_its_own_pool_with_the_name_of_its_address(lab: Lab) -> None:
    house, other = build(), build()
    news, own = pool("news", ONE, helo="news.example.net"), pool("own", TWO)
    PoolRule.objects.create(kind="bulk", pool=news)
    PoolRule.objects.create(tenant=other.tenant, pool=own)
    bulk = send(house, 5, lane=Lane.BULK)
    pump_until(ended(bulk))
    assert {(mail.peer, mail.helo) for mail in lab.messages} == {(ONE, "news.example.net")}
    everything = [*send(other, 4), *send(other, 3, lane=Lane.BULK), *send(house, 2)]
    pump_until(ended(everything))
    assert peers(lab) == {ONE: 5, TWO: 7, THREE: 2}  # mail without a rule leaves the pools' addresses alone
    assert {m.helo for m in lab.messages if m.peer != ONE} == {"mail.localhost.localdomain"}
    seen = SourceAddress.objects.get(address=THREE)
    assert seen.pool_id is None and seen.seen_on and seen.seen_at  # the host wrote down what it has


def test_an_overflow_carries_what_the_warm_up_does_not_allow(lab: Lab, settings) -> None:
    settings.WARM_UP = (5, 10)
    settings.SOURCE_IPS = (ONE, TWO, SIX)
    house = build()
    first = today()
    cold = pool("cold", ONE, overflow=pool("warm", TWO), warm_from=first)
    PoolRule.objects.create(pool=cold)
    # an IPv6 address that may send more is of no use to a receiver that has IPv4 alone
    SourceAddress.objects.create(address=SIX, pool=cold, seen_at=timezone.now())
    pump_until(ended(send(house, 12)))
    assert peers(lab) == {ONE: 5, TWO: 7}
    assert SourceAddress.objects.get(address=ONE).used == 5
    SourceAddress.objects.filter(address=ONE).update(
        warm_from=first - timedelta(days=1), used_on=first - timedelta(days=1)
    )
    lab._spool.messages.clear()
    pump_until(ended(send(house, 12)))
    assert peers(lab) == {ONE: 10, TWO: 2}  # the second day allows more, and yesterday's count is forgotten


def test_without_an_overflow_the_rest_waits_for_tomorrow_and_says_why(
    lab: Lab, settings, operator: Client, monkeypatch
) -> None:
    settings.WARM_UP = (3,)
    house = build()
    rule = PoolRule.objects.create(pool=pool("cold", ONE, warm_from=today()))
    deliveries = send(house, 8)
    pump_until(lambda: Delivery.objects.filter(status__in=("delivered", "deferred")).count() == 8)
    waiting = Delivery.objects.filter(id__in=[d.id for d in deliveries], status="deferred")
    assert peers(lab) == {ONE: 3} and waiting.count() == 5
    for delivery in waiting:
        assert delivery.rule == RULE and "have sent what they may today" in delivery.reason
        assert "cold" not in delivery.reason and ONE not in delivery.reason  # the operator's affair
        assert delivery.attempts == 0 and delivery.next_attempt_at >= deciding.tomorrow(timezone.now()) - timedelta(1)
        assert delivery.next_attempt_at <= delivery.expires_at
    assert Queued.objects.filter(lease_id=None).count() == 5
    # it ends as any mail does: by its age
    old, others = list(waiting)[:2], list(waiting)[2:]
    Delivery.objects.filter(id__in=[d.id for d in old]).update(expires_at=timezone.now())
    Queued.objects.filter(delivery_id__in=[d.id for d in old]).update(due_at=timezone.now())
    queue.heal()
    pump_until(ended(old, "expired"))
    assert wake() == 0
    # room for a part of it: the rest is not forgotten
    SourceAddress.objects.filter(address=ONE).update(used=2)
    SourcePool.objects.update(waits_at=timezone.now() - timedelta(hours=1))
    assert wake() == 1 and SourcePool.objects.filter(waits_at__isnull=False).exists()
    SourceAddress.objects.filter(address=ONE).update(used=3)
    assert wake() == 0 and SourcePool.objects.filter(waits_at__isnull=False).exists()
    # without the rule it has no pool, and another address; by a web host whose clock is slow
    page = reverse("admin:deliveries_poolrule_changelist")
    operator.post(page, {"action": "remove", "_selected_action": [rule.pk]})
    change = AuditEntry.objects.get(action="rule.removed")
    AuditEntry.objects.filter(id=change.id).update(id=UUID(int=change.id.int - (600_000 << 80)))
    with monkeypatch.context() as small:
        small.setattr("deliveries.sources._AT_ONCE", 1)  # and for as long as some of it is left
        small.setattr("deliveries.sources._SETTLED_S", 0.0)
        assert [wake() for _ in range(3)] == [1, 1, 0]
    pump_until(ended(others))
    assert peers(lab).keys() <= {ONE, TWO, THREE} and peers(lab)[ONE] == 3
    # nor does what no rule names wait on when the only addresses that are left are warm by an operator's word
    SourcePool.objects.all().delete()
    SourceAddress.objects.update(warm_from=today(), used_on=today(), used=3)
    # another host can send it: it stays due for that one, until nobody hears of it any more
    SourceAddress.objects.create(address=ELSEWHERE, seen_at=timezone.now(), seen_on="another")
    more = send(house, 2)
    look_again()
    for _ in range(3):
        deliver.run()
    assert ended(more, "queued")() and Queued.objects.filter(lease_id=None, due_at__lte=Now()).count() == 2
    SourceAddress.objects.filter(address=ELSEWHERE).update(seen_at=timezone.now() - timedelta(hours=1))
    pump_until(ended(more, "deferred"))
    assert wake() == 0
    operator.post(
        reverse("admin:deliveries_sourceaddress_change", args=[TWO]),
        {"pool": "", "helo": "", "warm_from": "", "rests_until_0": "", "rests_until_1": "", "rests_why": ""},
    )
    assert wake() == 2
    pump_until(ended(more))


def test_a_mail_that_only_moves_to_its_site_costs_no_allowance(lab: Lab, settings, monkeypatch) -> None:
    settings.WARM_UP = (4,)
    house, give_back, cuts = build(), Sources.give_back, iter(["SELECT pg_terminate_backend(pg_backend_pid())"])

    def cut_off(self: Sources, unused: dict[str, int]) -> None:  # once, as by a restart of Postgres
        for cut in cuts:
            execute(cut)
        give_back(self, unused)

    monkeypatch.setattr(Sources, "give_back", cut_off)
    PoolRule.objects.create(pool=pool("cold", ONE, warm_from=today()))
    settings.MAIL_ROUTE = "mx"
    deliveries = [d for n in range(4) for d in house.send(f"delivered@d{n}.simulator.test")]
    settings.MAIL_ROUTE = "sandbox"
    assert not Queued.objects.filter(destination="sandbox").exists()
    pump_until(lambda: not Delivery.objects.filter(id__in=[d.id for d in deliveries], status="queued").exists())
    assert not Delivery.objects.filter(rule=RULE).exists() and next(cuts, "") == ""


def test_resting_addresses_hand_over_until_their_rest_ends(lab: Lab) -> None:
    house = build()
    spare = pool("spare", TWO)
    rest = {"rests_until": timezone.now() + timedelta(hours=1), "rests_why": "A block list names it."}
    PoolRule.objects.create(pool=pool("own", ONE, overflow=spare, **rest))
    pump_until(ended(send(house, 3)))
    SourceAddress.objects.filter(address=ONE).update(rests_until=timezone.now())
    pump_until(ended(send(house, 3)))
    assert peers(lab) == {TWO: 3, ONE: 3}


LISTED = "550 5.7.1 blocked, see zen.spamhaus.org"


def said(delivery: Delivery, lease: UUID, address: str, text: str = LISTED) -> Result:
    hop = Hop("mx.one.test", "192.0.2.1", source=address, site="sandbox")
    outcome = Replied(Stage.DOT, Reply(int(text[:3]), (text[4:],)))
    verdict, now = classify(outcome), timezone.now()
    return Result(delivery.id, lease, verdict, (Tried(uuid4(), Attempted(hop, outcome, now, now, "", None), verdict),))


def test_an_address_that_a_receiver_distrusts_rests_there_and_the_others_carry_its_mail(lab: Lab, settings) -> None:
    rests._in_a_row.clear()
    house, lease = build(), uuid4()
    PoolRule.objects.create(pool=pool("own", ONE, TWO))
    failed = send(house, 12)
    queue.claim(lease, 100, 1 << 26, {})
    some, good, rest = failed[:4], failed[4], failed[5:]
    record([said(d, lease, ONE) for d in some])
    record(
        [
            said(failed[11], lease, ONE),
            said(good, lease, ONE, "250 2.0.0 taken"),  # also where the fifth stands before it in one batch
            said(rest[0], lease, ONE, "554 5.6.0 message content rejected as spam"),
        ]
    )
    record([said(d, lease, ONE) for d in rest[1:5]])
    assert not SourceRest.objects.exists()  # four in a row, twice
    record([said(rest[5], lease, ONE)])
    (row,) = SourceRest.objects.all()
    assert (row.address, row.site, row.strikes) == (ONE, "sandbox", 1) and "spamhaus" in row.why
    (told,) = [t for t in look.look() if t.kind is look.Kind.SOURCE_RESTS]
    assert told.subject == f"{ONE} rests for sandbox"

    pump_until(ended(send(house, 6)))
    assert peers(lab) == {TWO: 6}
    SourceRest.objects.create(address=TWO, site="sandbox", why="no", strikes=1, since=row.since, until=row.until)
    waiting = send(house, 2)
    pump_until(ended(waiting, "deferred"))
    delivery = Delivery.objects.get(id=waiting[0].id)
    assert delivery.rule == REST_RULE and "rest for a while" in delivery.reason and TWO not in delivery.reason
    sweep()
    assert ended(waiting, "deferred")()
    other = send(house, 1)  # the spare pool carries it
    SourcePool.objects.filter(name="own").update(overflow=(spare := pool("spare")))
    SourceAddress.objects.filter(address=THREE).update(pool=spare)
    pump_until(ended(other))
    assert peers(lab) == {TWO: 6, THREE: 1}

    # it begins again within a day: twice as long
    SourceRest.objects.update(until=timezone.now())
    again = send(house, 5)
    queue.claim(lease, 100, 1 << 26, {})
    record([said(d, lease, ONE) for d in again])
    row.refresh_from_db()
    assert row.strikes == 2 and row.until > timezone.now() + timedelta(minutes=110)


def test_a_host_leaves_what_another_host_sends_and_its_own_mail_is_not_held_up(lab: Lab, monkeypatch) -> None:
    house, other = build(), build()
    PoolRule.objects.create(tenant=other.tenant, pool=pool("theirs", ELSEWHERE))
    foreign = send(other, 20)
    own = send(house, 5)
    pump_until(ended(own))
    for _ in range(3):
        deliver.run()
    rows = Queued.objects.filter(delivery_id__in=[d.id for d in foreign])
    assert rows.filter(lease_id=None).count() == 20 and ended(foreign, "queued")()
    with monkeypatch.context() as fast:  # a host whose clock is fast does not take the other one for dead
        fast.setattr(timezone, "now", lambda: datetime.now(UTC) + timedelta(minutes=3))
        assert Sources().takes() == deliver._engine.sources.takes() is not None
    # the other host died: now somebody says why it waits
    SourceAddress.objects.filter(address=ELSEWHERE).update(seen_at=timezone.now() - timedelta(hours=1))
    pump_until(ended(foreign, "deferred"))
    waits = Delivery.objects.get(id=foreign[0].id)
    assert "None of the addresses that send it is in service" in waits.reason and "theirs" not in waits.reason
    assert waits.next_attempt_at > timezone.now() + timedelta(minutes=30)
    assert set(peers(lab)) <= {ONE, TWO, THREE}
    sweep()
    assert ended(foreign, "deferred")()  # nothing has changed
    # its host is back, or the operator gives the pool another address
    SourceAddress.objects.filter(address=ONE).update(pool=SourcePool.objects.get(name="theirs"))
    lab._spool.messages.clear()
    # a part of a backlog at a time, and none of it is forgotten: all at once outlasts a statement's time
    monkeypatch.setattr("deliveries.sources._AT_ONCE", 15)
    for due in (15, 20):
        SourcePool.objects.update(waits_at=timezone.now() - timedelta(hours=1))
        sweep()
        assert rows.filter(due_at__lte=timezone.now()).count() == due
        assert SourcePool.objects.filter(waits_at__isnull=False).exists() == (due < 20)
    pump_until(ended(foreign))
    assert peers(lab) == {ONE: 20}
    SourcePool.objects.update(waits_at=timezone.now() - timedelta(hours=1))
    sweep()
    assert not SourcePool.objects.filter(waits_at__isnull=False).exists()


def test_what_waits_for_another_host_does_not_hold_up_other_mail_of_its_receiver(lab: Lab, monkeypatch) -> None:
    monkeypatch.setattr(claim, "_ELSEWHERE_S", 3600)
    monkeypatch.setattr(claim, "_elsewhere", {})
    house, other = build(), build()
    theirs = pool("theirs", ELSEWHERE)
    PoolRule.objects.create(kind="bulk", pool=theirs)
    PoolRule.objects.create(tenant=other.tenant, pool=theirs)
    foreign = [*send(house, 3, lane=Lane.BULK), *send(other, 3)]
    deliver.run()
    urgent = send(house, 1, lane=Lane.HIGH)
    pump_until(ended(urgent))  # another lane is another destination
    ordinary = send(house, 1)
    deliver._engine.ring()  # as the bell does
    pump_until(ended(ordinary))
    assert ended(foreign, "queued")()


def test_there_is_one_rule_for_a_tenant_and_a_kind(lab: Lab) -> None:
    made = pool("p", ONE)
    PoolRule.objects.create(pool=made)
    with pytest.raises(IntegrityError), transaction.atomic():
        PoolRule.objects.create(pool=made)


def test_the_queue_says_which_pool_waits_and_why(lab: Lab, capsys) -> None:
    spare = pool("spare", THREE)
    pool("tired", ONE, overflow=spare, rests_until=timezone.now() + timedelta(hours=1), rests_why="Listed.")
    pool("lost", ELSEWHERE, seen_at=timezone.now() - timedelta(days=1))
    call_command("queue")
    said = capsys.readouterr().out
    assert "The IP pool tired overflows: The addresses of the IP pool tired rest: Listed. spare sends for it." in said
    assert "The IP pool lost waits: No worker host that lives has an address" in said and "spare waits" not in said
    call_command("queue", "--json")
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [(row["pool"], row["word"]) for row in rows] == [("lost", "waits"), ("tired", "overflows")]


def test_an_operator_makes_pools_and_rules_and_changes_an_address(operator: Client, monkeypatch) -> None:
    SourceAddress.objects.create(address=ONE, seen_at=timezone.now(), seen_on="h1")
    add = reverse("admin:deliveries_sourcepool_add")
    assert operator.post(add, {"name": " Own  pool "}).status_code == 302
    own = SourcePool.objects.get(name="Own pool")
    assert operator.post(add, {"name": "second", "overflow": own.pk}).status_code == 302
    second = SourcePool.objects.get(name="second")
    change = reverse("admin:deliveries_sourcepool_change", args=[own.pk])
    assert b"in a circle" in operator.post(change, {"name": "Own pool", "overflow": second.pk}).content
    rule = reverse("admin:deliveries_poolrule_add")
    assert operator.post(rule, {"tenant": "", "kind": "bulk", "pool": own.pk}).status_code == 302
    assert b"There is a rule" in operator.post(rule, {"tenant": "", "kind": "bulk", "pool": own.pk}).content
    page = reverse("admin:deliveries_sourceaddress_change", args=[ONE])
    fields = {"pool": own.pk, "helo": "Out1.example.net.", "warm_from": "2026-01-01", "rests_until_0": "",
              "rests_until_1": "", "rests_why": ""}  # fmt: skip

    def counts(_: AddressForm) -> str:  # its host, while the form is looked at
        SourceAddress.objects.update(used=7)
        return ""

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(AddressForm, "clean_rests_why", counts)
        assert operator.post(page, fields).status_code == 302
    row = SourceAddress.objects.get(address=ONE)
    assert (row.pool_id, row.helo, row.seen_on, row.used) == (own.pk, "out1.example.net", "h1", 7)
    for bad in ("out1", "a b.example", "x.example\r\nMAIL", "-.example"):
        assert operator.post(page, {**fields, "helo": bad}).status_code == 200
    assert SourceAddress.objects.get(address=ONE).helo == "out1.example.net"
    for model in ("sourcepool", "sourceaddress", "poolrule"):
        assert operator.get(reverse(f"admin:deliveries_{model}_changelist")).status_code == 200
    now = timezone.now()
    rest = SourceRest.objects.create(
        address=ONE, site="gmail.test", why="550 low reputation", strikes=1, since=now, until=now + timedelta(hours=1)
    )
    addresses = reverse("admin:deliveries_sourceaddress_changelist")
    assert "gmail.test until" in operator.get(addresses).content.decode()
    assert operator.post(addresses, {"action": "end_rests", "_selected_action": [ONE]}).status_code == 302
    rest.refresh_from_db()
    assert rest.until <= timezone.now()
    queue_page = operator.get(reverse("admin:queue")).content.decode()
    assert "IP pool second" in queue_page and "has no address" in queue_page
    assert AuditEntry.objects.filter(action__in=("pool.added", "rule.added", "address.changed")).count() == 4


def test_nobody_else_sees_the_pools(lab: Lab, client: Client) -> None:
    member = User.objects.create_user("m", password="x", is_staff=True)
    Membership.objects.create(user=member, tenant=build().tenant, role=Membership.Role.OWNER)
    client.force_login(member)
    for model in ("sourcepool", "sourceaddress", "poolrule"):
        assert client.get(reverse(f"admin:deliveries_{model}_changelist")).status_code in (302, 403)
        assert client.get(reverse("admin:deliveries_poolrule_add")).status_code in (302, 403)
