"""SendGrid's own clients, unmodified: sendgrid (Python), @sendgrid/mail, django-anymail's backend."""

import json

import pytest
from anymail.exceptions import AnymailAPIError
from anymail.message import AnymailMessage
from python_http_client.exceptions import BadRequestsError, ForbiddenError, UnauthorizedError
from sendgrid import SendGridAPIClient
from sendgrid.helpers import mail as helpers

from deliveries.models import Attachment, Message, MessageContent, Suppression
from deliveries.record import suppressions
from tests.fakes.node import node
from tests.steps.api import template, texts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.filterwarnings("ignore:django-anymail has dropped")]


def _check(ident):
    """The mail that each client sends with all that a mail can have."""
    stored = Message.objects.get(id=ident)
    assert (stored.subject, stored.cc, stored.bcc, stored.reply_to) == (
        "Grüße 🎉",
        ["cc@simulator.test"],
        ["bcc@simulator.test"],
        ["help@simulator.test"],
    )
    assert stored.tags == [{"name": "order", "value": ""}] and dict(stored.metadata)["order"] == "17"
    content = MessageContent.objects.get(id=ident)
    assert (content.text, content.html) == ("Hi", "<p>Hi</p>") and ["X-Order", "17"] in content.headers
    files = Attachment.objects.filter(message_id=ident).order_by("filename")  # the Python client turns them round
    assert [(f.filename, bytes(f.content), f.content_id) for f in files] == [
        ("a.txt", b"attached", None),
        ("logo.png", b"png", "logo"),
    ]


DEAR = [("Order 1", "Dear Ann & Co"), ("Order 2", "Dear Bob")]


def _texts(account, *begin):
    rows = Message.objects.filter(tenant=account.tenant).order_by("id")
    contents = {c.id: c for c in MessageContent.objects.filter(id__in=[m.id for m in rows])}
    return sorted((m.to, contents[m.id].text) for m in rows if not m.cc and contents[m.id].text.startswith(begin or ""))


def test_the_node_client_sends_and_tells_errors_apart(server, account):
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "550 5.1.1 no such user", "test")
    template(account, "d-0123456789abcdef", "handlebars", text="Dear {{name}}")
    given = {"template": "d-0123456789abcdef"}
    got = node("sendgrid.mjs", url=server, key=account.secret, domain=account.domain, **given)
    assert (got["sent"]["status"], got["sent"]["ignored"]) == (202, "tracking_settings.click_tracking")
    _check(got["sent"]["id"])
    assert got["each"]["status"] == 202 and got["sandbox"]["status"] == 200
    assert _texts(account, "Hi") == [(["a@simulator.test"], "Hi Ann"), (["b@simulator.test"], "Hi Bob")]
    assert got["templated"]["status"] == 202
    assert [t for t in texts(account) if t[0].startswith("Order")] == DEAR
    (error,) = got["invalid"]["body"]["errors"]
    assert got["invalid"]["code"] == 400 and error["field"] == "personalizations.0.to.0.email"
    assert got["foreign"]["code"] == 403 and got["foreign"]["body"]["errors"][0]["field"] == "from"
    assert got["wrongKey"]["code"] == 401
    (bounce,) = got["bounces"]
    assert (bounce["email"], bounce["status"]) == ("gone@simulator.test", "5.1.1") and got["one"] == [bounce]
    assert (got["blocks"], got["added"], got["removed"]) == ([], 201, 204)
    assert [s.address for s in Suppression.objects.filter(tenant=account.tenant)] == ["x@simulator.test"]


def test_the_python_client_reads_and_changes_suppressions(server, account):
    lists = SendGridAPIClient(account.secret, host=f"{server}/compat/sendgrid").client.suppression
    suppressions.add(account.tenant, "gone@simulator.test", "bounce", "550 5.1.1 no such user", "test")
    suppressions.add(account.tenant, "spam@simulator.test", "complaint", "", "test")
    (bounce,) = json.loads(lists.bounces.get().body)
    assert set(bounce) == {"created", "email", "reason", "status"}
    assert json.loads(lists.spam_reports.get().body)[0]["email"] == "spam@simulator.test"
    assert json.loads(lists.bounces._("gone@simulator.test").get().body) == [bounce]
    assert lists.bounces._("gone@simulator.test").delete().status_code == 204
    assert lists.spam_reports.delete(request_body={"delete_all": True}).status_code == 204
    assert not Suppression.objects.filter(tenant=account.tenant).exists()


def test_the_python_client_sends_and_raises_its_own_exceptions(server, account):
    client = SendGridAPIClient(account.secret, host=f"{server}/compat/sendgrid")

    def mail(to="delivered@simulator.test", sender=None):
        return helpers.Mail(
            from_email=helpers.From(sender or f"orders@{account.domain}", "Shop"),
            to_emails=to,
            subject="Grüße 🎉",
            plain_text_content="Hi",
            html_content="<p>Hi</p>",
        )

    whole = mail()
    whole.add_cc("cc@simulator.test")
    whole.add_bcc("bcc@simulator.test")
    whole.reply_to = "help@simulator.test"
    whole.add_category(helpers.Category("order"))
    whole.add_custom_arg(helpers.CustomArg("order", "17"))
    whole.add_header(helpers.Header("X-Order", "17"))
    whole.add_attachment(helpers.Attachment("YXR0YWNoZWQ=", "a.txt", "text/plain", "attachment"))
    whole.add_attachment(helpers.Attachment("cG5n", "logo.png", "image/png", "inline", "logo"))
    sent = client.send(whole)
    assert (sent.status_code, sent.body) == (202, b"")
    _check(sent.headers["X-Message-Id"])
    several = helpers.Mail(
        from_email=f"orders@{account.domain}",
        to_emails=[
            helpers.To("a@simulator.test", "Ann", substitutions={"-name-": "Ann"}),
            helpers.To("b@simulator.test", "Bob", substitutions={"-name-": "Bob"}),
        ],
        subject="Hello -name-",
        plain_text_content="Hi -name-",
        is_multiple=True,
    )
    assert client.send(several).status_code == 202
    assert _texts(account) == [(["Ann <a@simulator.test>"], "Hi Ann"), (["Bob <b@simulator.test>"], "Hi Bob")]
    with pytest.raises(BadRequestsError) as invalid:
        client.send(mail(to="a@no-dot"))
    assert json.loads(invalid.value.body)["errors"][0]["field"] == "personalizations.0.to.0.email"
    with pytest.raises(ForbiddenError):
        client.send(mail(sender="a@elsewhere.example"))
    with pytest.raises(UnauthorizedError):
        SendGridAPIClient("SG.nobody", host=f"{server}/compat/sendgrid").send(mail())


def test_anymail_sends_batches_and_names_what_is_wrong(server, account):
    from anymail.backends.sendgrid import EmailBackend

    backend = EmailBackend(api_key=account.secret, api_url=f"{server}/compat/sendgrid/v3/")

    def message(**fields):
        given = {"to": ["Änne <delivered@simulator.test>"], **fields}
        sender = f"Jürgen <orders@{account.domain}>"
        return AnymailMessage(subject="Grüße 🎉", body="Hi", from_email=sender, **given)

    named = {"cc": ["cc@simulator.test"], "bcc": ["bcc@simulator.test"], "reply_to": ["help@simulator.test"]}
    whole = message(headers={"X-Order": "17"}, **named)
    whole.attach("a.txt", "attached", "text/plain")
    cid = whole.attach_inline_image(b"png", "logo.png", "png")
    whole.attach_alternative("<p>Hi</p>", "text/html")
    whole.metadata, whole.tags, whole.track_clicks = {"order": "17"}, ["order", "two words"], True
    assert backend.send_messages([whole]) == 1
    stored = Message.objects.get(tenant=account.tenant)
    assert (stored.to, stored.from_header) == (["Änne <delivered@simulator.test>"], f"Jürgen <orders@{account.domain}>")
    assert dict(stored.metadata) == {"order": "17", "anymail_id": whole.anymail_status.message_id}
    assert [tag["name"] for tag in stored.tags] == ["order", "two words"]
    assert Attachment.objects.get(message_id=stored.id, content_id=cid).content_type == "image/png"
    batch = message(to=["a@simulator.test", "b@simulator.test"])
    batch.body = "Hi -name-"
    batch.merge_data = {"a@simulator.test": {"-name-": "Ann"}, "b@simulator.test": {"-name-": "Bob"}}
    batch.merge_metadata = {"a@simulator.test": {"n": "1"}, "b@simulator.test": {"n": "2"}}
    assert backend.send_messages([batch]) == 1
    assert _texts(account) == [(["a@simulator.test"], "Hi Ann"), (["b@simulator.test"], "Hi Bob")]
    foreign = message()
    foreign.from_email = "a@elsewhere.example"
    with pytest.raises(AnymailAPIError, match=r"elsewhere\.example"):
        backend.send_messages([foreign])


def test_the_python_client_and_anymail_send_a_dynamic_template(server, account):
    from anymail.backends.sendgrid import EmailBackend

    ident = "d-0123456789abcdef"
    template(account, ident, "handlebars", text="Dear {{name}}")
    client = SendGridAPIClient(account.secret, host=f"{server}/compat/sendgrid")
    mail = helpers.Mail(from_email=f"orders@{account.domain}", is_multiple=True)
    mail.template_id = ident
    for address, data in (
        ("a@simulator.test", {"n": 1, "name": "Ann & Co"}),
        ("b@simulator.test", {"n": 2, "name": "Bob"}),
    ):
        person = helpers.Personalization()
        person.add_to(helpers.To(address))
        person.dynamic_template_data = data
        mail.add_personalization(person)
    assert (
        client.send(mail).status_code == 202 and sorted(texts(account)) == DEAR
    )  # it turns the personalizations round
    mail.template_id = "d-none"
    with pytest.raises(BadRequestsError) as unknown:
        client.send(mail)
    assert json.loads(unknown.value.body)["errors"][0]["field"] == "template_id"

    message = AnymailMessage(from_email=f"orders@{account.domain}", to=["a@simulator.test", "b@simulator.test"])
    message.template_id, message.merge_global_data = ident, {"name": "Bob"}
    message.merge_data = {"a@simulator.test": {"n": 1, "name": "Ann & Co"}, "b@simulator.test": {"n": 2}}
    backend = EmailBackend(api_key=account.secret, api_url=f"{server}/compat/sendgrid/v3/")
    assert backend.send_messages([message]) == 1 and texts(account)[2:] == DEAR


def test_a_client_that_knows_no_path_is_known_by_its_key(server, account):
    client = SendGridAPIClient(account.secret, host=server)
    sent = client.send(helpers.Mail(f"a@{account.domain}", "b@simulator.test", "x", plain_text_content="y"))
    assert sent.status_code == 202
