"""Mailgun's own clients, unmodified: mailgun (Python), mailgun.js, django-anymail's backend."""

import json

import pytest
from anymail.backends.mailgun import EmailBackend
from anymail.exceptions import AnymailAPIError
from anymail.message import AnymailMessage
from mailgun.client import Client

from deliveries.models import Attachment, Delivery, Message, MessageContent, Suppression
from deliveries.record import suppressions
from tests.fakes.node import node
from tests.steps.api import template, texts

pytestmark = pytest.mark.django_db(transaction=True)


def _stored(account, ident):
    return Message.objects.get(tenant=account.tenant, message_id=ident.strip("<>"))


def _check(stored):
    """The mail that each client sends with all that a mail can have."""
    assert (stored.subject, stored.cc, stored.bcc, stored.reply_to) == (
        "Grüße 🎉",
        ["cc@simulator.test"],
        ["bcc@simulator.test"],
        ["help@simulator.test"],
    )
    assert [tag["name"] for tag in stored.tags] == ["order", "two words"] and dict(stored.metadata) == {"order": "17"}
    content = MessageContent.objects.get(id=stored.id)
    assert (content.text, content.html) == ("Hi", "<p>Hi</p>") and ["X-Order", "17"] in content.headers
    files = Attachment.objects.filter(message_id=stored.id).order_by("position")
    assert (files[0].filename, bytes(files[0].content)) == ("a.txt", b"attached")
    assert (bytes(files[1].content), files[1].content_type) == (b"png", "image/png")
    assert files[1].content_id == files[1].filename


def _told(account, ident):
    stored = _stored(account, ident)
    return stored.subject, MessageContent.objects.get(id=stored.id).text


def _texts(account):
    rows = Message.objects.filter(tenant=account.tenant).order_by("id")
    contents = {c.id: c for c in MessageContent.objects.filter(id__in=[m.id for m in rows])}
    return sorted(
        (m.to, contents[m.id].text) for m in rows if (contents[m.id].text or "").startswith("Hi") and not m.cc
    )


EACH = [(["Ann <a@simulator.test>"], "Hi Ann"), (["b@simulator.test"], "Hi Bob")]


def test_the_node_client_sends_and_tells_errors_apart(server, account):
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "550 5.1.1 no such user", "test")
    template(account, "order", "handlebars", text="Dear {{name}}")
    got = node("mailgun.mjs", url=server, key=account.secret, domain=account.domain, template="order")
    assert got["sent"]["message"] == "Queued. Thank you." and got["sent"]["id"].endswith(f"@{account.domain}>")
    _check(_stored(account, got["sent"]["id"]))
    assert _texts(account) == EACH
    assert _told(account, got["templated"]["id"]) == ("Order 1", "Dear Ann & Co")
    whole = _stored(account, got["mime"]["id"])
    assert whole.subject == "whole" and bytes(MessageContent.objects.get(id=whole.id).raw).endswith(b"\r\n\r\nHi\r\n")
    assert [d.recipient for d in Delivery.objects.filter(message_id=whole.id)] == ["delivered@simulator.test"]
    assert got["invalid"]["status"] == 400
    assert got["foreign"]["status"] == 404 and got["wrongKey"]["status"] == 401
    lists = got["lists"]
    assert [b["address"] for b in lists["bounces"]["items"]] == ["gone@simulator.test"]
    assert lists["one"]["error"] == "550 5.1.1 no such user" and lists["missing"]["status"] == 404
    assert [u["address"] for u in lists["unsubscribes"]["items"]] == ["x@simulator.test"]
    assert [s.address for s in Suppression.objects.filter(tenant=account.tenant)] == ["x@simulator.test"]
    seen = [e["id"] for e in got["events"]["first"] + got["events"]["next"]]
    assert len(got["events"]["first"]) == 2 and len(seen) == len(set(seen)) == 4


def test_the_python_client_reads_events_and_suppressions(server, account):
    client = Client(auth=("api", account.secret), api_url=f"{server}/compat/mailgun")
    mail = {"from": f"a@{account.domain}", "to": "b@simulator.test", "subject": "x", "text": "y", "o:tag": "order"}
    sent = client.messages.create(data=mail | {"v:n": "17"}, domain=account.domain).json()
    got = client.events.get(domain=account.domain, filters={"event": "accepted", "message-id": sent["id"]})
    (event,) = got.json()["items"]
    assert (event["recipient"], event["tags"], event["user-variables"]) == ("b@simulator.test", ["order"], {"n": "17"})
    assert f"<{event['message']['headers']['message-id']}>" == sent["id"]
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "550 5.1.1 no such user", "test")
    assert client.bounces.get(domain=account.domain).json()["items"][0]["code"] == "550"
    assert client.bounces.get(domain=account.domain, bounce_address="gone@simulator.test").status_code == 200
    assert client.bounces.delete(domain=account.domain, bounce_address="gone@simulator.test").status_code == 200
    made = client.complaints.create(data={"address": "x@simulator.test"}, domain=account.domain)
    assert made.status_code == 200 and Suppression.objects.get(tenant=account.tenant).reason == "complaint"


def test_the_python_client_sends(server, account):
    client = Client(auth=("api", account.secret), api_url=f"{server}/compat/mailgun")
    mail = {
        "from": f"Shop <orders@{account.domain}>",
        "to": "delivered@simulator.test",
        "subject": "Grüße 🎉",
        "text": "Hi",
        "html": "<p>Hi</p>",
    }
    whole = {
        **mail,
        "cc": "cc@simulator.test",
        "bcc": "bcc@simulator.test",
        "h:Reply-To": "help@simulator.test",
        "h:X-Order": "17",
        "o:tag": ["order", "two words"],
        "v:order": "17",
    }
    files = [("attachment", ("a.txt", b"attached", "text/plain")), ("inline", ("logo.png", b"png", "image/png"))]
    sent = client.messages.create(data=whole, files=files, domain=account.domain)
    assert sent.status_code == 200, sent.text
    _check(_stored(account, sent.json()["id"]))
    variables = json.dumps({"a@simulator.test": {"name": "Ann"}, "b@simulator.test": {"name": "Bob"}})
    people = {"to": ["Ann <a@simulator.test>", "b@simulator.test"], "text": "Hi %recipient.name%"}
    each = client.messages.create(data=mail | people | {"recipient-variables": variables}, domain=account.domain)
    assert each.status_code == 200 and _texts(account) == EACH
    raw = f"From: orders@{account.domain}\nSubject: whole\n\nHi\n".encode()
    mime = client.mimemessage.create(
        data={"to": "delivered@simulator.test"}, files={"message": ("m.eml", raw)}, domain=account.domain
    )
    assert mime.status_code == 200 and _stored(account, mime.json()["id"]).subject == "whole"
    template(account, "order", "handlebars", text="Dear {{name}}")
    bare = {"from": mail["from"], "to": mail["to"], "template": "order", "t:variables": '{"n": 1, "name": "Ann & Co"}'}
    made = client.messages.create(data=bare, domain=account.domain)
    assert made.status_code == 200 and _told(account, made.json()["id"]) == ("Order 1", "Dear Ann & Co")
    unknown = client.messages.create(data=bare | {"template": "none"}, domain=account.domain)
    assert unknown.status_code == 400 and "no template" in unknown.json()["message"]
    invalid = client.messages.create(data={**mail, "to": "nobody"}, domain=account.domain)
    assert invalid.status_code == 400 and "nobody" in invalid.json()["message"]
    assert client.messages.create(data=mail, domain="elsewhere.example").status_code == 404
    wrong = Client(auth=("api", "nobody"), api_url=f"{server}/compat/mailgun")
    assert wrong.messages.create(data=mail, domain=account.domain).status_code == 401


@pytest.mark.parametrize("prefix", ["/compat/mailgun/v3", "/v3"])
def test_anymail_sends_batches_and_names_what_is_wrong(server, account, prefix):
    backend = EmailBackend(api_key=account.secret, api_url=server + prefix)

    def message(**fields):
        given = {"to": ["Änne <delivered@simulator.test>"], **fields}
        sender = f"Jürgen <orders@{account.domain}>"
        return AnymailMessage(subject="Grüße 🎉", body="Hi", from_email=sender, **given)

    named = {"cc": ["cc@simulator.test"], "bcc": ["bcc@simulator.test"], "reply_to": ["help@simulator.test"]}
    whole = message(headers={"X-Order": "17"}, **named)
    whole.attach("a.txt", "attached", "text/plain")
    whole.attach_inline_image(b"png", "logo.png", "png")
    whole.attach_alternative("<p>Hi</p>", "text/html")
    whole.metadata, whole.tags, whole.track_clicks = {"order": "17"}, ["order", "two words"], True
    assert backend.send_messages([whole]) == 1
    stored = _stored(account, whole.anymail_status.message_id)
    _check(stored)
    assert (stored.to, stored.from_header) == (["Änne <delivered@simulator.test>"], f"Jürgen <orders@{account.domain}>")
    batch = message(to=["Ann <a@simulator.test>", "b@simulator.test"])
    batch.body = "Hi %recipient.name%"
    batch.merge_data = {"a@simulator.test": {"name": "Ann"}, "b@simulator.test": {"name": "Bob"}}
    batch.merge_metadata = {"a@simulator.test": {"n": "1"}, "b@simulator.test": {"n": "2"}}
    assert backend.send_messages([batch]) == 1
    assert _texts(account) == EACH
    rows = Message.objects.filter(tenant=account.tenant, cc=[]).order_by("id")
    assert [dict(m.metadata) for m in rows] == [{"n": "1"}, {"n": "2"}]
    foreign = message()
    foreign.from_email = "a@elsewhere.example"
    with pytest.raises(AnymailAPIError, match=r"elsewhere\.example"):
        backend.send_messages([foreign])


def test_anymail_sends_a_template_with_merge_data(server, account):
    template(account, "order", "handlebars", text="Dear {{name}}")
    backend = EmailBackend(api_key=account.secret, api_url=f"{server}/compat/mailgun/v3")
    message = AnymailMessage(from_email=f"orders@{account.domain}", to=["a@simulator.test", "b@simulator.test"])
    message.template_id, message.merge_global_data = "order", {"name": "Bob"}
    message.merge_data = {"a@simulator.test": {"n": 1, "name": "Ann & Co"}, "b@simulator.test": {"n": 2}}
    assert backend.send_messages([message]) == 1
    assert texts(account) == [("Order 1", "Dear Ann & Co"), ("Order 2", "Dear Bob")]
