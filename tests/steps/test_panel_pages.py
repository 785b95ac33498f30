"""The panel's messages: the list and its searches, the page of one, what a person may do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deliveries.models import ApiKey, Attempt, AuditEntry, Event, Message, Queued, WebhookEndpoint
from deliveries.read import panel
from deliveries.states import Status
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

LIST = "/admin/deliveries/message/"


@pytest.fixture
def shop():
    return mail.tenant("Shop")


@pytest.fixture
def client(shop) -> Client:
    return login(mail.person("dora", shop, role="developer"))


def subjects(response) -> list[str]:
    assert response.status_code == 200, response
    return [m.subject for m in response.context["cl"].result_list]


def test_messages_are_the_first_entry_of_the_menu_and_stand_newest_first(client, shop):
    for n in range(3):
        mail.message(shop, "anna@example.net", subject=f"Receipt {n}")
    response = client.get(LIST)
    assert subjects(response) == ["Receipt 2", "Receipt 1", "Receipt 0"]
    assert response.context["sidebar_navigation"][0]["items"][0]["title"] == "Messages"
    assert "3 messages" in response.content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("anna@example.net", ["to Anna", "to both"]),
        ("anna@", ["to Anna", "to both"]),
        ("ann", ["to Anna", "to both"]),
        ("ANNA@EXAMPLE.NET", ["to Anna", "to both"]),
        ("to:bob@example.net", ["to both"]),
        ("nobody@example.net", []),
        ("an_a@example.net", []),
        ("%@example.net", []),
        ("invoice march", ["Invoice of March"]),
        ("invoice april", []),
        ("tag:welcome", ["tagged"]),
        ("from:billing@", ["from billing"]),
        ("from:BILLING@example.org", ["from billing"]),
        ("from:bills", ["from billing"]),
        ("from:bills carl", ["from billing"]),
        ("from:bills anna", []),
        ("from:b%g", []),
        ("from:nobody@", []),
        ("stream:newsletter", []),
        ("' OR 1=1 --", []),
        ("anna@example.net subject:both", ["to both"]),
    ],
)
def test_a_search_finds(client, shop, query, found):
    mail.message(shop, "anna@example.net", subject="to Anna")
    mail.message(shop, "anna@example.net", "bob@example.net", subject="to both")
    mail.message(shop, "carl@example.net", subject="Invoice of March")
    mail.message(shop, "carl@example.net", subject="tagged", tags=[{"name": "kind", "value": "welcome"}])
    mail.message(shop, "carl@example.net", subject="from billing", sender="Bills <billing@example.org>")
    assert sorted(subjects(client.get(LIST, {"q": query}))) == sorted(found)


def test_mail_of_several_senders_is_merged_newest_first_page_by_page(client, shop, monkeypatch):
    from deliveries.admin.messages import MessageAdmin
    from deliveries.read import senders

    for n in range(9):
        mail.message(shop, "carl@example.net", subject=f"{n}", sender=f"News <news{n % 3}@shop.example>")
    mail.message(shop, "carl@example.net", subject="another", sender="Ops <ops@shop.example>")
    mail.message(mail.tenant("Other"), "carl@example.net", subject="foreign", sender="News <news1@shop.example>")
    monkeypatch.setattr(MessageAdmin, "list_per_page", 4)
    for most in (senders.MOST, 2):
        # of more addresses than MOST only those are found that begin so, and MOST of them
        monkeypatch.setattr(senders, "MOST", most)
        wanted = [str(n) for n in range(8, -1, -1) if n % 3 < most]
        asked, seen = {"q": "from:news"}, []
        for _ in range(3):
            page = client.get(LIST, asked)
            seen += subjects(page)
            if rows := page.context["cl"].result_list:
                asked["after"] = str(rows[-1].pk)
        assert seen == wanted
    assert subjects(client.get(LIST, {"q": "from:shop.example"})) == []


def test_however_many_senders_are_asked_for_one_is_looked_up(client, shop):
    mail.message(shop, "anna@example.net")
    with CaptureQueriesContext(connection) as asked:
        assert subjects(client.get(LIST, {"q": "from:x@ " * 200 + "from:shop@"})) == ["Your receipt"]
    assert len(asked) < 15


def test_an_id_a_message_id_and_a_delivery_id_find_their_mail(client, shop):
    row = mail.message(shop, "anna@example.net")
    mail.message(shop, "bob@example.net", subject="another")
    for query in (str(row.id), row.id.hex, f"<{row.message_id}>", str(row.deliveries.get().id)):
        assert subjects(client.get(LIST, {"q": query})) == [row.subject], query


def test_a_status_filter_shows_a_message_once_and_pages_by_key(client, shop):
    for n in range(120):
        mail.message(shop, "a@example.net", "b@example.net", subject=f"n{n}", status=Status.BOUNCED)
    mail.message(shop, "c@example.net", subject="fine")
    seen: list[str] = []
    response = client.get(LIST, {"status": "bounced"})
    assert "120 messages" in response.content.decode()
    while True:
        seen += subjects(response)
        older = response.context["cl"].paginator.older_url
        if not older:
            break
        last, response = response, client.get(LIST + older)
    assert seen == [f"n{n}" for n in reversed(range(120))]
    back = client.get(LIST + response.context["cl"].paginator.newer_url)
    assert subjects(back) == subjects(last)


def test_filters_narrow_by_category_period_domain_and_each_other(client, shop):
    own = mail.domain(shop, "example.org")
    old = mail.message(shop, "a@example.net", subject="old", age=timedelta(days=2))
    new = mail.message(shop, "a@example.net", subject="new", status=Status.BOUNCED)
    Message.objects.filter(id=new.id).update(domain=own)
    assert subjects(client.get(LIST, {"period": "day"})) == ["new"]
    assert subjects(client.get(LIST, {"period": "week"})) == ["new", "old"]
    assert subjects(client.get(LIST, {"category": "bad_mailbox"})) == ["new"]
    assert subjects(client.get(LIST, {"domain": str(own.id)})) == ["new"]
    assert subjects(client.get(LIST, {"domain": str(own.id), "status": "delivered"})) == []
    assert subjects(client.get(LIST, {"q": "a@example.net", "status": "delivered"})) == ["old"]
    assert old.created_at < new.created_at


@pytest.mark.parametrize(
    "query", ["after=x", "status=nonsense", "period=99", "domain=1", "after=%00", "o=1.2.-3", "p=999999"]
)
def test_nonsense_in_the_address_is_answered_kindly(client, shop, query):
    mail.message(shop, "a@example.net")
    response = client.get(f"{LIST}?{query}", follow=True)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "query", ["tenant__name=x", "api_key_id=1", "subject__startswith=Y", "tenant__api_keys__secret_hash__startswith=a"]
)
def test_only_declared_filters_are_read_from_the_address(client, query):
    assert client.get(f"{LIST}?{query}").status_code == 400


def test_a_search_that_takes_too_long_says_so(client, shop, monkeypatch):
    from django.db import OperationalError
    from psycopg.errors import QueryCanceled

    def slow(*args, **kwargs):
        raise OperationalError("canceling statement due to statement timeout") from QueryCanceled()

    monkeypatch.setattr(panel, "page", slow)
    page = client.get(LIST).content.decode()
    assert "took too long" in page and "Narrow it" in page


def test_a_count_stops_at_a_thousand(client, shop, monkeypatch):
    from deliveries.admin import keyset

    monkeypatch.setattr(panel, "COUNT_LIMIT", 4)
    monkeypatch.setattr(keyset, "COUNT_LIMIT", 4)
    for _ in range(6):
        mail.message(shop, "a@example.net")
    assert "3+ messages" in client.get(LIST).content.decode()


@pytest.mark.parametrize(("words", "tag"), [("receipt", ""), ("", "order")])
@pytest.mark.parametrize("whose", ["everybody's", "two tenants'"])
def test_common_words_are_found_among_the_newest_and_no_mail_is_passed_over_or_told_twice(
    shop, monkeypatch, words, tag, whose
):
    # the newest six fill a page of two at some places, and at others the index is asked
    monkeypatch.setattr(panel, "NEWEST", 6)
    other, stranger = mail.tenant("Other"), mail.tenant("Stranger")
    wanted, fits = [], [True, True, True, True, False, False, False, True, False, False, False, False, True, True]
    for n, fit in enumerate(fits * 2):
        subject, tags = ("Receipt", [{"name": "kind", "value": "order"}]) if fit else ("Hello", [])
        made = mail.message((shop, other, stranger)[n % 3], f"a{n}@example.net", subject=subject, tags=tags)
        if fit and (whose == "everybody's" or n % 3 != 2):
            wanted.insert(0, made.id)
    search = panel.Search(None if whose == "everybody's" else [shop.id, other.id], words=words, tag=tag)
    down, counts, page = [], set(), panel.page(search, 0, 2)
    while True:
        down += page.ids
        counts.add(page.count)
        if page.older is None:
            break
        page = panel.page(search, 0, 2, after=page.older)
    assert down == wanted and counts == {None, len(wanted)}
    up = page.ids
    while page.newer is not None:
        page = panel.page(search, 0, 2, before=page.newer)
        up = page.ids + up
    assert up == wanted


def test_the_list_costs_the_same_number_of_queries_whatever_it_shows(client, shop, django_assert_num_queries):
    for n in range(60):
        mail.message(shop, f"a{n}@example.net", f"b{n}@example.net")
    # session, user, memberships, filter choices, page, messages, summaries, count
    with django_assert_num_queries(9):
        client.get(LIST)
    with django_assert_num_queries(9):
        client.get(LIST, {"q": "a1@", "status": "delivered"})


@pytest.mark.parametrize("query", ["receipt", "your receipt", "tag:welcome"])
def test_what_a_search_finds_is_counted_once(client, shop, query):
    mail.message(shop, "anna@example.net", tags=[{"name": "kind", "value": "welcome"}])
    with CaptureQueriesContext(connection) as asked:
        assert subjects(client.get(LIST, {"q": query})) == ["Your receipt"]
    assert len([q for q in asked if q["sql"].startswith("SELECT count(*) FROM (")]) == 1


def test_the_page_of_a_message_tells_its_story_in_a_fixed_number_of_queries(client, shop, django_assert_num_queries):
    endpoint = WebhookEndpoint.objects.create(tenant=shop, url="https://shop.example/hook", secret=b"x")
    row = mail.message(shop, *(f"a{n}@example.net" for n in range(30)), filename="invoice.pdf")
    for event in Event.objects.filter(message=row)[:20]:
        mail.post(endpoint, event)
    # session, user, memberships, message, deliveries, attempts, events, content, posts, endpoints, tries, files
    with django_assert_num_queries(14):
        page = client.get(f"{LIST}{row.id}/change/").content.decode()
    for text in ("mx.example.net accepted it", "TLSv1.3", "EHLO mail.example.org", "invoice.pdf", "192.0.2.25"):
        assert text in page, text
    assert "https://shop.example/hook" in page


def test_a_recipient_has_one_plain_sentence(client, shop):
    row = mail.message(shop, "anna@example.net", status=Status.BOUNCED, reply="550 5.1.1 no such user")
    page = client.get(f"{LIST}{row.id}/change/").content.decode()
    assert "mx.example.net says that there is no such mailbox, at " in page
    assert "by rule enhanced-5.1.1" in page


def test_a_page_says_whose_mail_it_is_what_the_caller_knows_it_by_and_that_it_was_never_tried(shop):
    row = mail.message(shop, "anna@example.net", status=Status.SUPPRESSED)
    Attempt.objects.filter(delivery__message=row).delete()
    Message.objects.filter(pk=row.pk).update(metadata={"items": "5", "order": "<17>"})
    page = login(mail.person("root", operator=True)).get(f"{LIST}{row.id}/change/").content.decode()
    assert f'/admin/deliveries/tenant/{shop.pk}/change/">{shop}</a>' in page
    assert "items: 5<" in page and "order: &lt;17&gt;" in page
    assert "It was never tried." in page and "Not tried yet" not in page


def statuses(row: Message) -> list[str]:
    return list(row.deliveries.order_by("position").values_list("status", flat=True))


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("developer", True), ("owner", True)])
def test_a_button_does_its_verb_only_for_a_developer_and_only_here(shop, role, may):
    client = login(mail.person("paul", shop, role=role))
    row = mail.message(shop, "a@example.net", "b@example.net", status=Status.DEFERRED)
    stranger = mail.message(mail.tenant("Other"), "x@example.net", status=Status.DEFERRED)
    second = row.deliveries.get(position=1)
    page = client.get(f"{LIST}{row.id}/change/").content.decode()
    assert ("Send now</button>" in page) is may
    client.post(f"{LIST}{row.id}/act/", {"verb": "hold", "delivery": [second.id, stranger.deliveries.get().id]})
    assert statuses(row) == ["deferred", "held" if may else "deferred"]
    client.post(LIST, {"action": "cancel", "_selected_action": [row.id, stranger.id], "select_across": "1"})
    assert statuses(row) == (["canceled", "canceled"] if may else ["deferred", "deferred"])
    assert statuses(stranger) == ["deferred"]
    told = list(AuditEntry.objects.order_by("action").values_list("actor", "action", "tenant_id"))
    canceled = [("paul", "delivery.canceled", shop.pk)] * 2
    assert told == ([*canceled, ("paul", "delivery.held", shop.pk)] if may else [])


def test_what_a_worker_holds_is_left_to_it(client, shop):
    row = mail.message(shop, "a@example.net", status=Status.QUEUED)
    Queued.objects.update(lease_id=row.id)
    page = client.get(f"{LIST}{row.id}/change/").content.decode()
    assert "Is being sent right now." in page and "Hold</button>" not in page
    own = row.deliveries.get()
    answer = client.post(f"{LIST}{row.id}/act/", {"verb": "hold", "delivery": [own.id]}, follow=True)
    assert "Nothing was changed" in answer.content.decode()
    assert statuses(row) == ["queued"]
    client.post(f"{LIST}{row.id}/act/", {"verb": "delete", "delivery": [own.id]})
    assert client.get(f"{LIST}{row.id}/act/").status_code == 405
    assert statuses(row) == ["queued"]


def test_a_message_cannot_be_written_by_a_form(client, shop):
    row = mail.message(shop, "a@example.net")
    assert client.post(f"{LIST}{row.id}/change/", {"subject": "changed"}).status_code == 405
    assert client.get(f"{LIST}add/").status_code in (403, 405)
    assert client.post(f"{LIST}add/", {}).status_code in (403, 405)
    assert client.post(f"{LIST}{row.id}/delete/", {"post": "yes"}).status_code == 403


def test_a_message_id_that_the_sender_gave_finds_its_mail_and_an_address_in_brackets_its_own(client, shop):
    row = mail.message(shop, "anna@example.net", subject="Odd")
    mail.message(shop, "bob@example.net", subject="Even")
    type(row).objects.filter(id=row.id).update(message_id="order-4711@shop.example")

    def found(query: str) -> list[str]:
        return [m.subject for m in client.get(LIST, {"q": query}).context["cl"].result_list]

    assert found("<order-4711@shop.example>") == found("id:order-4711@shop.example") == ["Odd"]
    assert found("<bob@example.net>") == ["Even"]
    assert found("<nobody@example.net>") == []


def test_a_tag_finds_old_mail_too_by_its_index(client, shop):
    mail.message(shop, "a@example.net", subject="Old", tags=[{"name": "kind", "value": "rare"}],
                 age=timedelta(days=200))  # fmt: skip
    mail.message(shop, "b@example.net", subject="New", tags=[{"name": "kind", "value": "other"}])
    response = client.get(LIST, {"q": "tag:rare"})
    assert [m.subject for m in response.context["cl"].result_list] == ["Old"]


def test_the_mail_that_an_api_key_posted_is_found_by_the_key_and_its_page(client, shop):
    other = mail.tenant("Other")
    keys = {}
    for own, prefix in ((shop, "re_leaked123"), (shop, "re_fine45678"), (other, "re_leaked123")):
        keys[own, prefix] = key = ApiKey.objects.create(
            tenant=own, name="Till", prefix=prefix, secret_hash=f"{own.pk}{prefix}".encode()[-32:]
        )
        row = mail.message(own, "anna@example.net", subject=f"{own} {prefix}")
        Message.objects.filter(pk=row.pk).update(api_key_id=key.pk)
    mail.message(shop, "anna@example.net", subject="by nobody")
    leaked, root = keys[shop, "re_leaked123"], login(mail.person("root", operator=True))
    for query in ("key:re_leaked123", "key:re_leaked123abcdef", f"key:{leaked.pk}", "key:re_leak+to:anna"):
        assert subjects(client.get(f"{LIST}?q={query}")) == ["Shop re_leaked123"], query
    assert subjects(client.get(f"{LIST}?q=key:re_leaked123&status=bounced")) == []
    assert subjects(client.get(f"{LIST}?q=key:{keys[other, 're_leaked123'].pk}")) == [], "another tenant's"
    assert subjects(root.get(f"{LIST}?q=key:re_leak")) == ["Other re_leaked123", "Shop re_leaked123"]
    assert subjects(root.get(f"{LIST}?q=key:nothing")) == []
    older = client.get(f"{LIST}?q=key:re_leaked123")
    assert "looked through the last 30 days" in older.content.decode(), "what is older is not said to be missing"
    assert f"?q=key:{leaked.pk}" in client.get(f"/admin/deliveries/apikey/{leaked.pk}/change/").content.decode()
    row = Message.objects.get(api_key_id=leaked.pk)
    assert f"/apikey/{leaked.pk}/change/" in client.get(f"{LIST}{row.pk}/change/").content.decode()
