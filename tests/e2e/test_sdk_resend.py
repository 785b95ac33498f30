"""Resend's Node SDK, django-anymail's Resend backend and its tracking view: only the URL is changed."""

import base64

import pytest
from anymail.backends.resend import EmailBackend
from anymail.exceptions import AnymailAPIError
from anymail.message import AnymailMessage

from deliveries.models import Attachment, Message
from tests.fakes.node import node

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_node_sdk_sends_reads_and_fails_as_its_types_say(server, account):
    got = node("resend.mjs", url=server, key=account.secret, domain=account.domain)
    ident = got["sent"]["data"]["id"]
    assert got["got"]["data"]["subject"] == "Grüße 🎉" and got["got"]["data"]["cc"] == ["cc@simulator.test"]
    assert got["got"]["data"]["tags"] == [{"name": "kind", "value": "order"}]
    files = Attachment.objects.filter(message_id=ident).order_by("position")
    assert [(f.filename, bytes(f.content), f.content_id) for f in files] == [
        ("a.txt", b"attached", None),
        ("logo.png", b"png", "logo"),
    ]
    assert len(got["list"]["data"]["data"]) == 2 and got["list"]["data"]["has_more"] is True
    assert len(got["batch"]["data"]["data"]) == 2
    assert len(got["permissive"]["data"]["data"]) == 1 and got["permissive"]["data"]["errors"][0]["index"] == 1
    assert Message.objects.get(id=got["later"]["data"]["id"]).scheduled_at is not None
    hook = got["hook"]["data"]
    assert hook["signing_secret"].startswith("whsec_") and got["hookGot"]["data"]["id"] == hook["id"]
    assert [h["id"] for h in got["hooks"]["data"]["data"]] == [hook["id"]]
    assert got["hookChanged"]["data"]["id"] == hook["id"] and got["hookGone"]["data"]["deleted"] is True
    assert got["domains"]["data"]["data"][0]["name"] == account.domain
    for name, word, status in (
        ("invalid", "validation_error", 422),
        ("foreign", "validation_error", 403),
        ("unknown", "not_found", 404),
        ("wrongKey", "invalid_api_key", 403),
    ):
        assert (got[name]["error"]["name"], got[name]["error"]["statusCode"]) == (word, status)
    assert Message.objects.filter(tenant=account.tenant).count() == 5


def _backend(server, account, **options):
    return EmailBackend(api_key=account.secret, api_url=server, **options)


def _mail(account, **fields):
    return AnymailMessage(
        subject="Grüße",
        body="Hi",
        from_email=f"Shop <orders@{account.domain}>",
        **{"to": ["Ann <delivered@simulator.test>"], **fields},
    )


def test_anymail_sends_by_its_resend_backend(server, account):
    mail = _mail(account, cc=["cc@simulator.test"], bcc=["bcc@simulator.test"], reply_to=["help@simulator.test"])
    mail.attach("a.txt", "attached", "text/plain")
    mail.attach_alternative("<p>Hi</p>", "text/html")
    mail.metadata = {"order": "17"}
    mail.tags = ["welcome"]
    assert _backend(server, account).send_messages([mail]) == 1
    assert mail.anymail_status.status == {"queued"}
    stored = Message.objects.get(id=mail.anymail_status.message_id)
    assert (stored.subject, stored.to, stored.bcc) == (
        "Grüße",
        ["Ann <delivered@simulator.test>"],
        ["bcc@simulator.test"],
    )
    assert bytes(Attachment.objects.get(message_id=stored.id).content) == b"attached"


def test_anymail_sends_a_batch_and_an_inline_image(server, account):
    mail = _mail(account, to=["a@simulator.test", "b@simulator.test"])
    mail.merge_metadata = {"a@simulator.test": {"n": "1"}, "b@simulator.test": {"n": "2"}}
    assert _backend(server, account).send_messages([mail]) == 1
    ids = {r.message_id for r in mail.anymail_status.recipients.values()}
    assert len(ids) == 2 and Message.objects.filter(tenant=account.tenant).count() == 2
    shown = _mail(account)
    cid = shown.attach_inline_image(base64.b64decode("iVBORw0KGgo="), "logo.png", "png")
    shown.attach_alternative(f'<img src="cid:{cid}">', "text/html")
    assert _backend(server, account).send_messages([shown]) == 1
    assert Attachment.objects.get(message_id=shown.anymail_status.message_id).content_id == cid


def test_anymail_names_what_is_wrong(server, account):
    mail = _mail(account)
    mail.from_email = "a@elsewhere.example"
    with pytest.raises(AnymailAPIError, match=r"elsewhere\.example"):
        _backend(server, account).send_messages([mail])
    assert Message.objects.filter(tenant=account.tenant).count() == 0
