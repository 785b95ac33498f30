"""The unmodified Resend SDK keeps templates, sends from them, and reads the log, against a real web process."""

import time

import pytest
import resend
from resend import exceptions

from deliveries.models import ApiKey, Message, MessageContent

pytestmark = pytest.mark.django_db(transaction=True)

WELCOME = {
    "name": "Welcome",
    "alias": "welcome",
    "subject": "Welcome, {{{NAME}}}",
    "html": "<style>p{color:red}</style><p>Hi {{{NAME}}}</p>",
    "variables": [{"key": "NAME", "type": "string", "fallback_value": "there"}, {"key": "PLAN", "type": "number"}],
}


@pytest.fixture(autouse=True)
def _pointed_at_us(server, account, monkeypatch):
    monkeypatch.setattr(resend, "api_url", server)
    monkeypatch.setattr(resend, "api_key", account.secret)


def test_the_sdk_makes_publishes_and_sends_from_a_template(account):
    made = resend.Templates.create({**WELCOME, "from": f"Shop <orders@{account.domain}>"})
    assert made["object"] == "template"
    assert resend.Templates.get("welcome")["status"] == "draft"
    resend.Templates.update({"id": made["id"], "html": WELCOME["html"] + "<p>Plan {{{PLAN}}}</p>"})
    assert resend.Templates.publish(made["id"])["id"] == made["id"]
    to = {"to": ["delivered@simulator.test"]}
    resend.Emails.send({**to, "template": {"id": "welcome", "variables": {"NAME": "<Ada>", "PLAN": 3}}})
    resend.Batch.send([{**to, "template": {"id": made["id"], "variables": {"PLAN": 4}}}] * 2)
    assert sorted(Message.objects.values_list("subject", flat=True)) == ["Welcome, <Ada>"] + ["Welcome, there"] * 2
    first = MessageContent.objects.order_by("id").first()
    assert '<p style="color: red;">Hi &lt;Ada&gt;</p><p style="color: red;">Plan 3</p>' in first.html
    assert first.text == "Hi <Ada>\n\nPlan 3"
    copy = resend.Templates.duplicate(made["id"])
    page = resend.Templates.list({"limit": 1})
    assert page["data"][0]["id"] == copy["id"] and page["has_more"] is True
    assert resend.Templates.remove(copy["id"])["deleted"] is True


def test_what_is_wrong_with_a_template_becomes_an_exception_of_the_sdk(account):
    with pytest.raises(exceptions.ValidationError, match=r"never closed"):
        resend.Templates.create({**WELCOME, "html": "{% if PLAN %}"})
    with pytest.raises(exceptions.MissingRequiredFieldsError, match="html"):
        resend.Templates.create({"name": "x"})
    with pytest.raises(exceptions.ResendError) as caught:
        resend.Templates.publish("nothing")
    assert (caught.value.code, caught.value.error_type) == (404, "not_found")
    resend.Templates.create(WELCOME)
    mail = {"from": f"a@{account.domain}", "to": "b@simulator.test", "template": {"id": "welcome"}}
    with pytest.raises(exceptions.ValidationError, match="never published"):
        resend.Emails.send(mail)
    resend.Templates.update({"id": "welcome", "html": "{{{PLAN}}}"})
    resend.Templates.publish("welcome")
    with pytest.raises(exceptions.ValidationError, match=r"template\.variables\.PLAN"):
        resend.Emails.send(mail)
    assert Message.objects.count() == 0


def test_the_sdk_reads_the_log_of_its_requests(account):
    resend.Templates.create(WELCOME)
    with pytest.raises(exceptions.ValidationError):
        resend.Emails.send({"from": "x", "to": "nobody", "subject": "s", "text": "t"})
    found = []
    for _ in range(300):  # written off the requests' path
        if len(found := resend.Logs.list()["data"]) == 2:
            break
        time.sleep(0.1)
    assert [(log["endpoint"], log["response_status"]) for log in found] == [("/emails", 422), ("/templates", 201)]
    refused = resend.Logs.get(found[0]["id"])
    assert refused["object"] == "log" and refused["method"] == "POST" and refused["user_agent"].startswith("resend")
    assert refused["request_body"]["to"] == "nobody" and refused["response_body"]["name"] == "validation_error"
    with pytest.raises(exceptions.ResendError) as caught:
        resend.Logs.get("01900000-0000-7000-8000-000000000000")
    assert caught.value.code == 404


def test_too_many_requests_become_the_sdks_rate_limit_error(account):
    ApiKey.objects.update(rate_limit=1)
    with pytest.raises(exceptions.RateLimitError) as caught:
        for _ in range(100):
            resend.Templates.list()
    assert caught.value.code == 429 and int(caught.value.headers["retry-after"]) >= 1
