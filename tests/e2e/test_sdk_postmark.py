"""Postmark's own clients, unmodified: postmark-python, postmarker, npm postmark, django-anymail's backend."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import postmark
import pytest
from anymail.backends.postmark import EmailBackend
from anymail.exceptions import AnymailAPIError, AnymailRecipientsRefused
from anymail.message import AnymailMessage
from django.db import connection
from postmark.exceptions import InactiveRecipientException, InvalidAPIKeyException, ValidationException
from postmarker.core import PostmarkClient
from postmarker.exceptions import ClientError

from deliveries.models import Attachment, IdempotencyKey, Message, MessageContent
from deliveries.record import suppressions
from tests.fakes.node import node

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
    got = node("postmark.mjs", url=server, key=account.secret, domain=account.domain, inactive="gone@simulator.test")
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
