"""Templates by each face: kept here, named as before, rendered in the face's own language."""

import json

from deliveries.models import Message, MessageContent
from tests.steps import test_face_mailgun as mailgun
from tests.steps import test_face_postmark as postmark
from tests.steps import test_face_sendgrid as sendgrid
from tests.steps.api import message_count, template, texts


def test_postmark_sends_from_a_template_by_number_and_by_alias(api):
    loop = "{{#each items}}{{name}} {{/each}}{{#if gone}}gone{{/if}}"
    template(api, "12345", "mustachio", text=loop)
    template(api, "welcome", "mustachio")
    bare = {k: v for k, v in postmark.mail(api).items() if k not in ("Subject", "TextBody")}
    model = {"n": 7, "items": [{"name": "a"}, {"name": "b"}]}
    answer = postmark.post(api, "/email/withTemplate/", {**bare, "TemplateId": 12345, "TemplateModel": model})
    assert answer.status_code == 200, answer.content
    items = [
        {**bare, "TemplateAlias": "welcome", "TemplateModel": {"name": "Ann & Bob", "n": 8}},
        {**bare, "TemplateAlias": "nothing", "TemplateModel": {}},
        {**bare},
        {**bare, "TemplateAlias": "welcome", "TemplateModel": [], "Subject": "x"},
    ]
    answer = postmark.post(api, "/email/batchWithTemplates", {"Messages": items})
    assert [item["ErrorCode"] for item in answer.json()] == [0, 1101, 300, 300]
    assert [(s, t.strip()) for s, t in texts(api)] == [("Order 7", "a b"), ("Order 8", "Hi Ann & Bob")]
    content = MessageContent.objects.get(id=answer.json()[0]["MessageID"])
    assert "Ann &amp; Bob" in content.html
    assert postmark.post(api, "/email", {**postmark.mail(api), "TemplateId": 1}).status_code == 422


def test_sendgrid_sends_a_dynamic_template_to_each_with_their_own_data(api):
    template(api, "d-0123456789abcdef", "handlebars", text="Hi {{name}}{{#if vip}}!{{/if}}")
    people = [
        sendgrid.to("a@simulator.test", dynamic_template_data={"name": "Ann", "n": 1, "vip": True}),
        sendgrid.to("b@simulator.test", dynamic_template_data={"name": "Bob", "n": 2}),
    ]
    body = sendgrid.mail(api, personalizations=people, template_id="d-0123456789abcdef")
    del body["subject"]
    answer = sendgrid.post(api, body)
    assert (answer.status_code, answer.headers["X-Ignored-Fields"]) == (202, "content")
    assert texts(api) == [("Order 1", "Hi Ann!"), ("Order 2", "Hi Bob")]
    unknown = sendgrid.post(api, {**body, "template_id": "d-none"})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (400, "template_id")
    assert message_count(api) == 2


def test_mailgun_sends_a_template_with_variables_for_all_and_for_each(api):
    template(api, "welcome", "handlebars", text="Hi {{name}} {{n}}")
    fields = {k: v for k, v in mailgun.mail(api).items() if k != "text"} | {"template": "welcome"}
    answer = mailgun.post(api, {**fields, "t:variables": json.dumps({"name": "Ann"}), "v:n": "1"})
    assert answer.status_code == 200, answer.content
    each = {"to": "b@simulator.test", "v:name": "%recipient.name%", "subject": []}
    variables = json.dumps({"b@simulator.test": {"name": "Bob"}})
    assert mailgun.post(api, fields | each | {"recipient-variables": variables}).status_code == 200
    assert [(s, t.strip()) for s, t in texts(api)] == [("Hello", "Hi Ann 1"), ("Order ", "Hi Bob")]
    header = {"h:X-Mailgun-Variables": json.dumps({"name": "Cy", "n": [3]})}
    assert mailgun.post(api, fields | header).status_code == 200
    assert texts(api)[2] == ("Hello", "Hi Cy 3")
    assert Message.objects.order_by("id").last().metadata == {"name": "Cy", "n": "[3]"}
    assert mailgun.post(api, fields | {"t:variables": '{"name": "\\ud800"}'}).status_code == 400
    assert mailgun.post(api, fields | {"template": "none"}).status_code == 400
    assert mailgun.post(api, fields | {"t:variables": "["}).status_code == 400
    assert mailgun.post(api, fields | {"t:version": "2"}).status_code == 400


def test_a_template_that_was_never_published_sends_nothing(api):
    template(api, "draft", "mustachio", published=False)
    bare = {k: v for k, v in postmark.mail(api).items() if k not in ("Subject", "TextBody")}
    answer = postmark.post(api, "/email/withTemplate", {**bare, "TemplateAlias": "draft", "TemplateModel": {}})
    assert (answer.status_code, answer.json()["ErrorCode"]) == (422, 1101)
