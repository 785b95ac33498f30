"""How much a key may ask for, and a tenant may send; what a body may be."""

import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from deliveries import keys
from deliveries.models import ApiKey, Delivery, Message, QuotaUse
from deliveries.rates import Rates
from deliveries.record import operator
from mailapi import auth, throttle
from tests.fakes.clock import DAY, stay_within
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client():
    auth.forget()
    throttle.rates.cache_clear()
    return Client(make_tenant())


def limited(client, limit):
    ApiKey.objects.filter(tenant=client.tenant).update(rate_limit=limit)
    return client


def with_quota(client, **quota):
    stay_within(DAY)
    type(client.tenant).objects.filter(id=client.tenant.id).update(**quota)
    return client


def used(client):
    return {(u.kind, u.starts.isoformat()): u.used for u in QuotaUse.objects.filter(tenant_id=client.tenant.id)}


def refusal(client):
    """The first request that comes too soon; how many went before it depends on how quick this machine is."""
    for _ in range(1000):
        if (answer := client.get("/emails")).status_code == 429:
            return answer
        assert answer.status_code == 200
    raise AssertionError("nothing is refused")


# --- rates ------------------------------------------------------------------------------------------------------


def test_every_answer_tells_the_rate_and_too_many_requests_are_refused(client, settings):
    settings.RATE_LIMIT = 3
    answers = [client.get("/emails") for _ in range(3)]
    assert [a.status_code for a in answers] == [200] * 3
    assert answers[0]["ratelimit-limit"] == "3" and answers[0]["ratelimit-remaining"] == "2"
    refused = refusal(client)
    assert refused.json()["name"] == "rate_limit_exceeded" and refused.json()["statusCode"] == 429
    assert refused["ratelimit-remaining"] == "0" and int(refused["retry-after"]) >= 1
    assert int(refused["ratelimit-reset"]) >= 1 and refused["x-request-id"] == refused.json()["request_id"]


def test_a_refused_mail_is_not_stored_and_comes_through_later(client):
    limited(client, 1)
    assert client.send().status_code == 200
    refusal(client)
    sent = Message.objects.count()
    answer = client.send()
    while answer.status_code == 429:
        assert Message.objects.count() == sent
        time.sleep(int(answer["retry-after"]))
        answer = client.send()
    assert answer.status_code == 200


def test_a_key_has_a_number_of_its_own_and_shares_with_no_other(client, settings):
    settings.RATE_LIMIT = 1000
    limited(client, 1)
    other = Client(client.tenant, keys.create(client.tenant, "b")[1], client.domain)
    refusal(client)
    assert other.get("/emails")["ratelimit-limit"] == "1000"


def test_zero_is_no_limit(client, settings):
    settings.RATE_LIMIT = 0
    answer = client.get("/emails")
    assert answer.status_code == 200 and "ratelimit-limit" not in answer


def test_processes_share_the_rate_and_ask_in_lots():
    key, asked = uuid4(), []
    both = [Rates(), Rates()]
    for one in both:
        # Valkey is not away, only slow to answer
        one.valkey._client.connection_pool.connection_kwargs["socket_timeout"] = 60
        plain = one._ask
        one._ask = lambda *a, plain=plain: asked.append(1) or plain(*a)
    begun = time.monotonic()
    went = sum(both[n % 2].take(key, 1000).allowed for n in range(6000))
    took_s = time.monotonic() - begun
    assert 1000 <= went <= 1000 * (1 + took_s) + 1, "a burst of one second, and what each second earns"
    assert len(asked) < went / 5


def test_no_valkey_no_refusal():
    rates = Rates("redis://127.0.0.1:1/0")
    assert all(rates.take(uuid4(), 100).allowed for _ in range(50))
    key = uuid4()
    assert [rates.take(key, 5).allowed for _ in range(5)] == [True] * 5
    assert rates.valkey.failures == 1, "it is not asked again at once"


# --- quotas -----------------------------------------------------------------------------------------------------


def test_without_a_quota_nothing_is_counted(client):
    assert client.send().status_code == 200 and QuotaUse.objects.count() == 0


def test_a_quota_counts_recipients_and_refuses_the_whole_request_beyond_it(client):
    with_quota(client, daily_quota=5, monthly_quota=100)
    to = [f"a{n}@simulator.test" for n in range(3)]
    assert client.send(to=to).status_code == 200
    refused = client.send({"HTTP_IDEMPOTENCY_KEY": "k"}, to=to)
    assert refused.status_code == 429 and refused.json()["name"] == "daily_quota_exceeded"
    assert Message.objects.count() == 1 and set(used(client).values()) == {3}
    batch = client.post("/emails/batch", [client.mail(), client.mail(), client.mail()])
    assert batch.status_code == 429 and Message.objects.count() == 1
    assert client.send({"HTTP_IDEMPOTENCY_KEY": "k"}, to=to[:2]).status_code == 200, (
        "a refusal uses up no idempotency key"
    )
    again = client.send({"HTTP_IDEMPOTENCY_KEY": "k"}, to=to[:2])
    assert again.status_code == 200 and again["Idempotent-Replayed"] == "true" and set(used(client).values()) == {5}


def test_a_month_has_its_own(client):
    with_quota(client, monthly_quota=1)
    assert client.send().status_code == 200
    refused = client.send()
    assert refused.status_code == 429 and refused.json()["name"] == "monthly_quota_exceeded"


def test_a_scheduled_mail_counts_on_its_day_and_cancel_and_reschedule_give_back(client):
    with_quota(client, daily_quota=1)
    now = datetime.now(UTC)
    first, second = (now + timedelta(days=d) for d in (2, 3))
    ids = [client.send(scheduled_at=at.isoformat()).json()["id"] for at in (first, second)]
    assert client.send().status_code == 200, "today is another day"
    assert client.send(scheduled_at=first.isoformat()).json()["name"] == "daily_quota_exceeded"
    moved = client.patch(f"/emails/{ids[0]}", {"scheduled_at": second.isoformat()})
    assert moved.status_code == 429 and moved.json()["name"] == "daily_quota_exceeded"
    assert client.get(f"/emails/{ids[0]}").json()["scheduled_at"].startswith(first.date().isoformat())
    assert client.post(f"/emails/{ids[1]}/cancel", {}).status_code == 200
    assert used(client)["day", second.date().isoformat()] == 0
    assert client.patch(f"/emails/{ids[0]}", {"scheduled_at": second.isoformat()}).status_code == 200
    assert used(client) == {
        ("day", now.date().isoformat()): 1, ("day", first.date().isoformat()): 0, ("day", second.date().isoformat()): 1,
    }  # fmt: skip


def test_what_was_tried_is_not_given_back(client):
    with_quota(client, daily_quota=9)
    client.send(to=["a@simulator.test", "b@simulator.test"])
    Delivery.objects.filter(recipient="a@simulator.test").update(attempts=1)
    operator.cancel(list(Delivery.objects.values_list("id", flat=True)), "test")
    assert set(used(client).values()) == {1}


def test_two_at_once_never_share_the_last_of_a_quota(client):
    with_quota(client, daily_quota=7)
    codes = []

    def send():
        from django.db import connection

        codes.append(Client(client.tenant, client.secret, client.domain).send().status_code)
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(200) == 7 == Message.objects.count() and codes.count(429) == 9
