"""Webhooks over the API: changed, tested, told again, their log, and events by cursor for those who poll."""

from __future__ import annotations

import base64
import json
import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import resend
from django.db import connection, transaction
from django.utils import timezone
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from deliveries import notify
from deliveries.models import AuditEntry, Event, RequestLog, WebhookDelivery, WebhookEndpoint, WebhookTry
from deliveries.models.fields import uuid7
from deliveries.notify import ask, feed
from deliveries.record.notices import Notice, tell
from deliveries.states import EventType
from mailapi import auth, noting
from mailapi.schemas import answers
from tests.fakes.receiver import Receiver, receiver
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _at_once(settings, monkeypatch) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = True
    monkeypatch.setattr(feed, "SETTLE_S", 0.0)
    auth.forget()


@pytest.fixture
def web():
    with receiver() as heard:
        yield heard


def hook(api: Client, web: Receiver, *events: str) -> dict[str, str]:
    made = api.post("/webhooks", {"endpoint": web.url(), "events": list(events)})
    assert made.status_code == 201, made.content
    return made.json() | {"path": f"/webhooks/{made.json()['id']}"}


def tell_n(api: Client, n: int, type: EventType = EventType.DOMAIN_UPDATED) -> list[str]:
    return [str(i) for i in tell([Notice(api.tenant.id, type, {"n": i}) for i in range(n)])]


def make_due() -> None:
    WebhookDelivery.objects.filter(state="pending").update(next_try_at=timezone.now() - timedelta(seconds=1))


def verifies(secret: str, came) -> bool:
    try:
        Webhook(secret).verify(came.body, came.headers)
    except WebhookVerificationError:
        return False
    return True


# --- secrets ------------------------------------------------------------------------------------------------


def test_while_a_secret_is_changed_both_verify_and_afterwards_only_the_new_one(api, web) -> None:
    made = hook(api, web, "domain.updated")
    turned = api.post(made["path"] + "/signing-secret/rotate", {})
    answers.WebhookCreated.model_validate(turned.json())
    old, new = made["signing_secret"], turned.json()["signing_secret"]
    assert turned.status_code == 200 and old != new and api.get(made["path"]).json()["signing_secret"] == new
    tell_n(api, 1)
    notify.run()
    assert verifies(old, web.came[0]) and verifies(new, web.came[0])
    svix = {name: web.came[0].headers[f"svix-{name}"] for name in ("id", "timestamp", "signature")}
    for secret in (old, new):
        asked = {"payload": web.came[0].body.decode(), "headers": svix, "webhook_secret": secret}
        assert resend.Webhooks.verify(asked)["type"] == "domain.updated"
    signatures = web.came[0].headers["webhook-signature"].split(" ")
    assert len(signatures) == 2 and web.came[0].headers["svix-signature"].split(" ") == signatures
    row = WebhookEndpoint.objects.get(id=made["id"])
    assert timedelta(hours=23) < row.previous_until - timezone.now() <= timedelta(hours=24)
    WebhookEndpoint.objects.filter(id=made["id"]).update(previous_until=timezone.now())
    tell_n(api, 1)
    notify.run()
    assert verifies(new, web.came[1]) and not verifies(old, web.came[1])


def test_a_secret_that_leaked_ends_at_once_and_is_stored_encrypted(api, web) -> None:
    made = hook(api, web, "domain.updated")
    new = api.post(made["path"] + "/signing-secret/rotate", {"overlap_hours": 0}).json()["signing_secret"]
    tell_n(api, 1)
    notify.run()
    assert verifies(new, web.came[0]) and not verifies(made["signing_secret"], web.came[0])
    api.raw(made["path"] + "/signing-secret/rotate", b"")  # no body at all
    with connection.cursor() as cursor:
        cursor.execute("SELECT previous_secret FROM webhook_endpoint WHERE id = %s", [made["id"]])
        assert new.encode() not in bytes(cursor.fetchone()[0])
    assert AuditEntry.objects.filter(tenant=api.tenant, action="webhook.secret_rotated").count() == 2
    for hours in (-1, 169, 1.5, True, "24"):
        assert api.post(made["path"] + "/signing-secret/rotate", {"overlap_hours": hours}).status_code == 422


# --- changed, off and on ------------------------------------------------------------------------------------


def test_an_endpoint_is_changed_and_its_events_are_checked(api, web) -> None:
    made = hook(api, web)
    body = {"webhook_id": made["id"], "endpoint": web.url("/new"), "events": ["domain.updated"], "status": "disabled"}
    changed = api.patch(made["path"], body)
    answers.WebhookChanged.model_validate(changed.json())
    shown = api.get(made["path"]).json()
    answers.Webhook.model_validate(shown)
    assert (shown["endpoint"], shown["events"], shown["status"]) == (web.url("/new"), ["domain.updated"], "disabled")
    assert shown["disabled_reason"].startswith("Switched off by key:")
    tell_n(api, 1)
    assert notify.run() == 0
    for wrong in ({"events": ["email.lost"]}, {"endpoint": "ftp://x.example"}, {"status": "off"}, {"secret": "x"}):
        assert api.patch(made["path"], wrong).status_code == 422, wrong
    assert "known are domain.updated, email.bounced" in api.patch(made["path"], {"events": ["x"]}).json()["message"]
    assert api.get(made["path"]).json() == shown


def test_a_dead_endpoint_is_switched_off_with_an_event_and_hears_all_of_it_once_it_is_back(api, web) -> None:
    made = hook(api, web, "domain.updated")
    with receiver() as other:
        hook(api, other, "webhook.disabled")
        web.answer = lambda came: (500, {})
        first = tell_n(api, 2)
        for _ in range(8):
            make_due()
            notify.run()
        WebhookEndpoint.objects.filter(id=made["id"]).update(failing_since=timezone.now() - timedelta(days=6))
        first += tell_n(api, 1)
        notify.run()
        shown = api.get(made["path"]).json()
        assert shown["status"] == "disabled" and shown["disabled_reason"].startswith("Every try has failed since")
        notify.run()
        assert len(other.came) == 1 and b'"type":"webhook.disabled"' in other.came[0].body
    missed = tell_n(api, 2)  # while it is off: kept as events, no row for it
    assert api.post(made["path"] + "/replay", {"failed": True}).status_code == 422
    assert api.patch(made["path"], {"status": "enabled"}).status_code == 200
    shown = api.get(made["path"]).json()
    assert (shown["status"], shown["disabled_reason"], shown["failing_since"]) == ("enabled", "", None)
    make_due()
    notify.run()
    web.came.clear()
    web.answer = lambda came: (200, {})
    start = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    done = api.post(made["path"] + "/replay", {"from": start}).json()
    answers.WebhookReplayed.model_validate(done)
    make_due()
    while notify.run():
        pass
    heard = {c.headers["webhook-id"].removeprefix("msg_") for c in web.came}
    assert heard == set(first + missed) and len(web.came) == 5


# --- tested and told again ----------------------------------------------------------------------------------


def test_a_test_event_goes_to_that_endpoint_alone(api, web) -> None:
    made = hook(api, web, "email.sent")
    with receiver() as other:
        hook(api, other, "webhook.test")
        told = api.post(made["path"] + "/test", {})
        answers.WebhookTested.model_validate(told.json())
        notify.run()
        assert other.came == []
    (came,) = web.came
    body = Webhook(made["signing_secret"]).verify(came.body, came.headers)
    assert body["type"] == "webhook.test" and body["data"]["webhook_id"] == made["id"]
    assert came.headers["webhook-id"] == f"msg_{told.json()['id']}"
    assert api.get("/events?types=webhook.test").json()["data"] == [{"id": told.json()["id"], **body}]
    assert api.get("/events").json()["data"] == []


def test_one_event_is_told_again_with_its_id_and_body(api, web) -> None:
    made = hook(api, web, "domain.updated")
    (one, two) = tell_n(api, 2)
    (never,) = tell_n(api, 1, EventType.UNSUBSCRIBED)  # not asked for by the filter, but by name
    notify.run()
    assert api.post(made["path"] + "/replay", {"event_id": one}).json()["replayed"] == 1
    assert api.post(made["path"] + "/replay", {"event_id": one}).json()["replayed"] == 0  # it waits already
    again = api.raw(f"{made['path']}/events/{never}/replay", b"")
    assert again.status_code == 200 and again.json() == {"object": "webhook_event", "id": never}
    notify.run()
    ids = [c.headers["webhook-id"] for c in web.came]
    assert sorted(ids) == sorted(f"msg_{i}" for i in (one, one, two, never))
    assert len({c.body for c in web.came if c.headers["webhook-id"] == f"msg_{one}"}) == 1
    assert WebhookDelivery.objects.filter(endpoint_id=made["id"]).count() == 3


def test_a_replay_of_one_event_has_no_fields_and_says_so(api, web) -> None:
    said = api.post(f"/webhooks/{uuid4()}/events/{uuid4()}/replay", {"failed": True})
    assert said.status_code == 422
    assert said.json()["errors"][0]["message"] == "No fields are known here; send an empty object or nothing."


def test_all_that_failed_and_a_window_are_told_again_in_bounded_steps(api, web, monkeypatch) -> None:
    monkeypatch.setattr(ask, "MOST", 2)
    made = hook(api, web, "domain.updated")
    for _ in range(3):  # a transaction each
        tell_n(api, 1)
    notify.run()
    tell_n(api, 1, EventType.SUPPRESSION_ADDED)
    WebhookDelivery.objects.filter(endpoint_id=made["id"]).update(state="failed", tries=8)
    steps = [api.post(made["path"] + "/replay", {"failed": True}).json() for _ in range(3)]
    assert [(s["replayed"], s["has_more"]) for s in steps] == [(2, True), (1, False), (0, False)]
    assert {r.tries for r in WebhookDelivery.objects.filter(endpoint_id=made["id"])} == {0}
    notify.run()
    assert len(web.came) == 6
    start, counts = "2020-01-01T00:00:00Z", []
    while start:
        step = api.post(made["path"] + "/replay", {"from": start, "to": "2100-01-01T00:00:00Z"}).json()
        counts.append(step["replayed"])
        assert step["has_more"] is (step["next_from"] is not None)
        start = step["next_from"]
    assert counts == [2, 1]
    empty = api.post(made["path"] + "/replay", {"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"}).json()
    assert (empty["replayed"], empty["has_more"]) == (0, False)


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "", "invalid_parameter"),
        ({"failed": True, "from": "2020-01-01T00:00:00Z"}, "", "invalid_parameter"),
        ({"failed": True, "to": "2020-01-01T00:00:00Z"}, "to", "invalid_parameter"),
        ({"failed": "yes"}, "failed", "invalid_parameter"),
        ({"event_id": "17"}, "event_id", "invalid_id"),
        ({"from": "yesterday"}, "from", "invalid_time"),
        ({"from": "2020-01-01T00:00:00"}, "from", "invalid_time"),
        ({"all": True}, "all", "unknown_field"),
    ],
)
def test_a_replay_that_says_nothing_clear_is_refused(api, web, body, field, code) -> None:
    answer = api.post(hook(api, web)["path"] + "/replay", body)
    assert answer.status_code == 422
    assert (field, code) in [(e["field"], e["code"]) for e in answer.json()["errors"]]


# --- the log ------------------------------------------------------------------------------------------------


def test_the_log_tells_request_response_and_time_of_every_try(api, web) -> None:
    made = hook(api, web, "domain.updated")
    web.answer = lambda came: (503, {})
    events = []
    for _ in range(3):
        events += tell_n(api, 1)
        make_due()
        notify.run()
        WebhookEndpoint.objects.update(failing_since=None)
    web.answer = lambda came: (204, {})
    WebhookDelivery.objects.filter(event_id=events[0]).update(next_try_at=timezone.now())
    api.patch(made["path"], {"endpoint": web.url("/moved")})
    make_due()
    notify.run()
    page = api.get(made["path"] + "/events?limit=2").json()
    answers.WebhookEventList.model_validate(page)
    assert [e["id"] for e in page["data"]] == events[:0:-1] and page["has_more"]
    rest = api.get(f"{made['path']}/events?limit=2&after={events[1]}").json()
    assert [e["id"] for e in rest["data"]] == events[:1] and not rest["has_more"]
    newer = api.get(f"{made['path']}/events?limit=1&before={events[0]}").json()
    assert [e["id"] for e in newer["data"]] == events[1:2] and newer["has_more"]
    one = api.get(f"{made['path']}/events/{events[0]}").json()
    answers.WebhookEvent.model_validate(one)
    assert one["status"] == "success" and one["next_attempt_at"] is None
    posted = {c.body for c in web.came if c.headers["webhook-id"] == f"msg_{events[0]}"}
    assert [one["payload"]] == [json.loads(body) for body in posted]
    tries = api.get(f"{made['path']}/events/{events[0]}/attempts").json()
    answers.WebhookAttemptList.model_validate(tries)
    codes = [t["http_status_code"] for t in tries["data"]]
    assert codes[0] == 204 and set(codes[1:]) == {503} and one["tries"] == len(codes)
    assert (tries["data"][0]["endpoint"], tries["data"][-1]["endpoint"]) == (web.url("/moved"), web.url())
    assert {t["address"] for t in tries["data"]} == {"127.0.0.1"} and tries["data"][-1]["response"] == "ok"


def test_nothing_of_anothers_webhooks_and_events_is_shown_or_moved(api, web) -> None:
    other = Client(make_tenant())
    made = hook(other, web, "domain.updated")
    own = hook(api, web, "domain.updated")
    (theirs,) = tell_n(other, 1)
    notify.run()
    for path in (made["path"], f"/webhooks/{uuid4()}", "/webhooks/x"):
        posts = [("/signing-secret/rotate", {}), ("/test", {}), ("/replay", {"failed": True})]
        posts += [("/replay", {"event_id": theirs}), ("/replay", {"from": "2020-01-01T00:00:00Z"})]
        for tail, body in [*posts, (f"/events/{theirs}/replay", {})]:
            assert api.post(path + tail, body).status_code == 404, (path, tail)
        for tail in ("/events", f"/events/{theirs}", f"/events/{theirs}/attempts"):
            assert api.get(path + tail).status_code == 404, (path, tail)
        assert api.patch(path, {"status": "disabled"}).status_code == 404
    assert api.post(own["path"] + "/replay", {"event_id": theirs}).status_code == 404
    assert api.get(f"{own['path']}/events/{theirs}").status_code == 404
    assert api.get(f"/events/{theirs}").status_code == 404 and other.get(f"/events/{theirs}").status_code == 200
    assert api.get(f"/events?after={theirs}").json()["data"] == api.get("/events").json()["data"] == []
    assert len(web.came) == 1 and other.get(made["path"]).json()["signing_secret"] == made["signing_secret"]


# --- events by cursor ---------------------------------------------------------------------------------------


def pages(api: Client, query: str = "") -> list[list[str]]:
    """Ids page by page, until there is no more."""
    found, cursor = [], ""
    while True:
        page = api.get(f"/events?{query}{cursor}").json()
        answers.EventPage.model_validate(page)
        found.append([e["id"] for e in page["data"]])
        cursor = f"&after={page['next']}"
        if not page["has_more"]:
            return found


def test_events_are_polled_in_the_shape_of_the_webhook(api, web) -> None:
    hook(api, web)
    message = api.send().json()["id"]
    notify.run()
    (page,) = [api.get("/events").json()]
    (came,) = web.came
    event = page["data"][0]
    assert came.headers["webhook-id"] == f"msg_{event['id']}" and page["next"] == event["id"]
    assert event == {"id": event["id"], **json.loads(came.body)}
    assert event["data"]["email_id"] == message and event["data"]["sequence"] == 1
    assert api.get(f"/events/{event['id']}").json() == event
    answers.EventTold.model_validate(event)
    assert api.get(f"/events?after={page['next']}").json() == {
        "object": "list", "has_more": False, "next": page["next"], "data": [],
    }  # fmt: skip


def test_pages_follow_each_other_without_a_gap_and_types_are_chosen(api, monkeypatch) -> None:
    ids = tell_n(api, 5)
    removed = tell_n(api, 2, EventType.SUPPRESSION_REMOVED)
    ids += removed + tell_n(api, 3)
    optional = tell_n(api, 1, EventType.UNSUBSCRIBED)
    assert pages(api, "limit=4") == [ids[:4], ids[4:8], ids[8:]]
    assert pages(api, "types=suppression.removed,email.unsubscribed") == [removed + optional]
    assert pages(api, "types=suppression.removed&types=email.unsubscribed&limit=3") == [removed + optional]
    monkeypatch.setattr(feed, "LOOK_AT", 3)  # rare types: a page looks only so far, and the cursor goes on
    assert [i for page in pages(api, "types=email.unsubscribed") for i in page] == optional
    assert [i for page in pages(api, "limit=2") for i in page] == ids
    for wrong in ("types=email.lost", "after=x", "limit=0", f"before={ids[0]}"):
        assert api.get(f"/events?{wrong}").status_code == 422, wrong


def test_a_cursor_whose_event_retention_took_loses_nothing(api) -> None:
    old = tell_n(api, 1)[0]
    ids = tell_n(api, 3)
    Event.objects.filter(id=old).delete()
    assert [e["id"] for e in api.get(f"/events?after={old}").json()["data"]] == ids


def test_a_transaction_that_commits_late_is_not_passed_over(api) -> None:
    """An event with an older id and time, committed after a newer one was there, is still found by the cursor."""
    began, may_end, seen = threading.Event(), threading.Event(), []

    def late() -> None:
        try:
            with transaction.atomic():
                seen.extend(tell_n(api, 1))
                began.set()
                may_end.wait(60)
        finally:
            connection.close()

    first = tell_n(api, 1)
    thread = threading.Thread(target=late)
    thread.start()
    assert began.wait(60)
    newer = tell_n(api, 1)
    before = api.get("/events").json()
    assert [e["id"] for e in before["data"]] == first  # the newer one waits for the older transaction
    may_end.set()
    thread.join()
    after = api.get(f"/events?after={before['next']}").json()
    assert [e["id"] for e in after["data"]] == [*seen, *newer]


def test_a_reader_that_stays_holds_the_feed_back_for_a_while_only(api, monkeypatch) -> None:
    info = connection.get_connection_params()
    dsn = {k: info[k] for k in ("dbname", "user", "password", "host", "port") if info.get(k)}
    with psycopg.connect(**dsn) as dump:
        dump.execute("SELECT count(*) FROM event")  # a transaction that has written nothing yet
        ids = tell_n(api, 1)
        assert api.get("/events").json()["data"] == []
        monkeypatch.setattr(feed, "READERS_S", 0.0)
        assert [e["id"] for e in api.get("/events").json()["data"]] == ids
        dump.rollback()


def test_a_poller_beside_many_writers_sees_every_event_exactly_once(api) -> None:
    written: list[str] = []
    take = threading.Lock()

    def write() -> None:
        try:
            for i in range(25):
                with transaction.atomic():
                    made = tell_n(api, 1 + i % 3)
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT pg_sleep(%s)", [(i % 4) / 200])
                with take:
                    written.extend(made)
        finally:
            connection.close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for t in threads:
        t.start()
    polled: list[str] = []
    cursor = ""
    ended = False
    while True:
        page = api.get(f"/events?limit=7{cursor}").json()
        polled += [e["id"] for e in page["data"]]
        cursor = f"&after={page['next']}" if page["next"] else ""
        if ended and not page["has_more"]:
            break
        ended = not any(t.is_alive() for t in threads)
    assert len(polled) == len(set(polled)) and set(polled) == set(written) and len(written) == 4 * 49


def test_an_id_that_no_clock_made_is_a_cursor_all_the_same(api) -> None:
    ids = tell_n(api, 1)
    assert [e["id"] for e in api.get(f"/events?after={uuid4()}").json()["data"]] in ([], ids)
    assert api.get(f"/events?after={uuid7()}").status_code == 200
    assert api.get("/events?after=ffffffff-ffff-ffff-ffff-ffffffffffff").json()["data"] == []


def test_a_password_in_the_url_goes_along_as_basic_authentication_and_is_shown_nowhere(api, web, caplog) -> None:
    noting.logbook.cache_clear()
    url = web.url()
    made = api.post("/webhooks", {"endpoint": url.replace("://", "://shop:s3cret%2Fw%C3%B6rd@"), "events": []}).json()
    path = f"/webhooks/{made['id']}"

    def authorization() -> str | None:
        api.post(f"{path}/test", {})
        notify.run()
        return web.came[-1].headers.get("authorization")

    assert authorization() == "Basic " + base64.b64encode("shop:s3cret/wörd".encode()).decode()
    row = WebhookEndpoint.objects.get(id=made["id"])
    assert (row.url, bytes(row.credentials)) == (url, "shop:s3cret/wörd".encode())
    with connection.cursor() as cursor:
        cursor.execute("SELECT credentials FROM webhook_endpoint WHERE id = %s", [row.id])
        assert b"s3cret" not in bytes(cursor.fetchone()[0])
    shown = [api.get(p).json() for p in ("/webhooks", path, f"{path}/events")]
    assert (shown[1]["endpoint"], shown[1]["basic_auth"]) == (url, True)
    noting.logbook().flush()
    kept = [list(model.objects.values_list()) for model in (RequestLog, AuditEntry, WebhookTry, WebhookDelivery, Event)]
    assert "s3cret" not in f"{shown}{kept}{caplog.text}" and "[redacted]@127.0.0.1" in str(kept)

    api.patch(path, {"endpoint": web.url("/other")})
    assert authorization() is not None and web.came[-1].path == "/other"
    api.patch(path, {"endpoint": url.replace("://", "://new:pair@")})
    assert authorization() == "Basic " + base64.b64encode(b"new:pair").decode()
    api.patch(path, {"endpoint": url.replace("127.0.0.1", "localhost")})  # another host is not to learn it
    assert authorization() is None and api.get(path).json()["basic_auth"] is False
    api.patch(path, {"endpoint": url.replace("://", "://a:b@")})
    api.patch(path, {"endpoint": url.replace("://", "://@")})
    assert authorization() is None and WebhookEndpoint.objects.get(id=row.id).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://user:password@app.example.com/",
        "https://user:pass@word@app.example.com/",
        "https://user%3A:password@app.example.com/",
        "https://user:pass%0D%0Aword@app.example.com/",
        "https://user:pass%word@app.example.com/",
        "https://app.example.com\\@evil.example/",
        "https://user:password@127.0.0.1/",
        "https://user:password@app.example.com:25/",
    ],
)
def test_a_password_that_cannot_be_sent_safely_is_refused(api, settings, url: str) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    made = api.post("/webhooks", {"endpoint": "https://app.example.com/"}).json()
    for word in ("endpoint", "url"):
        answers = api.post("/webhooks", {word: url}), api.patch(f"/webhooks/{made['id']}", {word: url})
        assert [(a.status_code, a.json()["errors"][0]["field"]) for a in answers] == [(422, word)] * 2
    assert [row.url for row in WebhookEndpoint.objects.filter(tenant=api.tenant)] == ["https://app.example.com/"]
