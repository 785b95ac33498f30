"""Postmark's own clients, unmodified: postmark-python, postmarker, npm postmark, django-anymail's backend."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import postmark
import pytest
from anymail.backends.postmark import EmailBackend
from anymail.exceptions import AnymailAPIError, AnymailRecipientsRefused
from anymail.message import AnymailMessage
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import timezone
from postmark.exceptions import (
    InactiveRecipientException,
    InvalidAPIKeyException,
    PostmarkAPIException,
    ValidationException,
)
from postmark.models.bounces import BounceType
from postmarker.core import PostmarkClient
from postmarker.exceptions import ClientError

from deliveries import templating
from deliveries.models import Attachment, Delivery, Event, IdempotencyKey, Message, MessageContent, Suppression
from deliveries.record import suppressions
from tests.fakes.node import node
from tests.steps.api import template, texts

pytestmark = pytest.mark.django_db(transaction=True)


def _mail(account, **fields):
    return {
        "From": f"Shop <orders@{account.domain}>",
        "To": "delivered@simulator.test",
        "Subject": "Grüße 🎉",
        "TextBody": "Hi",
        "HtmlBody": "<p>Hi</p>",
        **fields,
    }


def _check(ident):
    """The mail that each client sends with all that a mail can have."""
    stored = Message.objects.get(id=ident)
    assert (stored.subject, stored.stream) == ("Grüße 🎉", "transactional")
    assert (stored.cc, stored.bcc, stored.reply_to) == (
        ["cc@simulator.test"],
        ["bcc@simulator.test"],
        ["help@simulator.test"],
    )
    assert stored.tags == [{"name": "order", "value": ""}] and dict(stored.metadata) == {"order": "17"}
    content = MessageContent.objects.get(id=ident)
    assert (content.text, content.html) == ("Hi", "<p>Hi</p>") and ["X-Order", "17"] in content.headers
    files = Attachment.objects.filter(message_id=ident).order_by("position")
    assert [(f.filename, bytes(f.content), f.content_id) for f in files] == [
        ("a.txt", b"attached", None),
        ("logo.png", b"png", "logo"),
    ]


def _whole(account):
    return _mail(
        account,
        Cc="cc@simulator.test",
        Bcc="bcc@simulator.test",
        ReplyTo="help@simulator.test",
        Tag="order",
        Metadata={"order": "17"},
        Headers=[{"Name": "X-Order", "Value": "17"}],
        Attachments=[
            {"Name": "a.txt", "Content": "YXR0YWNoZWQ=", "ContentType": "text/plain"},
            {"Name": "logo.png", "Content": "cG5n", "ContentType": "image/png", "ContentID": "cid:logo"},
        ],
        TrackOpens=True,
        MessageStream="outbound",
    )


def test_the_node_client_sends_and_tells_errors_apart(server, account):
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "", "test")
    template(account, "order", "mustachio")
    given = {"inactive": "gone@simulator.test", "template": "order"}
    got = node("postmark.mjs", url=server, key=account.secret, domain=account.domain, **given)
    assert got["sent"]["Message"] == "OK" and got["sent"]["ErrorCode"] == 0
    _check(got["sent"]["MessageID"])
    assert [item["ErrorCode"] for item in got["batch"]] == [0, 300]
    assert got["root"]["ErrorCode"] == 0
    assert (got["invalid"]["name"], got["invalid"]["code"]) == ("InvalidEmailRequestError", 300)
    assert (got["foreign"]["name"], got["foreign"]["code"]) == ("ApiInputError", 400)
    assert (got["inactive"]["name"], got["inactive"]["recipients"]) == (
        "InactiveRecipientsError",
        ["gone@simulator.test"],
    )
    assert (got["wrongKey"]["name"], got["wrongKey"]["status"]) == ("InvalidAPIKeyError", 401)
    made = got["templated"]
    assert made["one"]["ErrorCode"] == 0 and [item["ErrorCode"] for item in made["batch"]] == [0, 1101]
    assert made["unknown"]["code"] == 1101
    assert [text for subject, text in texts(account) if subject == "Order 1"] == ["Hi Ann & Co"] * 2


def test_the_python_client_sends_and_raises_its_own_exceptions(server, account):
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "", "test")

    async def drive():
        async with postmark.ServerClient(account.secret, base_url=f"{server}/compat/postmark", timeout=60) as client:
            sent = await client.outbound.send(_whole(account))
            batch = await client.outbound.send_batch([_mail(account), _mail(account, To="nobody")])
            with pytest.raises(ValidationException) as invalid:
                await client.outbound.send(_mail(account, To="nobody"))
            with pytest.raises(InactiveRecipientException) as inactive:
                await client.outbound.send(_mail(account, To="gone@simulator.test"))
        async with postmark.ServerClient("nobody", base_url=f"{server}/compat/postmark", timeout=60) as client:
            with pytest.raises(InvalidAPIKeyException):
                await client.outbound.send(_mail(account))
        return sent, batch, invalid.value, inactive.value

    sent, batch, invalid, inactive = asyncio.run(drive())
    assert sent.success
    _check(sent.message_id)
    assert [item.error_code for item in batch] == [0, 300]
    assert invalid.error_code == 300 and "Invalid 'To' address" in invalid.message
    assert inactive.inactive_recipients == ["gone@simulator.test"]


def test_postmarker_sends_from_the_root(server, account):
    client = PostmarkClient(server_token=account.secret, root_api_url=server, timeout=60)
    whole = {k: v for k, v in _whole(account).items() if k != "Headers"}
    sent = client.emails.send(**whole, Headers={"X-Order": "17"})
    _check(sent["MessageID"])
    batch = client.emails.send_batch(_mail(account), _mail(account, To="nobody"))
    assert [item["ErrorCode"] for item in batch] == [0, 300]
    with pytest.raises(ClientError, match="300"):
        client.emails.send(**_mail(account, To="nobody"))


def _backend(server, account, key=None):
    return EmailBackend(server_token=key or account.secret, api_url=f"{server}/compat/postmark")


def _message(account, **fields):
    return AnymailMessage(
        subject="Grüße 🎉",
        body="Hi",
        from_email=f"Jürgen <orders@{account.domain}>",
        **{"to": ["Änne <delivered@simulator.test>"], **fields},
    )


def test_anymail_sends_batches_and_names_what_is_wrong(server, account):
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "", "test")
    whole = _message(
        account, cc=["cc@simulator.test"], bcc=["bcc@simulator.test"], reply_to=["help@simulator.test"],
        headers={"X-Order": "17"},
    )  # fmt: skip
    whole.attach_alternative("<p>Hi</p>", "text/html")
    whole.attach("a.txt", "attached", "text/plain")
    whole.metadata, whole.tags = {"order": "17"}, ["order"]
    whole.track_opens = True
    assert _backend(server, account).send_messages([whole]) == 1
    stored = Message.objects.get(id=whole.anymail_status.message_id)
    assert (stored.from_header, stored.to) == (
        f"Jürgen <orders@{account.domain}>",
        ["Änne <delivered@simulator.test>"],
    )
    batch = _message(account, to=["a@simulator.test", "b@simulator.test"])
    batch.merge_metadata = {"a@simulator.test": {"n": "1"}, "b@simulator.test": {"n": "2"}}
    assert _backend(server, account).send_messages([batch]) == 1
    ids = [r.message_id for r in batch.anymail_status.recipients.values()]
    assert [dict(Message.objects.get(id=i).metadata) for i in ids] == [{"n": "1"}, {"n": "2"}]
    partly = _message(account, to=["gone@simulator.test", "b@simulator.test"])
    assert _backend(server, account).send_messages([partly]) == 1
    assert {a: r.status for a, r in partly.anymail_status.recipients.items()} == {
        "gone@simulator.test": "rejected",
        "b@simulator.test": "sent",
    }
    with pytest.raises(AnymailRecipientsRefused):
        _backend(server, account).send_messages([_message(account, to=["gone@simulator.test"])])
    foreign = _message(account)
    foreign.from_email = "a@elsewhere.example"
    with pytest.raises(AnymailAPIError, match=r"elsewhere\.example"):
        _backend(server, account).send_messages([foreign])
    with pytest.raises(AnymailAPIError, match="401"):
        _backend(server, account, key="nobody").send_messages([_message(account)])


def test_the_clients_send_from_a_template(server, account):
    given = {"subject": "Order {{n}}", "html": "<p>{{#each items}}{{name}} {{/each}}</p>", "language": "mustachio"}
    row = templating.create(account.tenant.id, "order", "17", given, "test")
    templating.publish(account.tenant.id, str(row.id), "test")
    model = {"n": 1, "items": [{"name": "a"}, {"name": "b"}]}
    bare = {"From": f"a@{account.domain}", "To": "delivered@simulator.test", "TemplateModel": model}

    async def drive():
        async with postmark.ServerClient(account.secret, base_url=f"{server}/compat/postmark", timeout=60) as client:
            sent = await client.outbound.send_with_template({**bare, "TemplateId": 17})
            both = await client.outbound.send_batch_with_template([{**bare, "TemplateAlias": "17"}])
            return [sent, *both]

    assert all(sent.success for sent in asyncio.run(drive()))
    client = PostmarkClient(server_token=account.secret, root_api_url=server, timeout=60)
    assert client.emails.send_with_template(TemplateId=17, **bare)["ErrorCode"] == 0
    message = _message(account, to=["a@simulator.test", "b@simulator.test"])
    message.subject = message.body = ""
    message.template_id, message.merge_global_data = 17, model
    message.merge_data = {"a@simulator.test": {"n": 2}, "b@simulator.test": {"n": 3}}
    assert _backend(server, account).send_messages([message]) == 1
    rows = Message.objects.filter(tenant=account.tenant).order_by("id")
    assert [m.subject for m in rows] == ["Order 1", "Order 1", "Order 1", "Order 2", "Order 3"]
    assert {MessageContent.objects.get(id=m.id).html for m in rows} == {"<p>a b </p>"}


def test_the_clients_send_one_message_to_many(server, account):
    bulk = _mail(account, Subject="Hi {{name}}", TextBody="{{#if vip}}VIP {{/if}}{{name}}", Metadata={"all": "1"})
    del bulk["To"], bulk["HtmlBody"]
    people = [
        {"To": "ann@example.com", "TemplateModel": {"name": "Ann & Co", "vip": True}, "Metadata": {"n": "1"}},
        {"To": "bob@example.com", "TemplateModel": {"name": "Bob"}},
    ]

    async def drive():
        async with postmark.ServerClient(account.secret, base_url=f"{server}/compat/postmark", timeout=60) as client:
            sent = await client.outbound.send_bulk({**bulk, "Messages": people})
            before = await client.outbound.get_bulk_status(sent.id)
            await sync_to_async(Delivery.objects.filter(tenant=account.tenant).update)(status="delivered")
            with pytest.raises(ValidationException, match=r"Messages\[1\]"):
                await client.outbound.send_bulk({**bulk, "Messages": [people[0], {"To": "nobody"}]})
            return before, await client.outbound.get_bulk_status(sent.id)

    before, after = asyncio.run(drive())
    assert (before.total_messages, before.status.value, before.percentage_completed) == (2, "Processing", 0)
    assert (after.status.value, after.percentage_completed) == ("Completed", 1)
    rows = Message.objects.filter(tenant=account.tenant).order_by("id")
    assert [(m.subject, dict(m.metadata), MessageContent.objects.get(id=m.id).text) for m in rows] == [
        ("Hi Ann & Co", {"all": "1", "n": "1"}, "VIP Ann & Co"),
        ("Hi Bob", {"all": "1"}, "Bob"),
    ]
    backend = EmailBackend(server_token=account.secret, api_url=f"{server}/compat/postmark", use_bulk_api=True)
    message = _message(account, to=["a@simulator.test", "b@simulator.test"])
    assert backend.send_messages([message]) == 1
    assert {r.status for r in message.anymail_status.recipients.values()} == {"queued"}


@pytest.fixture
def bounced(account):
    """A mail to a dead mailbox, as a delivery leaves it."""
    sent = account.post(
        "/compat/postmark/email", _mail(account, To="dead@example.com", Tag="order", Metadata={"order": "17"}),
        HTTP_X_POSTMARK_SERVER_TOKEN=account.secret,
    )  # fmt: skip
    now, ident = timezone.now(), sent.json()["MessageID"]
    Delivery.objects.filter(message_id=ident).update(
        status="bounced", category="bad_mailbox", reply="550 5.1.1 no such user", settled_at=now
    )
    delivery = Delivery.objects.get(message_id=ident)
    Event.objects.create(
        tenant_id=account.tenant.id, type="email.bounced", message_id=ident, delivery_id=delivery.id, place=2,
        recipient="dead@example.com", data={"category": "bad_mailbox", "reply": "550 5.1.1 no"}, created_at=now,
    )  # fmt: skip
    suppressions.add(account.tenant, "dead@example.com", "bounce", "550 5.1.1 no such user", "test")
    return ident


def _reads(account):
    return Suppression.objects.filter(tenant=account.tenant, address="dead@example.com").exists()


def test_the_node_client_reads_messages_bounces_and_suppressions(server, account, bounced):
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "", "test")
    given = {"inactive": "gone@simulator.test", "bounced": bounced}
    got = node("postmark.mjs", url=server, key=account.secret, domain=account.domain, **given)["read"]
    assert [m["MessageID"] for m in got["list"]["Messages"]] == [bounced] and got["list"]["TotalCount"] == 1
    assert got["details"]["HtmlBody"] == "<p>Hi</p>" and got["details"]["Metadata"] == {"order": "17"}
    assert [e["Type"] for e in got["details"]["MessageEvents"]] == ["Bounced"]
    (bounce,) = got["bounces"]["Bounces"]
    assert (bounce["Type"], bounce["Email"], bounce["Inactive"]) == ("HardBounce", "dead@example.com", True)
    assert got["details"]["MessageEvents"][0]["Details"]["BounceID"] == str(bounce["ID"])
    assert got["bounce"] == bounce and got["activated"]["Bounce"]["Inactive"] is False
    assert {b["Type"]: b["Count"] for b in got["stats"]["Bounces"]} == {"All": 1, "HardBounce": 1}
    assert got["added"]["Suppressions"][0]["Status"] == "Suppressed"
    assert {s["EmailAddress"]: s["SuppressionReason"] for s in got["dump"]["Suppressions"]} == {
        "gone@simulator.test": "HardBounce",
        "dead@example.com": "HardBounce",
        "x@simulator.test": "ManualSuppression",
    }
    assert got["removed"]["Suppressions"][0]["Status"] == "Deleted" and not _reads(account)


def test_the_python_client_reads_messages_bounces_and_suppressions(server, account, bounced):
    async def drive():
        async with postmark.ServerClient(account.secret, base_url=f"{server}/compat/postmark", timeout=60) as client:
            page = await client.outbound.list(tag="order", metadata={"order": "17"}, status="sent")
            details = await client.outbound.get(bounced)
            listed = await client.bounces.list(type=BounceType.HARD_BOUNCE, message_id=bounced)
            one = await client.bounces.get(listed.items[0].id)
            dump = await client.bounces.get_dump(one.id)
            stats = await client.bounces.get_delivery_stats()
            held = await client.suppressions.dump("outbound", email_address="dead@example.com")
            done = await client.suppressions.create("outbound", ["x@simulator.test", "nobody"])
            gone = await client.suppressions.delete("outbound", ["x@simulator.test"])
            active = await client.bounces.activate(one.id)
            with pytest.raises(PostmarkAPIException) as missing:
                await client.outbound.get("00000000-0000-0000-0000-000000000001")
            return page, details, listed, one, dump, stats, held, done, gone, active, missing.value

    page, details, listed, one, dump, stats, held, done, gone, active, missing = asyncio.run(drive())
    assert (page.total, page.items[0].message_id, page.items[0].tag) == (1, bounced, "order")
    assert details.message_events[0].details.bounce_id == str(one.id) and listed.total == 1
    assert (one.details, dump.body) == ("550 5.1.1 no such user", "550 5.1.1 no such user")
    assert stats.inactive_mails == 1 and held[0].suppression_reason.value == "HardBounce"
    assert [r.status for r in done] == ["Suppressed", "Failed"] and gone[0].status == "Deleted"
    assert active.bounce.inactive is False and not _reads(account)
    assert missing.http_status == 404


def test_postmarker_reads_messages_and_bounces(server, account, bounced):
    client = PostmarkClient(server_token=account.secret, root_api_url=server, timeout=60)
    assert [m.MessageID for m in client.messages.outbound.all(count=10)] == [bounced]
    assert client.messages.outbound.get(bounced).Status == "Sent"
    (bounce,) = client.bounces.all(count=10)
    assert client.bounces.get(bounce.ID).Email == "dead@example.com"
    assert client.bounces.deliverystats["InactiveMails"] == 1
    assert bounce.activate() == "OK" and not _reads(account)


@pytest.fixture
def slow_commits(account):
    """Every commit that stores a mail takes longer than the client waits; no statement time-out ends it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(6.5); RETURN NULL; END'"
        )
        cursor.execute(
            "CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION slow_commit()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER slow_commit ON message")
        cursor.execute("DROP FUNCTION slow_commit()")


def test_a_client_that_posts_again_after_five_seconds_sends_one_mail(server, account, slow_commits):
    async def drive():
        async with postmark.ServerClient(account.secret, base_url=f"{server}/compat/postmark") as client:
            return await client.outbound.send(_mail(account))

    sent = asyncio.run(drive())
    assert sent.success
    assert [str(m.id) for m in Message.objects.filter(tenant=account.tenant)] == [sent.message_id]
    assert IdempotencyKey.objects.filter(tenant_id=account.tenant.id, endpoint__startswith="repost:").count() == 1


def test_two_quick_identical_posts_are_two_mails(server, account):
    async def drive():
        async with postmark.ServerClient(account.secret, base_url=f"{server}/compat/postmark", timeout=60) as client:
            return [await client.outbound.send(_mail(account)) for _ in range(2)]

    assert len({sent.message_id for sent in asyncio.run(drive())}) == 2
    client = PostmarkClient(server_token=account.secret, root_api_url=server, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: client.emails.send(**_mail(account)), range(2)))
    assert Message.objects.filter(tenant=account.tenant).count() == 4
