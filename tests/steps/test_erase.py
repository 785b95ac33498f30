"""One person's data goes from every table, nobody else's with it, and who complained is still not written to."""

from __future__ import annotations

import html
import json
import quopri
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client as PanelClient
from django.urls import reverse

from deliveries import erase, keys, queue, suppress
from deliveries.models import (
    AuditEntry,
    Delivery,
    Erasure,
    Event,
    IdempotencyKey,
    InboundMessage,
    Message,
    MessageContent,
    OperatorAlert,
    RequestLog,
    Site,
    SourceRest,
    Suppression,
    WebhookDelivery,
    WebhookTry,
)
from deliveries.models.erasure import hashed
from deliveries.models.fields import uuid7
from deliveries.read import erasures as read
from deliveries.record import operator, retention, suppressions
from deliveries.record.outcomes import record
from deliveries.record.person import Person
from deliveries.record.retention import Time
from deliveries.smtp.outcome import Verdict
from deliveries.states import Category, Status
from mailapi import auth, noting
from tests.fakes import mail
from tests.fakes.house import House, build, known_sites
from tests.steps.api import Client
from tests.steps.test_record import result

#: a refusal that suppresses nobody
REFUSED = Verdict(Status.BOUNCED, "spam", Category.CONTENT_SPAM, False, "5.7.1", 550, "550 5.7.1 not like this")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(retention, "PAUSE_S", 0)
    monkeypatch.setattr(retention, "BATCH", 3)  # several windows of each table
    monkeypatch.setattr(retention, "MOST_OCTETS", 1_000)
    settings.MAIL_ROUTE = "mx"
    known_sites("one.test")
    auth.forget()
    noting.logbook.cache_clear()


def everywhere(address: str) -> list[str]:
    """Tables in which any row says the address, as text or as octets, plain or as other formats write it."""
    found = []
    forms = [f"%{form.lower()}%" for form in (address, quote(address, safe=""), html.escape(address))]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.oid::regclass::text FROM pg_class c"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        )
        for (table,) in cursor.fetchall():
            # octets show as hexadecimal digits
            cursor.execute(
                f"SELECT count(*) FROM {table} t WHERE lower(t::text) LIKE ANY (%s) OR t::text LIKE %s"
                " OR position(%s in lower(t::text)) > 0",
                [
                    forms,
                    f"%{address.encode().hex()}%",
                    json.dumps(address.lower())[1:-1].replace("\\", "\\\\"),  # as a row's text has it
                ],
            )
            if cursor.fetchone()[0]:
                found.append(table)
    return found


def order(house: House, address: str, **kwargs: Any) -> Erasure:
    row = erase.order(house.tenant.id, address, "test", **kwargs)
    erase.work(row, Time(time.monotonic() + 120))
    return row


def person(name: str = "ann") -> str:
    return f"{name}.{uuid4().hex[:10]}@one.test"


def lives(house: House, ann: str) -> Message:
    """All that the service writes about a person: sent, refused, told, logged, answered, received, suppressed."""
    lease = uuid4()
    (delivery,) = house.send(ann.capitalize(), html=f"<p>{ann}</p>", metadata=(("user", ann),), subject=f"For {ann}")
    assert len(queue.claim(lease, 100, 1 << 26, {}).rows) == 1
    record([result(delivery.id, lease, REFUSED, f"1 C: RCPT TO:<{ann}>\n2 S: 550 no {ann}")])
    event = Event.objects.filter(delivery_id=delivery.id).first()
    now = datetime.now(UTC)
    post = WebhookDelivery.objects.create(
        tenant_id=house.tenant.id, endpoint_id=uuid4(), event_id=event.id, type=event.type, state="failed",
        body=json.dumps({"data": {"to": [ann], "note": f"line\n{ann}"}}), next_try_at=now, created_at=now,
    )  # fmt: skip
    WebhookTry.objects.create(delivery_id=post.id, at=now, elapsed_ms=1, response=f"got {ann}")
    RequestLog.objects.create(
        id=uuid7(), tenant_id=house.tenant.id, key_id=house.key.id, method="GET", status=200, took_ms=1, user_agent="",
        endpoint=f"/suppressions/{ann.replace('@', '%40')}", request_body=json.dumps({"text": f"a\n{ann}"}),
        created_at=now,
    )  # fmt: skip
    IdempotencyKey.objects.create(
        tenant_id=house.tenant.id, endpoint="/emails", key=f"welcome/{ann}/{lease}", body_hash=b"x" * 32, answer={},
        created_at=now,
    )  # fmt: skip
    InboundMessage.objects.create(
        received_at=now, peer="x", reverse_path=ann, forward_path="hi@here.test", octets=f"From: {ann}\r\n".encode(),
        state="received", tenant=house.tenant, letter={"from": f"Ann <{ann}>"},
    )  # fmt: skip
    InboundMessage.objects.create(
        received_at=now, peer="x", forward_path="b-token@here.test", octets=f"no {ann}".encode(), state="acted",
        delivery_id=delivery.id,
    )  # fmt: skip
    AuditEntry.objects.create(tenant=house.tenant, actor="bob", action="delivery.held", subject=f"x {ann}")
    return Message.objects.get(id=delivery.message_id)


def answers_that_name(house: House, ann: str) -> None:
    """Bob's mail is passed on to Ann's box, and what its server says of her is kept wherever a last reply is."""
    (passed_on,) = house.send("bob@one.test")
    operator.cancel([passed_on.id], "test")
    said, now = f"550 <{ann}> is full", datetime.now(UTC)
    Delivery.objects.filter(id=passed_on.id).update(reply=said, reason=said)
    InboundMessage.objects.create(
        received_at=now, peer="x", forward_path="b-token@here.test", octets=f"Final-Recipient: {ann}".encode(),
        state="acted", delivery_id=passed_on.id,
    )  # fmt: skip
    Site.objects.filter(name="one.test").update(reason=said, last_reply=said)
    SourceRest.objects.create(address="192.0.2.1", site=uuid4().hex, why=said, strikes=1, since=now, until=now)
    OperatorAlert.objects.create(
        kind="source_rests", subject=uuid4().hex, words=said, since=now, seen_at=now, open=True
    )


@pytest.mark.parametrize("name", ["ann", "änn.ös", "o'ann+news"])
def test_no_row_of_any_table_names_the_address_afterwards(name: str) -> None:
    house, ann = build(), person(name)
    lives(house, ann)
    lives(house, ann)
    suppressions.add(house.tenant, ann, "complaint", f"a report of {ann}", "test", "news")
    words = html.escape(ann) + f" has signed up: https://x.test/?who={quote(ann, safe='')}"
    house.send("bob@one.test", text=words)
    answers_that_name(house, ann)
    folded = quopri.encodestring(f"<a href='mailto:{ann}'>".encode().rjust(90, b"-"))
    InboundMessage.objects.create(
        received_at=datetime.now(UTC), peer="x", forward_path="hi@here.test", octets=folded, state="received",
        tenant=house.tenant,
    )  # fmt: skip
    for (waiting,) in (house.send(ann), house.send("carl@one.test", text="Hello")):
        other = waiting
    operator.cancel([d.id for d in Delivery.objects.filter(recipient="bob@one.test")], "test")
    assert len(everywhere(ann)) > 10
    row = order(house, ann)
    assert row.done_at and row.status == "done" and everywhere(ann) == []
    assert row.found["mails"] == 3 and row.found["canceled"] == 1 and row.found["contents"] == 1
    assert "sites" not in row.found  # what servers said to others is not told
    assert not InboundMessage.objects.filter(tenant=house.tenant).exists()
    assert Delivery.objects.get(id=other.id).status == "queued"
    assert AuditEntry.objects.filter(tenant=house.tenant, action="person.erased").count() == 1


def test_an_address_is_a_word_beside_letters_and_signs_beyond_ascii() -> None:
    house, ann = build(), person()
    other = f"ü{ann}"
    others = other, quote(f"big+{ann}", safe=""), f"?to=17{ann}", f"{ann}.=\norg", f"{ann}=2Eorg"
    (mail,) = house.send(other, text=f"Dear {' '.join(others)}, see https://x.test/{quote(other)}")
    quoted = f"Write to “{ann}”."
    for octets in (quoted.encode(), other.encode()):
        InboundMessage.objects.create(
            received_at=datetime.now(UTC), peer="x", forward_path="hi@here.test", octets=octets, state="received",
            tenant=house.tenant,
        )  # fmt: skip
    for text in (quoted, other):
        RequestLog.objects.create(
            id=uuid7(), tenant_id=house.tenant.id, key_id=house.key.id, method="GET", status=200, took_ms=1,
            user_agent="", endpoint=f"/x/{quote(text)}", request_body=json.dumps({"text": text}),
            created_at=datetime.now(UTC),
        )  # fmt: skip
    operator.cancel([mail.id], "test")
    row = order(house, ann)
    assert row.found == {"received mails": 1, "requests": 1}
    assert MessageContent.objects.get(id=mail.message_id).text.startswith(f"Dear {other}")
    assert [bytes(i.octets) for i in InboundMessage.objects.all()] == [other.encode()]
    # RFC 2045 §6.7: a line's end within somebody else's address, or behind a sign
    broken = [f"To: {head}=\r\n{ann}" for head in ("big", "x", "xy", "big+", "k=C3=BC", "=C3=BC", "a.b_")]
    whole = [f"To: {head}=\r\n{ann}" for head in ("", "<", "me <", "=3C", "mailto=3A", "mailto%3A", "a, ", "b@c.test,")]
    whole += [f"=\r\n{ann}", f"To: big=\r\n{ann}, {ann}", f"{ann}\r\n{ann}"]
    with connection.cursor() as cursor:
        params = Person(ann, None).params()
        for texts, found in ((broken, False), (whole, True)):
            cursor.execute("SELECT t, t ~* %s FROM unnest(%s::text[]) AS t", [params["like"], texts])
            assert dict(cursor.fetchall()) == dict.fromkeys(texts, found)
        cursor.execute("SELECT regexp_replace(%s, %s, %s, 'gi')", [whole[-1], params["like"], params["put"]])
        assert cursor.fetchone() == ("(erased)\r\n(erased)",)
    left = list(RequestLog.objects.order_by("id").values_list("request_body", flat=True))
    assert json.loads(left[0]) == {"text": "Write to “(erased)”."} and json.loads(left[1]) == {"text": other}


def test_who_is_suppressed_stays_so_without_being_named() -> None:
    house, ann = build(), person()
    suppressions.add(house.tenant, ann, "complaint", "", "test")
    order(house, ann)
    assert everywhere(ann) == []
    (delivery,) = house.send(ann.upper().replace("ONE.TEST", "one.test"))
    assert delivery.status == "suppressed" and "complaint" in delivery.reason
    assert suppress.find(house.tenant.id, [ann])[ann].reason == "complaint"
    (other,) = house.send(person())
    assert other.status == "queued"


def test_what_was_accepted_before_the_suppression_became_a_hash_is_not_sent() -> None:
    from deliveries.deliver import jobs

    house, ann = build(), person()
    Suppression.objects.create(
        tenant=house.tenant, stream="*", address=hashed(house.tenant.id, ann), reason="complaint",
        created_at=datetime.now(UTC),
    )  # fmt: skip
    (delivery,) = house.send(ann)
    assert delivery.status == "queued"  # nobody of this tenant was erased, so accept looks for no hash
    house.tenant.erased = True
    house.tenant.save()
    lease = uuid4()
    claimed = queue.claim(lease, 100, 1 << 26, {}).rows
    _, refused = jobs.load(claimed, lease)
    assert [r.verdict.status for r in refused] == ["suppressed"]


def test_suppressions_may_be_dropped_too() -> None:
    house, ann = build(), person()
    suppressions.add(house.tenant, ann, "complaint", "", "test")
    assert order(house, ann, keep_suppressions=False).found["suppressions"] == 1
    assert house.send(ann)[0].status == "queued"


def test_a_mail_that_waits_for_somebody_else_leaves_as_it_was_and_is_erased_then() -> None:
    house, ann = build(), person()
    own, other = house.send(ann, "bob@one.test", text=f"Dear {ann} and Bob")
    row = order(house, ann)
    assert row.status == "waiting" and row.waiting and row.done_at is None
    assert Delivery.objects.get(id=own.id).status == "canceled"
    assert Delivery.objects.get(id=other.id).status == "queued"
    assert ann in MessageContent.objects.get(id=own.message_id).text
    assert "Erasure" not in everywhere(ann) and bytes(Erasure.objects.get(id=row.id).address).decode() == ann
    operator.cancel([other.id], "test")
    Erasure.objects.update(due_at=datetime.now(UTC) - timedelta(seconds=1))
    erase.run()
    assert Erasure.objects.get(id=row.id).done_at and everywhere(ann) == []
    kept = Message.objects.get(id=own.message_id)
    assert (kept.to, kept.subject) == (["bob@one.test"], "Your receipt") and kept.redacted_at
    assert [d.recipient for d in kept.deliveries.all()] == ["bob@one.test"]


def test_other_addresses_and_other_tenants_are_left_alone() -> None:
    mine, theirs = build(), build()
    word = uuid4().hex[:8]
    kept = [f"jo-{word}.ann@one.test", f"{word}.ann@one.test.example", f"x{word}.ann@one.test", f"{word}.ann@one.tests"]
    for address in kept:
        mine.send(address, text=f"Hello {address}")
    (foreign,) = theirs.send(f"{word}.ann@one.test")
    for delivery in Delivery.objects.filter(tenant=mine.tenant):
        operator.cancel([delivery.id], "test")
    row = order(mine, f"{word}.ann@one.test")
    assert row.done_at and row.found == {}
    assert Delivery.objects.filter(tenant=mine.tenant).count() == len(kept)
    assert Delivery.objects.get(id=foreign.id).status == "queued"


def test_a_pass_that_runs_out_of_time_goes_on_where_it_stopped() -> None:
    house, ann = build(), person()
    mails = [lives(house, ann) for _ in range(4)]
    row = erase.order(house.tenant.id, ann, "test")
    passes = 0
    while row.done_at is None:
        passes += 1
        assert passes < 200
        left = Time(0)
        rounds = iter([True, True, False])
        left_once = type("Once", (), {"left": lambda self: next(rounds, False)})()
        erase.work(row, left_once if left else left)
        row = Erasure.objects.get(id=row.id)
    assert passes > 3 and row.found["mails"] == len(mails) and everywhere(ann) == []


def test_what_is_large_is_looked_at_a_little_at_a_time() -> None:
    house, ann = build(), person()
    for size in (600, 300, 200, 5_000, 10):
        InboundMessage.objects.create(
            received_at=datetime.now(UTC), peer="x", forward_path="hi@here.test", octets=ann.encode().ljust(size),
            state="received", tenant=house.tenant,
        )  # fmt: skip
    end, left = datetime.now(UTC) + timedelta(days=1), Time(time.monotonic() + 120)
    sizes = [len(ids) for ids in retention.windows("inbound_message", end, left, octets="octet_length(octets)")]
    assert sizes == [2, 1, 1, 1]
    assert order(house, ann).found == {"received mails": 5}


def test_the_terminal_tells_what_would_go_and_changes_nothing() -> None:
    house, ann = build(), person()
    lives(house, ann)
    house.send(ann)
    before = set(everywhere(ann))
    said = StringIO()
    call_command("erase", f"Ann <{ann}>", "--tenant", str(house.tenant.id), "--dry-run", "--json", stdout=said)
    dry = json.loads(said.getvalue())
    assert dry["found"]["mails"] == 2 and dry["found"]["canceled"] == 1 and set(everywhere(ann)) == before
    call_command("erase", ann, "--json", stdout=(said := StringIO()))  # of every tenant
    done = json.loads(said.getvalue())
    assert done["status"] == "done" and everywhere(ann) == []
    assert {k: v for k, v in done["found"].items() if k in dry["found"]}["mails"] == 2
    call_command("erase", ann, stdout=(said := StringIO()))
    assert "Nothing names the address" in said.getvalue()


def test_the_api_takes_an_order_and_tells_how_far_it_is() -> None:
    house, ann = build(), person()
    lives(house, ann)
    api, other = Client(house.tenant, house.secret, house.domain.name), build()
    answer = api.post("/erasures", {"email": ann})
    full = Client(house.tenant, keys.create(house.tenant, "a developer's")[1], house.domain.name)
    refused = full.post("/erasures", {"email": ann})
    assert refused.status_code == 401 and refused.json()["name"] == "restricted_api_key"
    assert "owner_access" in refused.json()["message"] and full.get("/erasures").status_code == 200
    more = full.post("/api-keys", {"name": "more", "permission": "owner_access"})
    assert more.status_code == 422 and more.json()["errors"][0]["field"] == "permission"
    assert api.post("/api-keys", {"name": "as much", "permission": "owner_access"}).status_code == 201
    assert Erasure.objects.filter(tenant=house.tenant).count() == 1
    assert answer.status_code == 202 and answer.json()["status"] == "asked" and ann not in answer.content.decode()
    ident = answer.json()["id"]
    assert Client(other.tenant, other.secret, other.domain.name).get(f"/erasures/{ident}").status_code == 404
    erase.run()
    said = api.get(f"/erasures/{ident}").json()
    assert said["status"] == "done" and said["found"]["mails"] == 1
    assert [one["id"] for one in api.get("/erasures").json()["data"]] == [ident]
    noting.logbook().flush()
    assert everywhere(ann) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "email"), ({"email": "x"}, "email"), ({"email": ["a@b.test"]}, "email"),
     ({"email": "a@b.test", "mail": 1}, "mail"), ({"email": "a@b.test", "suppressions": "all"}, "suppressions")],
)  # fmt: skip
def test_a_bad_order_is_refused_by_the_name_of_its_field(body, field) -> None:
    house = build()
    answer = Client(house.tenant, house.secret, house.domain.name).post("/erasures", body)
    assert answer.status_code == 422 and field in answer.content.decode()
    assert not Erasure.objects.filter(tenant=house.tenant).exists()


def test_an_owner_erases_in_the_panel_and_a_developer_cannot() -> None:
    house, ann = build(), person()
    (delivery,) = house.send(ann)
    operator.cancel([delivery.id], "test")
    asked = {"tenant": str(house.tenant.id), "person": ann, "keep_suppressions": "on"}
    add = reverse("admin:deliveries_erasure_add")
    developer, owner = PanelClient(), PanelClient()
    developer.force_login(mail.person(f"dev-{ann[:9]}", house.tenant, role="developer"))
    owner.force_login(mail.person(f"own-{ann[:9]}", house.tenant, role="owner"))
    assert developer.post(add, asked).status_code == 403
    assert not Erasure.objects.filter(tenant=house.tenant).exists()
    page = owner.post(add, {**asked, "person": "no address"})
    assert page.status_code == 200 and not Erasure.objects.filter(tenant=house.tenant).exists()
    look = owner.post(add, {**asked, "rehearsal": "on"})
    erase.run()
    told = owner.get(look.url).content.decode()
    assert (
        "would go: mails: 1, " in told and "; nothing was changed" in told and "rehearsed" in told and ann not in told
    )
    assert house.tenant.pk in Message.objects.values_list("tenant_id", flat=True)
    rehearsed = Erasure.objects.get(tenant=house.tenant)
    assert rehearsed.address is None and read.one(house.tenant.id, rehearsed.id) is None
    assert not AuditEntry.objects.filter(tenant=house.tenant, action="person.erased").exists()
    page = owner.post(add, asked, follow=True)
    assert "asked" in page.content.decode()
    erase.run()
    row = Erasure.objects.get(tenant=house.tenant, rehearsal=False)
    page = owner.get(reverse("admin:deliveries_erasure_change", args=[row.id])).content.decode()
    assert "mails: 1" in page and ann not in page
    assert everywhere(ann) == []
