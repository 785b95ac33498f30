"""Templates over the API: drafted, published, sent from, and everything that is wrong with one named."""

from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import AuditEntry, Message, MessageContent
from mailapi import auth
from mailapi.schemas import answers
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)

RECEIPT = {
    "name": "Receipt",
    "alias": "receipt",
    "subject": "Order {{{ORDER}}}",
    "html": "<style>p{color:red}</style><p>Hi {{{NAME}}}</p>{% if VIP %}<b>VIP</b>{% endif %}"
    "<ul>{% for item in ITEMS %}<li>{{ item.name }}</li>{% endfor %}</ul>",
    "variables": [
        {"key": "NAME", "type": "string", "fallback_value": "there"},
        {"key": "ORDER", "type": "number"},
        {"key": "VIP", "type": "boolean", "fallback_value": False},
        {"key": "ITEMS", "type": "list", "fallback_value": []},
    ],
}


@pytest.fixture
def client():
    auth.forget()
    return Client(make_tenant())


def made(client, publish=True, **fields):
    body = {**RECEIPT, "from": f"Shop <orders@{client.domain}>", **fields}
    answer = client.post("/templates", body)
    assert answer.status_code == 201, answer.content
    answers.TemplateChanged.model_validate(answer.json())
    if publish:
        assert client.post(f"/templates/{answer.json()['id']}/publish", {}).status_code == 200
    return answer.json()["id"]


def use(client, ref, variables=None, **fields):
    body = {"to": "delivered@simulator.test", "template": {"id": ref, "variables": variables or {}}, **fields}
    return client.post("/emails", body)


def faults(answer, status=422):
    assert answer.status_code == status, answer.content
    return {(f["field"], f["code"]) for f in answer.json()["errors"]}


def test_a_template_is_drafted_published_sent_from_and_its_content_frozen(client):
    ident = made(client)
    answer = use(client, "receipt", {"ORDER": 17, "NAME": "<Ada>", "VIP": True, "ITEMS": [{"name": "Tea & Co"}]})
    assert answer.status_code == 200, answer.content
    message, content = Message.objects.get(), MessageContent.objects.get()
    assert message.subject == "Order 17" and message.from_header == f"Shop <orders@{client.domain}>"
    assert '<p style="color: red;">Hi &lt;Ada&gt;</p><b>VIP</b><ul><li>Tea &amp; Co</li></ul>' in content.html
    assert content.text.splitlines()[0] == "Hi <Ada>" and "  * Tea & Co" in content.text
    assert client.patch(f"/templates/{ident}", {"html": "<p>new</p>", "variables": []}).status_code == 200
    assert use(client, ident, {"ORDER": 18}).status_code == 200, "the published version is sent from until the next one"
    assert client.post(f"/templates/{ident}/publish", {}).status_code == 422  # ORDER is in the subject
    assert client.patch("/templates/receipt", {"subject": "New"}).status_code == 200
    assert client.post("/templates/receipt/publish", {}).status_code == 200
    assert use(client, ident).status_code == 200
    assert MessageContent.objects.order_by("-id").first().html == "<p>new</p>"
    assert client.delete(f"/templates/{ident}").json() == {"object": "template", "id": ident, "deleted": True}
    assert faults(use(client, ident)) == {("template.id", "unknown_template")}
    assert MessageContent.objects.filter(html__contains="VIP").exists()
    told = AuditEntry.objects.filter(tenant=client.tenant).values_list("action", flat=True)
    assert {"template.created", "template.changed", "template.published", "template.removed"} <= set(told)


def test_a_mail_may_bring_from_subject_and_reply_to_itself(client):
    made(client, reply_to="help@example.com")
    use(client, "receipt", {"ORDER": 1})
    use(client, "receipt", {"ORDER": 1}, subject="Mine", **{"from": f"me@{client.domain}"}, reply_to="me@example.com")
    first, second = Message.objects.order_by("id")
    assert first.reply_to == ["help@example.com"] and second.reply_to == ["me@example.com"]
    assert (second.subject, second.from_header) == ("Mine", f"me@{client.domain}")


def test_a_template_is_shown_and_listed(client):
    ident = made(client, publish=False)
    shown = client.get(f"/templates/{ident}").json()
    answers.Template.model_validate(shown)
    assert shown == client.get("/templates/receipt").json()
    assert shown["status"] == "draft" and shown["has_unpublished_versions"] and shown["published_at"] is None
    assert shown["variables"][0] == {"key": "NAME", "type": "string", "fallback_value": "there"}
    client.post(f"/templates/{ident}/publish", {})
    shown = client.get(f"/templates/{ident}").json()
    assert shown["status"] == "published" and not shown["has_unpublished_versions"] and shown["current_version_id"]
    assert shown["html"] == RECEIPT["html"], "the draft stays as it was written"
    copy = client.post(f"/templates/{ident}/duplicate", {})
    assert copy.status_code == 201
    page = client.get("/templates?limit=1").json()
    answers.TemplateList.model_validate(page)
    assert [t["id"] for t in page["data"]] == [copy.json()["id"]] and page["has_more"]
    assert page["data"][0]["alias"] is None and page["data"][0]["status"] == "draft"


def test_null_takes_back_what_was_set_and_what_is_not_there_stays(client):
    ident = made(client, reply_to="help@simulator.test", text="Hi {{{NAME}}}")
    before = client.get(f"/templates/{ident}").json()
    nothing = dict.fromkeys(["alias", "from", "subject", "reply_to", "text"])
    assert client.patch(f"/templates/{ident}", {**nothing, "name": None, "html": None}).status_code == 200
    after = client.get(f"/templates/{ident}").json()
    assert [before[name] for name in nothing if not before[name]] == []
    assert [after[name] for name in nothing if after[name]] == []
    assert (after["name"], after["html"]) == (before["name"], before["html"])
    assert client.get("/templates/receipt").status_code == 404
    mail = {"from": f"a@{client.domain}", "to": "delivered@simulator.test", "subject": "Own"}
    assert client.post(f"/templates/{ident}/publish", {}).status_code == 200
    sent = client.post("/emails", {**mail, "template": {"id": ident, "variables": {"ORDER": 1}}})
    assert sent.status_code == 200, sent.content
    assert "Hi there" in MessageContent.objects.get(id=sent.json()["id"]).text, "made of the html again"


def test_a_preview_shows_the_draft_and_what_it_lacks(client):
    made(client, publish=False)
    shown = client.post("/templates/receipt/preview", {"variables": {"NAME": "Ada"}}).json()
    answers.TemplatePreview.model_validate(shown)
    assert shown["subject"] == "Order 1" and "Hi Ada" in shown["html"] and shown["missing_variables"] == ["ORDER"]
    wrong = client.post("/templates/receipt/preview", {"variables": {"NAME": 5, "X": 1}})
    assert faults(wrong) == {("variables.NAME", "wrong_type"), ("variables.X", "unknown_variable")}


def test_every_wrong_variable_is_named_and_nothing_stored(client):
    made(client)
    answer = use(client, "receipt", {"NAME": 5, "ITEM": []}, to="nobody", tags=[{"name": "ä"}])
    assert faults(answer) == {
        ("template.variables.NAME", "wrong_type"),
        ("template.variables.ITEM", "unknown_variable"),
        ("template.variables.ORDER", "missing_variable"),
        ("to[0]", "invalid_address"),
        ("tags[0].name", "invalid_tag"),
    }
    assert "did you mean `ITEMS`" in answer.content.decode()
    assert Message.objects.count() == 0


@pytest.mark.parametrize("value", ["a\r\nBcc: evil@example.com", "a\nb"])
def test_a_value_brings_no_line_into_the_subject(client, value):
    made(client, subject="Hi {{{NAME}}}")
    assert use(client, "receipt", {"ORDER": 1, "NAME": value}).status_code == 422
    assert Message.objects.count() == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"template": {}}, {("template.id", "missing_required_field")}),
        ({"template": "receipt"}, {("template", "wrong_type")}),
        ({"template": {"id": "nothing"}}, {("template.id", "unknown_template")}),
        ({"template": {"id": "a\x00b"}}, {("template.id", "control_character")}),
        ({"template": {"id": str(uuid4())}}, {("template.id", "unknown_template")}),
        ({"template": {"id": "receipt", "variable": {}}}, {("template.variable", "unknown_field")}),
        ({"template": {"id": "receipt", "variables": []}}, {("template.variables", "wrong_type")}),
        ({"html": "x", "text": "y"}, {("html", "not_with_template"), ("text", "not_with_template")}),
    ],
)
def test_a_mail_that_uses_a_template_wrongly_is_refused(client, fields, expected):
    made(client)
    body = {"to": "delivered@simulator.test", "template": {"id": "receipt", "variables": {"ORDER": 1}}, **fields}
    assert faults(client.post("/emails", body)) == expected
    assert Message.objects.count() == 0


def test_a_draft_is_not_sent_from(client):
    made(client, publish=False)
    assert faults(use(client, "receipt", {"ORDER": 1})) == {("template.id", "not_published")}


def test_a_batch_names_the_mail_and_sends_the_good_ones_when_permissive(client):
    made(client)
    good = {"to": "delivered@simulator.test", "template": {"id": "receipt", "variables": {"ORDER": 1}}}
    bad = {"to": "delivered@simulator.test", "template": {"id": "receipt"}}
    answer = client.post("/emails/batch", [good, bad, client.mail()])
    assert [(f["index"], f["field"]) for f in answer.json()["errors"]] == [(1, "template.variables.ORDER")]
    assert Message.objects.count() == 0
    answer = client.post("/emails/batch", [good, bad, client.mail()], HTTP_X_BATCH_VALIDATION="permissive")
    assert answer.status_code == 200 and len(answer.json()["data"]) == 2 and answer.json()["errors"][0]["index"] == 1


def test_mails_with_a_template_cost_one_query_more_and_others_none(client):
    made(client)
    use(client, "receipt", {"ORDER": 1})
    client.send()
    with CaptureQueriesContext(connection) as plain:
        client.send()
    with CaptureQueriesContext(connection) as templated:
        client.post(
            "/emails/batch",
            [{"to": "a@x.example", "template": {"id": "receipt", "variables": {"ORDER": n}}} for n in range(9)],
        )
    assert len(templated) == len(plain) + 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"html": "{% if X %}"}, {("html", "invalid_template")}),
        ({"text": "{{ a ~ b }}"}, {("text", "invalid_template")}),
        ({"subject": "a\r\nb"}, {("subject", "invalid_subject")}),
        ({"alias": "ä"}, {("alias", "invalid_alias")}),
        ({"alias": str(uuid4())}, {("alias", "invalid_alias")}),
        ({"name": " "}, {("name", "invalid_name")}),
        ({"name": None, "html": None}, {("name", "missing_required_field"), ("html", "missing_required_field")}),
        ({"from": "x"}, {("from", "invalid_address")}),
        ({"reply_to": ["x"]}, {("reply_to[0]", "invalid_address")}),
        ({"react": "x"}, {("react", "not_available")}),
        ({"language": "jinja"}, {("language", "invalid_choice")}),
        ({"variables": [{"key": "EMAIL", "type": "string"}]}, {("variables[0].key", "invalid_key")}),
        ({"variables": [{"key": "A B", "type": "string"}]}, {("variables[0].key", "invalid_key")}),
        ({"variables": [{"key": "A", "type": "string"}] * 2}, {("variables[1].key", "invalid_key")}),
        ({"variables": [{"key": "A", "type": "number", "fallback_value": "1"}]},
         {("variables[0].fallback_value", "wrong_type")}),
        ({"variables": [{"key": f"A{n}", "type": "string"} for n in range(51)]}, {("variables", "too_many")}),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_one_is_refused(client, fields, expected):
    assert faults(client.post("/templates", {**RECEIPT, **fields})) == expected
    assert client.get("/templates").json()["data"] == []


def test_what_is_not_declared_cannot_be_published(client):
    made(client, publish=False, html="{{{NAEM}}} {{{EMAIL}}}")
    answer = client.post("/templates/receipt/publish", {})
    assert faults(answer) == {("variables", "undeclared_variable")}
    assert "`NAEM`" in answer.content.decode() and "no contacts" in answer.content.decode()


def test_an_alias_names_one_template_of_a_tenant(client):
    made(client)
    assert faults(client.post("/templates", RECEIPT)) == {("alias", "alias_taken")}
    other = made(client, alias="other")
    assert faults(client.patch(f"/templates/{other}", {"alias": "receipt"})) == {("alias", "alias_taken")}
    assert made(Client(make_tenant()))


def test_another_tenants_template_does_not_exist(client):
    ident, other = made(client), Client(make_tenant())
    for ref in (ident, "receipt"):
        assert other.get(f"/templates/{ref}").status_code == 404
        assert other.patch(f"/templates/{ref}", {"name": "x"}).status_code == 404
        assert other.delete(f"/templates/{ref}").status_code == 404
        for verb in ("publish", "duplicate", "preview"):
            assert other.post(f"/templates/{ref}/{verb}", {}).status_code == 404
        assert faults(use(other, ref)) == {("template.id", "unknown_template")}
    assert client.get(f"/templates/{ident}").json()["name"] == "Receipt"


def test_a_template_in_another_language_takes_any_values(client):
    html = "<p>{{name}}</p><table>{{#each items}}<tr><td>{{this}}</td></tr>{{/each}}</table>"
    made(client, language="handlebars", html=html, subject="Hi {{name}}", variables=[])
    assert use(client, "receipt", {"name": "<A>", "items": [1, 2]}).status_code == 200
    content = MessageContent.objects.get()
    assert content.html == "<p>&lt;A&gt;</p><table><tr><td>1</td></tr><tr><td>2</td></tr></table>"
    assert content.text.split() == ["<A>", "1", "2"]


def test_ids_that_are_nonsense_are_not_found(client):
    for ref in ("nothing", "%00", "a" * 300, "%F0%9F%8E%89"):
        assert client.get(f"/templates/{ref}").status_code == 404
        assert client.delete(f"/templates/{ref}").status_code == 404


def test_a_sending_key_sends_from_templates_and_does_not_change_them(client):
    from deliveries import keys

    made(client)
    sending = Client(client.tenant, keys.create(client.tenant, "s", "sending_access")[1], client.domain)
    assert use(sending, "receipt", {"ORDER": 1}).status_code == 200
    assert sending.get("/templates").status_code == 401


def test_a_template_may_show_the_way_out_of_the_stream(client):
    place = "{{{UNSUBSCRIBE_URL}}}"
    ident = made(client, html=f'<p>{{{{{{NAME}}}}}} <a href="{place}">Leave</a></p>', text=f"Leave: {place}")
    shown = client.post(f"/templates/{ident}/preview", {"variables": {"ORDER": 1}}).json()
    assert f'href="{place}"' in shown["html"] and shown["missing_variables"] == []
    sent = use(client, ident, {"ORDER": 1})
    assert sent.status_code == 200, sent.content
    content = MessageContent.objects.get(id=sent.json()["id"])
    assert f'href="{place}"' in content.html and content.text == f"Leave: {place}"
    assert Message.objects.get(id=content.id).unsubscribe
