"""Webhooks: real receivers on loopback, the outbox in Postgres, the verifier of Standard Webhooks as judge."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from django.db import connection
from django.utils import timezone
from standardwebhooks import Webhook

from deliveries import endpoints, notify
from deliveries.errors import BadInput
from deliveries.models import Event, WebhookDelivery, WebhookEndpoint, WebhookTry
from deliveries.notify import ask, courier, outbox, post
from deliveries.notify.body import bodies
from deliveries.record import operator
from deliveries.record.notices import Notice, tell
from deliveries.states import OPT_IN, EventType
from tests.fakes.house import House, build
from tests.fakes.receiver import Came, receiver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _loopback(settings) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = True


def endpoint_of(house: House, url: str, events: Sequence[str] = ()) -> tuple[WebhookEndpoint, str]:
    return endpoints.create(house.tenant.id, url, events, "test")


def make_due() -> None:
    WebhookDelivery.objects.filter(state="pending").update(next_try_at=timezone.now() - timedelta(seconds=1))


def tell_all(house: House) -> None:
    """Until nothing waits, whatever had to be tried again."""
    while WebhookDelivery.objects.filter(tenant_id=house.tenant.id, state="pending").exists():
        notify.run()


def rows(endpoint: WebhookEndpoint) -> list[WebhookDelivery]:
    return list(WebhookDelivery.objects.filter(endpoint=endpoint).order_by("id"))


def tell_n(house: House, n: int, type: EventType = EventType.DOMAIN_UPDATED) -> None:
    tell([Notice(house.tenant.id, type, {"n": i}) for i in range(n)])


def in_threads(work: Callable[[], object], n: int) -> None:
    def alone() -> None:
        try:
            work()
        finally:
            connection.close()

    threads = [threading.Thread(target=alone) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def test_an_accepted_mail_is_told_once_signed_under_both_header_names() -> None:
    house = build()
    with receiver() as web:
        endpoint, secret = endpoint_of(house, web.url())
        (delivery,) = house.send("Ann <ann@one.test>", tags=(("kind", "receipt"),), headers=(("X-Ref", "7"),))
        assert notify.run() == 1
        assert notify.run() == 0
    (came,) = web.came
    told = Webhook(secret).verify(came.body, came.headers)
    renamed = {k.replace("svix-", "webhook-"): v for k, v in came.headers.items() if not k.startswith("webhook-")}
    assert Webhook(secret).verify(came.body, renamed) == told
    (row,) = rows(endpoint)
    assert came.headers["webhook-id"] == f"msg_{row.event_id}"
    assert (row.state, row.tries, row.body.encode()) == ("delivered", 1, came.body)
    assert told["type"] == "email.sent" and told["created_at"].endswith("Z")
    data = told["data"]
    assert data["email_id"] == str(delivery.message_id) and data["recipient"] == "ann@one.test"
    assert data["to"] == ["Ann <ann@one.test>"] and data["tags"] == {"kind": "receipt"} and data["sequence"] == 1
    assert data["headers"] == [{"name": "X-Ref", "value": "7"}]
    assert data["message_id"] == f"<{delivery.message.message_id}>"
    (tried,) = WebhookTry.objects.filter(delivery=row)
    assert (tried.status_code, tried.address, tried.response, tried.error) == (200, "127.0.0.1", "ok", "")


@pytest.mark.parametrize(
    ("answer", "error"),
    [((500, {}), ""), ((302, {"location": "http://127.0.0.1:1/"}), "redirect to http://127.0.0.1:1/")],
)
def test_a_receiver_that_fails_or_redirects_is_tried_again_with_the_same_id(answer, error) -> None:
    house = build()
    with receiver() as web:
        web.answer = lambda came: answer
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        before = timezone.now()
        assert notify.run() == 1
        (row,) = rows(endpoint)
        assert (row.state, row.tries) == ("pending", 1)
        assert before + timedelta(seconds=3) < row.next_try_at < timezone.now() + timedelta(seconds=6)
        endpoint.refresh_from_db()
        assert endpoint.failing_since is not None and endpoint.enabled
        make_due()
        web.answer = lambda came: (204, {})
        assert notify.run() == 1
    endpoint.refresh_from_db()
    assert endpoint.failing_since is None and rows(endpoint)[0].state == "delivered"
    first, second = web.came
    assert first.headers["webhook-id"] == second.headers["webhook-id"] and first.body == second.body
    log = WebhookTry.objects.filter(delivery=row).order_by("id")
    assert [t.status_code for t in log] == [answer[0], 204] and error in log[0].error


def test_a_receiver_that_is_away_is_tried_again() -> None:
    house = build()
    with receiver() as web:
        url = web.url()
    endpoint, _ = endpoint_of(house, url, ["domain.updated"])  # nobody listens there any more
    tell_n(house, 1)
    assert notify.run() == 1
    assert (rows(endpoint)[0].state, rows(endpoint)[0].tries) == ("pending", 1)
    tried = WebhookTry.objects.get(delivery__endpoint=endpoint)
    assert tried.status_code is None and "cannot connect" in tried.error


def test_a_receiver_that_hangs_holds_its_own_places_only() -> None:
    house = build()
    with receiver() as slow, receiver() as well:
        slow.answer = slow.hang
        hung, _ = endpoint_of(house, slow.url(), ["domain.updated"])
        fine, _ = endpoint_of(house, well.url(), ["domain.updated"])

        def answer(came: Came) -> tuple[int, dict[str, str]]:
            if len(well.came) == 20:  # the good one has heard all, while the first four to the other still hang
                at_that_time.append(len(slow.came))
                slow.let_go.set()
            return 200, {}

        at_that_time: list[int] = []
        well.answer = answer
        tell_n(house, 20)
        notify.run()
        assert at_that_time and max(at_that_time) <= courier.AT_ONCE_EACH
        assert slow.most_at_once <= courier.AT_ONCE_EACH and well.most_at_once <= courier.AT_ONCE_EACH
    assert {r.state for r in rows(fine) + rows(hung)} == {"delivered"}


def test_a_run_that_waits_for_its_last_receiver_still_tells_the_others(monkeypatch) -> None:
    house = build()
    real = post.post
    monkeypatch.setattr(courier, "post", lambda telling, private, keep: real(telling, private, timeout_s=90, keep=keep))
    monkeypatch.setattr(courier, "QUICK_MS", 60_000)  # however long a busy machine takes
    hanging, heard = threading.Event(), threading.Semaphore(0)
    with receiver() as slow, receiver() as well:
        slow.answer = lambda came: (hanging.set(), slow.hang(came))[1]
        well.answer = lambda came: (heard.release(), (200, {}))[1]
        hung, _ = endpoint_of(house, slow.url(), ["domain.updated"])
        endpoint_of(house, well.url(), ["domain.updated"])
        tell_n(house, 1)
        working = threading.Thread(target=lambda: (courier.drain(claim_s=0), connection.close()))
        working.start()
        try:
            assert hanging.wait(60) and heard.acquire(timeout=60)
            tell_n(house, 2)
            assert heard.acquire(timeout=60) and heard.acquire(timeout=60)
        finally:
            slow.let_go.set()
            working.join()
    assert len(slow.came) == 1  # time was up: its next ones are for the next run
    assert sorted(r.state for r in rows(hung)) == ["delivered", "pending", "pending"]


def test_no_answer_in_time_is_a_failure(monkeypatch) -> None:
    house = build()
    real = post.post
    monkeypatch.setattr(
        courier, "post", lambda telling, private, keep: real(telling, private, timeout_s=0.3, keep=keep)
    )
    with receiver() as web:
        web.answer = web.hang
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        notify.run()
    (row,) = rows(endpoint)
    assert row.state == "pending"
    assert "no complete answer within 0.3 s" in WebhookTry.objects.filter(delivery=row)[0].error


def test_a_failing_endpoint_gets_one_post_at_a_time_until_it_answers() -> None:
    house = build()
    with receiver() as web:
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        WebhookEndpoint.objects.filter(id=endpoint.id).update(failing_since=timezone.now())
        tell_n(house, 3)
        assert len(outbox.claim(32, 8, {})) == 1
        assert outbox.claim(32, 8, {endpoint.id: 1}) == []
        assert outbox.claim(32, 0, {}) == []


def test_two_couriers_side_by_side_send_each_event_once() -> None:
    house = build()
    with receiver() as web:
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 60)
        in_threads(courier.drain, 2)
        ids = [c.headers["webhook-id"] for c in web.came]
    assert len(ids) == len(set(ids)) == 60
    assert {(r.state, r.tries) for r in rows(endpoint)} == {("delivered", 1)}


def test_a_second_run_on_the_same_host_leaves_the_work_to_the_first() -> None:
    house = build()
    with receiver() as web:
        endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        with courier._only_one() as ours:
            assert ours
            answers: list[int] = []
            in_threads(lambda: answers.append(notify.run()), 1)
            assert answers == [0] and web.came == []
        assert notify.run() == 1


def test_a_crash_between_the_post_and_its_record_sends_it_again_with_the_same_id_and_body(monkeypatch) -> None:
    house = build()
    with receiver() as web:
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)

        class Killed(BaseException):
            pass

        def dies(posted: object) -> None:
            raise Killed

        before = timezone.now()
        with monkeypatch.context() as patch:
            patch.setattr(outbox, "record", dies)
            with pytest.raises(Killed):
                notify.run()
        (row,) = rows(endpoint)
        assert row.state == "pending" and row.next_try_at > before + timedelta(seconds=50)
        assert notify.run() == 0  # not before the lease ends
        make_due()
        assert notify.run() == 1
    assert web.came[0].headers["webhook-id"] == web.came[1].headers["webhook-id"]
    assert web.came[0].body == web.came[1].body


def test_retry_after_puts_the_next_try_off() -> None:
    house = build()
    with receiver() as web:
        web.answer = lambda came: (503, {"retry-after": "900"})
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        notify.run()
    assert timedelta(minutes=14) < rows(endpoint)[0].next_try_at - timezone.now() <= timedelta(minutes=15)


def test_what_breaks_the_post_to_one_endpoint_is_its_own_failed_try_and_the_others_are_told(monkeypatch) -> None:
    house = build()
    broken = uuid4()

    async def breaks(telling: post.Telling, *args: object, **more: object) -> post.Posted:
        if telling.endpoint_id == broken:
            raise OverflowError("nobody thought of that")
        return await post.post(telling, *args, **more)

    monkeypatch.setattr(courier, "post", breaks)
    with receiver() as web:
        ill, _ = endpoint_of(house, web.url("/ill"), ["domain.updated"])
        well, _ = endpoint_of(house, web.url("/well"), ["domain.updated"])
        broken = ill.id
        tell_n(house, 3)
        notify.run()
    assert [row.state for row in rows(well)] == ["delivered"] * 3
    (tried,) = WebhookTry.objects.filter(delivery_id__in=[row.id for row in rows(ill)])[:1]
    assert tried.status_code is None and "internal error" in tried.error


def test_a_secret_that_cannot_be_read_is_its_endpoints_own_failed_try_and_a_new_one_mends_it(settings) -> None:
    house, other, keys = build(), build(), settings.FIELD_KEYS
    with receiver() as web:
        settings.FIELD_KEYS = Fernet.generate_key().decode()
        ill, _ = endpoint_of(house, web.url("/ill"), ["domain.updated"])
        settings.FIELD_KEYS = keys
        well, _ = endpoint_of(other, web.url("/well"), ["domain.updated"])
        tell_n(house, 2), tell_n(other, 2)
        notify.run()
        assert [row.state for row in rows(well)] == ["delivered"] * 2
        assert [came.path for came in web.came] == ["/well"] * 2
        tried = WebhookTry.objects.filter(delivery_id__in=[row.id for row in rows(ill)])
        assert all("cannot be read" in row.error for row in tried) and tried
        assert endpoints.update(house.tenant.id, ill.id, "test", events=["domain.updated", "email.sent"])
        assert endpoints.rotate(house.tenant.id, ill.id, "test")
        make_due()
        tell_all(house)
    assert [row.state for row in rows(ill)] == ["delivered"] * 2


def test_an_answer_with_an_absurd_retry_after_harms_nobody() -> None:
    house = build()
    with receiver() as web:
        web.answer = lambda came: (503, {"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"})
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        assert notify.run() == 1
    (row,) = rows(endpoint)
    assert (row.state, row.tries) == ("pending", 1)


def test_after_eight_tries_it_is_given_up_and_can_be_replayed() -> None:
    house = build()
    with receiver() as web:
        web.answer = lambda came: (500, {})
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        for _ in range(8):
            make_due()
            assert notify.run() == 1
        make_due()
        assert notify.run() == 0
        (row,) = rows(endpoint)
        assert (row.state, row.tries) == ("failed", 8)
        web.answer = lambda came: (200, {})
        assert notify.replay([row.id], tenant_id=build().tenant.id) == 0
        assert notify.replay([row.id]) == 1
        assert notify.run() == 1
    assert rows(endpoint)[0].state == "delivered" and WebhookTry.objects.filter(delivery=row).count() == 9
    assert len({c.body for c in web.came}) == 1


def test_five_days_of_only_failures_switch_an_endpoint_off_with_an_event_for_those_who_asked() -> None:
    house = build()
    with receiver() as bad, receiver() as good:
        bad.answer = lambda came: (500, {})
        failing, _ = endpoint_of(house, bad.url(), ["domain.updated"])
        endpoint_of(house, good.url(), ["webhook.disabled"])
        WebhookEndpoint.objects.filter(id=failing.id).update(failing_since=timezone.now() - timedelta(days=5, hours=1))
        tell_n(house, 3)
        notify.run()
        make_due()
        notify.run()
    failing.refresh_from_db()
    assert not failing.enabled and failing.disabled_reason.startswith("Every try has failed since ")
    assert len(bad.came) == 1
    assert {r.state for r in rows(failing)} == {"failed"}  # the rest is given up, and can be replayed
    (told,) = [json.loads(c.body) for c in good.came]
    assert told["type"] == "webhook.disabled" and told["data"]["endpoint_id"] == str(failing.id)
    assert Event.objects.filter(tenant_id=house.tenant.id, type="webhook.disabled").count() == 1


def test_dead_receivers_of_every_kind_delay_nobody_and_hear_all_of_it_once_they_are_back(monkeypatch, settings) -> None:
    monkeypatch.setattr(post, "WAITS_S", (0.01, 0.01))  # three tries
    real = post.post

    async def impatient(telling: post.Telling, private: bool, keep: Any) -> post.Posted:
        return await real(telling, private, timeout_s=0.1 if telling.url.endswith("/hangs") else 60, keep=keep)

    monkeypatch.setattr(courier, "post", impatient)
    house = build()
    with receiver() as away:
        away_url = away.url()
    with receiver() as web, receiver() as tripwire:
        answers: dict[str, Callable[[Came], tuple[int, dict[str, str]]]] = {
            "/500": lambda came: (500, {}),
            "/hangs": web.hang,
            "/redirects": lambda came: (307, {"location": tripwire.url()}),
            "/gone": lambda came: (410, {}),
        }
        web.answer = lambda came: answers.get(came.path, lambda _: (200, {}))(came)
        dead = {path: endpoint_of(house, web.url(path))[0] for path in answers}
        dead["away"] = endpoint_of(house, away_url)[0]
        good, _ = endpoint_of(house, web.url("/good"), ["email.sent", "email.queued", "webhook.disabled"])
        working = threading.Thread(target=lambda: (notify.run(), connection.close()))
        house.send("first@one.test")
        working.start()
        # mail flows on: accepted and moved on while the courier waits for those that hang
        deliveries = [house.send(f"a{n}@one.test")[0] for n in range(3)]
        assert operator.hold([d.id for d in deliveries], "test") == 3
        assert operator.release([d.id for d in deliveries], "test") == 3
        working.join()
        tell_all(house)
        assert {r.state for r in rows(good)} == {"delivered"} and tripwire.came == []
        for path, endpoint in dead.items():
            assert {r.state for r in rows(endpoint)} == {"failed"}, path
            assert {r.tries for r in rows(endpoint)} <= {0, 1, 3}, path
        WebhookEndpoint.objects.filter(tenant=house.tenant, failing_since__isnull=False).update(
            failing_since=timezone.now() - timedelta(days=5, hours=1)
        )
        house.send("last@one.test")
        tell_all(house)
        off = WebhookEndpoint.objects.filter(tenant=house.tenant, enabled=False)
        assert {e.id for e in off} == {e.id for e in dead.values()}
        told = [json.loads(c.body) for c in web.came if c.path == "/good"]
        assert {t["data"]["endpoint_id"] for t in told if t["type"] == "webhook.disabled"} == {str(e.id) for e in off}
        kept = Event.objects.filter(tenant_id=house.tenant.id, type="email.sent").count()
        assert kept == 5
        # all are mended; nobody hangs any more, so that a busy machine is no failure
        monkeypatch.setattr(courier, "post", real)
        answers.clear()
        web.let_go.set()
        web.came.clear()
        settings.WEBHOOK_ALLOW_PRIVATE = True
        for path, endpoint in dead.items():
            url = web.url("/away") if path == "away" else None
            assert endpoints.update(house.tenant.id, endpoint.id, "test", url=url, enabled=True)
            began = house.tenant.created_at - timedelta(minutes=1)
            ask.replay_window(house.tenant.id, endpoint.id, began, timezone.now() + timedelta(minutes=1), "test")
        tell_all(house)
        heard = {
            path: [c.headers["webhook-id"] for c in web.came if c.path == path] for path in (*list(dead)[:4], "/away")
        }
        sent = Event.objects.filter(tenant_id=house.tenant.id).exclude(type__in=[e.value for e in OPT_IN])
        for path, ids in heard.items():
            assert len(ids) == len(set(ids)) and set(ids) == {f"msg_{e.id}" for e in sent}, path


def test_410_gone_switches_the_endpoint_off_at_once() -> None:
    house = build()
    with receiver() as web:
        web.answer = lambda came: (410, {})
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        notify.run()
    endpoint.refresh_from_db()
    assert not endpoint.enabled and endpoint.disabled_reason == "It answered 410 Gone."
    assert rows(endpoint)[0].state == "failed"


def test_a_private_address_is_never_connected_to(settings) -> None:
    house = build()
    with receiver() as web:
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 1)
        settings.WEBHOOK_ALLOW_PRIVATE = False
        notify.run()
        with pytest.raises(BadInput) as refused:
            endpoint_of(house, web.url(), ["email.sent"])
    assert web.came == []
    assert "not a public address" in WebhookTry.objects.get(delivery__endpoint=endpoint).error
    assert [f.field for f in refused.value.faults] == ["endpoint"]


def test_a_deleted_endpoint_and_a_vanished_event_end_quietly() -> None:
    house = build()
    with receiver() as web:
        gone, _ = endpoint_of(house, web.url("/gone"), ["domain.updated"])
        endpoint_of(house, web.url("/stays"), ["domain.updated"])
        tell_n(house, 1)
        WebhookEndpoint.objects.filter(id=gone.id).delete()
        Event.objects.filter(tenant_id=house.tenant.id).delete()
        notify.run()
    assert web.came == []
    assert {r.state for r in WebhookDelivery.objects.filter(tenant_id=house.tenant.id)} == {"failed"}


def test_another_tenants_endpoint_hears_nothing() -> None:
    one, two = build(), build()
    with receiver() as web:
        endpoint_of(two, web.url())
        one.send("a@one.test")
        notify.run()
    assert web.came == []


def test_finding_nothing_costs_one_query(django_assert_num_queries) -> None:
    house = build()
    with receiver() as web:
        web.answer = lambda came: (500, {})
        endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 5)
        notify.run()
    calls = []
    real = outbox.execute
    outbox.execute = lambda *a: (calls.append(a), real(*a))[1]  # type: ignore[assignment]
    try:
        assert notify.run() == 0
    finally:
        outbox.execute = real
    assert len(calls) == 1


def test_many_posts_go_over_few_connections_and_each_is_told_once() -> None:
    house = build()
    with receiver(keeps=True) as web:
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 120)
        assert notify.run() == 120
    assert len(web.came) == len({c.headers["webhook-id"] for c in web.came}) == 120
    assert {(r.state, r.tries) for r in rows(endpoint)} == {("delivered", 1)}
    assert web.connections <= courier.AT_ONCE_EACH


def test_what_waits_too_long_behind_a_slow_endpoint_is_given_back_unsent(monkeypatch) -> None:
    house = build()
    monkeypatch.setattr(courier, "TURN_S", 0.2)
    with receiver() as web:
        web.answer = web.hang
        endpoint, _ = endpoint_of(house, web.url(), ["domain.updated"])
        tell_n(house, 6)
        monkeypatch.setattr(outbox, "IN_HAND", 6)
        real = outbox.give_back

        def give_back(tellings) -> None:
            real(tellings)
            if tellings:
                given.extend(tellings)
                monkeypatch.setattr(courier, "TURN_S", 10)
                web.let_go.set()

        given: list[object] = []
        monkeypatch.setattr(outbox, "give_back", give_back)
        notify.run()
    assert given and len(web.came) == 6
    assert {(r.state, r.tries) for r in rows(endpoint)} == {("delivered", 1)}


def test_sequences_are_unique_and_rise_with_each_recipients_story_also_when_all_is_recorded_at_once() -> None:
    house = build()
    with receiver() as web:
        endpoint_of(house, web.url(), [e.value for e in EventType])
        deliveries = house.send("a@one.test", "b@two.test", "c@three.test", cc=())
        for verb in (operator.hold, operator.release, operator.hold, operator.cancel):
            ids = iter([d.id for d in deliveries])
            take = threading.Lock()

            def one_by_one(verb=verb, ids=ids, take=take) -> None:
                with take:
                    one = next(ids)
                verb([one], "test")
                # told at once, while the others may not have committed yet
                made = bodies(Event.objects.filter(delivery_id=one).values_list("id", flat=True))
                with take:
                    frozen.update({ident: json.loads(body)["data"]["sequence"] for ident, body in made.items()})

            frozen: dict[object, int] = {}
            in_threads(one_by_one, 3)
            later = bodies(frozen)
            assert {i: json.loads(b)["data"]["sequence"] for i, b in later.items()} == frozen
        notify.run()
    told = [json.loads(c.body)["data"] for c in web.came]
    assert len(told) == 15 and sorted(t["sequence"] for t in told) == list(range(1, 16))
    for d in deliveries:
        story = Event.objects.filter(delivery_id=d.id).order_by("created_at", "id").values_list("place", flat=True)
        assert list(story) == [1, 2, 3, 4, 5]
