"""GET /emails by recipient, status, tag, stream and time, each page by an index."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from deliveries.models import Delivery
from deliveries.read import listing
from deliveries.read.listing import Filters
from deliveries.states import Status
from mailapi.schemas import answers
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db


def listed(api, query=""):
    answer = api.get(f"/emails{query}")
    assert answer.status_code == 200, answer.json()
    answers.EmailList.model_validate(answer.json())
    return [mail["id"] for mail in answer.json()["data"]]


def send(api, **fields):
    return api.send(**fields).json()["id"]


def test_each_filter_finds_its_mails_newest_first(api):
    plain = send(api)
    news = send(api, stream="news", tags=[{"name": "kind", "value": "letter"}])
    order = send(api, to=["Ann@simulator.test", "bob@simulator.test"], tags=[{"name": "kind", "value": "order"}])
    later = send(api, scheduled_at="in 1 hour", stream="news")
    assert listed(api) == [later, order, news, plain]
    assert listed(api, "?stream=news") == [later, news]
    assert listed(api, "?stream=transactional") == [order, plain]
    assert listed(api, "?tag=kind") == [order, news]
    assert listed(api, "?tag=kind:order") == [order]
    assert listed(api, "?recipient=Ann@simulator.test") == listed(api, "?recipient=bob%40SIMULATOR.test") == [order]
    assert listed(api, "?status=scheduled") == [later]
    assert listed(api, "?status=queued&tag=kind:letter") == [news]
    assert listed(api, "?stream=news&status=scheduled") == [later]
    assert listed(api, "?recipient=bob@simulator.test&tag=kind:letter") == []
    assert api.get("/emails?tag=kind&tag=kind:order").json()["errors"][0]["code"] == "duplicate_parameter"


def test_a_mail_is_found_by_what_became_of_any_recipient(api):
    sent = send(api, to=["a@simulator.test", "b@simulator.test"])
    Delivery.objects.filter(message_id=sent, recipient="b@simulator.test").update(status="bounced")
    assert listed(api, "?status=bounced") == listed(api, "?status=queued") == [sent]


def test_times_bound_the_list(api):
    before = datetime.now(UTC)
    sent = send(api)
    after = datetime.now(UTC) + timedelta(milliseconds=1)

    def iso(at):
        return at.isoformat().replace("+00:00", "Z")

    assert listed(api, f"?created_after={iso(before)}") == [sent]
    assert listed(api, f"?created_after={iso(after)}") == []
    assert listed(api, f"?created_before={iso(after)}") == [sent]
    assert listed(api, f"?created_before={iso(before)}") == []
    assert listed(api, "?created_after=0001-01-01T00:00:00Z&created_before=9999-12-31T23:59:59Z") == [sent]


@pytest.mark.parametrize("query", ["", "tag=kind", "recipient=a@simulator.test", "stream=news", "status=queued"])
def test_pages_with_a_filter_follow_each_other_in_both_directions(api, query):
    ids = [send(api, to="a@simulator.test", stream="news", tags=[{"name": "kind", "value": str(i)}]) for i in range(5)][
        ::-1
    ]
    send(Client(make_tenant()), to="a@simulator.test", stream="news", tags=[{"name": "kind"}])
    first = api.get(f"/emails?limit=2&{query}").json()
    assert [m["id"] for m in first["data"]] == ids[:2] and first["next"] == ids[1] and first["has_more"]
    second = api.get(f"/emails?limit=2&{query}&after={first['next']}").json()
    assert [m["id"] for m in second["data"]] == ids[2:4] and second["has_more"]
    last = api.get(f"/emails?limit=2&{query}&after={second['next']}").json()
    assert [m["id"] for m in last["data"]] == ids[4:] and last["next"] is None and not last["has_more"]
    back = api.get(f"/emails?limit=2&{query}&before={ids[3]}").json()
    assert [m["id"] for m in back["data"]] == ids[1:3] and back["has_more"] and back["next"] == ids[1]
    assert [m["id"] for m in api.get(f"/emails?limit=2&{query}&before={ids[1]}").json()["data"]] == ids[:1]


@pytest.mark.parametrize("newer", [False, True])
def test_a_rare_mail_is_found_by_following_next_past_pages_that_are_empty(api, monkeypatch, newer):
    monkeypatch.setattr(listing, "WALK", 3)
    ids = [send(api, tags=[{"name": "kind", "value": "rare" if i == 5 else "common"}]) for i in range(10)]
    found, cursor, pages = [], f"before={uuid.UUID(int=0)}" if newer else "", 0
    while True:
        page = api.get(f"/emails?tag=kind:rare&limit=2&{cursor}").json()
        found += [m["id"] for m in page["data"]]
        pages += 1
        if not page["has_more"]:
            break
        cursor = f"{'before' if newer else 'after'}={page['next']}"
    assert found == [ids[5]] and pages == 4


def test_a_mail_is_found_by_what_any_recipient_did_with_it(api):
    sent = send(api, to=["a@simulator.test", "b@simulator.test"])
    other = send(api)
    now = datetime.now(UTC)
    Delivery.objects.filter(message_id__in=[sent, other]).update(status="delivered")
    Delivery.objects.filter(message_id=sent, recipient="b@simulator.test").update(opened_at=now, complained_at=now)
    Delivery.objects.filter(message_id=other).update(opened_at=now, clicked_at=now)
    assert listed(api, "?status=opened") == [other, sent]
    assert listed(api, "?status=clicked") == [other] and listed(api, "?status=complained") == [sent]
    assert listed(api, "?status=opened&recipient=b@simulator.test") == [sent]
    assert listed(api, "?status=opened&limit=1") == [other]
    assert listed(api, f"?status=opened&limit=1&after={other}") == [sent]
    assert listed(Client(make_tenant()), "?status=opened") == []


def test_a_common_status_is_walked_and_a_rare_one_looked_up(api, monkeypatch):
    monkeypatch.setattr(listing, "WALK", 4)
    ids = [send(api) for _ in range(6)]
    Delivery.objects.filter(message_id=ids[0]).update(status="bounced")
    assert listed(api, "?status=bounced") == [ids[0]]  # the oldest, behind any walk
    assert listed(api, "?status=queued&limit=2") == [ids[5], ids[4]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("recipient=nobody", "recipient"),
        ("recipient=a%00@b.example", "recipient"),
        ("status=lost", "status"),
        ("tag=a%00b", "tag"),
        ("tag=:", "tag"),
        ("tag=:order", "tag"),
        ("stream=*", "stream"),
        ("created_after=yesterday", "created_after"),
        ("created_before=2030-01-01T00:00:00", "created_before"),
        ("reciepient=a@b.example", "reciepient"),
    ],
)
def test_a_filter_that_cannot_be_honoured_is_named(api, query, field):
    answer = api.get(f"/emails?{query}")
    assert answer.status_code == 422 and answer.json()["name"] == "invalid_parameter"
    assert [f["field"] for f in answer.json()["errors"]] == [field]


def _plans(monkeypatch, tenant, filters, **cursors):
    """What Postgres means to do for each statement of a page."""
    asked = []
    real = listing.execute

    def explained(text, params):
        asked.append("\n".join(str(row["QUERY PLAN"]) for row in real(f"EXPLAIN {text}", params)))
        return real(text, params)

    monkeypatch.setattr(listing, "execute", explained)
    listing.page(tenant, filters, 20, cursors.get("after"), cursors.get("before"))
    return asked


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (Filters(), "message_tenant"),
        (Filters(recipient="r7@many.test"), "delivery_recipient"),
        (Filters(recipient="r7@many.test", status=Status.DELIVERED, tag="kind"), "delivery_recipient"),
        (Filters(stream="news"), "message_stream"),
        (Filters(tag="kind:order"), "message_tenant"),
        (Filters(status=Status.BOUNCED), "delivery_status"),
        (Filters(status=Status.DELIVERED, stream="news"), "message_stream"),
        (Filters(since=datetime(2020, 1, 1, tzinfo=UTC), until=datetime(2040, 1, 1, tzinfo=UTC)), "message_tenant"),
    ],
)
def test_no_page_reads_a_table_from_end_to_end(api, monkeypatch, filters, index):
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH many AS (
                INSERT INTO message (id, tenant_id, message_id, from_header, "to", cc, bcc, reply_to, subject, tags,
                                     stream, lane, size, attachment_count, created_at)
                SELECT make_uuid7(), CASE n %% 3 WHEN 0 THEN %(other)s::uuid ELSE %(tenant)s END, 'x', 'a@b',
                       '[]', '[]', '[]', '[]', '', '[]',
                       CASE WHEN n %% 50 = 0 THEN 'news' ELSE 'transactional' END, 1, 1, 0, now()
                  FROM generate_series(1, 30000) n RETURNING id, tenant_id)
            INSERT INTO delivery (id, message_id, tenant_id, position, field, recipient, status, reason, category, rule,
                                  enhanced, reply, host, attempts, unknowns, late, duplicate_possible, created_at,
                                  expires_at)
            SELECT make_uuid7(), id, tenant_id, 0, 'to', 'r' || (row_number() OVER () %% 1000) || '@many.test',
                   CASE WHEN row_number() OVER () %% 200 = 0 THEN 'bounced' ELSE 'delivered' END,
                   '', '', '', '', '', '', 1, 0, false, false, now(), now() FROM many
            """,
            {"tenant": api.tenant.id, "other": make_tenant().id},
        )
        cursor.execute("ANALYZE message, delivery")
    plans = _plans(monkeypatch, api.tenant.id, filters, after=uuid.UUID(int=(1 << 128) - 1))
    assert index in "\n".join(plans)
    assert not [plan for plan in plans if "Seq Scan" in plan], plans
