"""Templates in the panel: a draft is made, edited, looked at, published and tested; others see and change nothing."""

from __future__ import annotations

import pytest
from django.urls import reverse

from deliveries import templating
from deliveries.models import AuditEntry, Delivery, Message, MessageContent, Template
from deliveries.states import REDACT_WORDS
from tests.fakes import mail
from tests.fakes.person import login, sending

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop():
    return sending("shop.example")


@pytest.fixture
def dora(shop):
    return login(mail.person("dora", shop, role="developer"))


DRAFT = {
    "verb": "save", "name": "Order", "alias": "order", "sender": "Shop <hello@shop.example>", "language": "native",
    "subject": "Thank you, {{{NAME}}}", "html": "<h1>Thank you, {{{NAME}}}</h1>", "text": "",
    "variables": '[{"key": "NAME", "type": "string"}]',
}  # fmt: skip


def one(row, page="change") -> str:
    return reverse(f"admin:deliveries_template_{page}", args=[row.pk])


@pytest.fixture
def draft(shop, dora):
    dora.post(reverse("admin:deliveries_template_add"), {"tenant": str(shop.pk), "name": "First words"})
    row = Template.objects.get()
    answer = dora.post(one(row), DRAFT, follow=True)
    assert "Saved. Mails are sent from it once it is published." in answer.content.decode()
    return Template.objects.get()


def test_a_draft_is_made_saved_and_published(shop, dora, draft):
    assert (draft.name, draft.alias, draft.text, draft.published) == ("Order", "order", None, None)
    assert "draft" in dora.get(reverse("admin:deliveries_template_changelist")).content.decode()
    dora.post(one(draft), {"verb": "publish"})
    found = templating.published(shop.id, ["order"])["order"]
    assert found is not None and found.render({"NAME": "Anna"}).subject == "Thank you, Anna"
    actions = set(AuditEntry.objects.filter(actor="dora").values_list("action", flat=True))
    assert actions >= {"template.created", "template.published"}


def test_what_its_mails_do_not_keep_is_chosen_and_holds_for_a_test_too(shop, dora, draft):
    said = dora.post(one(draft), {**DRAFT, "redact": "sometimes"}).content.decode()
    assert "content or everything" in said and Template.objects.get().redact == ""
    dora.post(one(draft), {**DRAFT, "redact": "everything"})
    assert '<option value="everything" selected>' in dora.get(one(draft)).content.decode()
    dora.post(one(draft), {"verb": "publish"})
    found = templating.published(shop.id, ["order"])["order"]
    assert found is not None and found.redact == REDACT_WORDS["everything"]
    dora.post(one(draft), {"verb": "test", "address": "anna@example.net", "data": '{"NAME": "Anna"}'})
    assert Message.objects.get().redact == REDACT_WORDS["everything"]
    viewer = login(mail.person("vera", shop))
    assert "<fieldset disabled>" in viewer.get(one(draft)).content.decode()
    assert viewer.post(one(draft), {**DRAFT, "redact": ""}).status_code == 403
    assert Template.objects.get().redact == "everything"


def test_sample_data_are_shown_in_a_frame_where_they_can_do_nothing(dora, draft):
    answer = dora.post(one(draft, "preview"), {"data": '{"NAME": "<script>alert(1)</script>"}'})
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy
    assert "Thank you, &lt;script&gt;" in answer.content.decode()
    for nonsense in ("[1]", "{", "nonsense", '{"NAME": 7}', "[" * 100_000):
        answer = dora.post(one(draft, "preview"), {"data": nonsense})
        assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain"), nonsense


def test_a_test_is_sent_with_the_sample_data(dora, draft):
    asked = {"verb": "test", "address": "anna@example.net", "data": '{"NAME": "Anna"}'}
    answer = dora.post(one(draft), asked)
    made = Message.objects.get()
    assert answer.url == reverse("admin:deliveries_message_change", args=[made.pk])
    assert made.subject == "Thank you, Anna" and made.from_header == "Shop <hello@shop.example>"
    assert MessageContent.objects.get(id=made.id).html == "<h1>Thank you, Anna</h1>"
    assert Delivery.objects.get().recipient == "anna@example.net"
    assert AuditEntry.objects.filter(action="template.tested").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": " "}, "needs a name"),
        ({"language": "php"}, "No such language"),
        ({"sender": "nonsense"}, "has no @"),
        ({"variables": "{"}, "Expecting property name"),
        ({"variables": '{"a": 1}'}, "The variables are a list"),
        ({"variables": '[{"key": "a b", "type": "string"}]'}, "a b"),
        ({"variables": '[{"key": "A", "type": "date"}]'}, "give a type"),
        ({"variables": '[{"key": "A", "type": ["string"]}]'}, "give a type"),
        ({"variables": '[{"key": "A", "type": "string", "fallback_value": [1]}]'}, "is no string"),
        ({"variables": '[{"key": "A", "type": "string", "fallback_value": "\\u0000"}]'}, "NUL"),
        ({"variables": '[{"key": "A", "type": "string", "fallback_value": "\\ud800"}]'}, "or is too deep"),
        ({"variables": '[{"key": "A", "type": "number", "fallback_value": 1e999}]'}, "or is too deep"),
        ({"variables": "[" * 100_000}, "or is too deep"),
        ({"variables": "[" + '{"key": "A", "type": "string"},' * 50 + '{"key": "A", "type": "string"}]'}, "At most 50"),
        ({"html": "a\0b"}, "NUL"),
        ({"verb": "test", "address": "nonsense", "data": "{}"}, "has no @"),
        ({"verb": "test", "address": "a@b.example", "data": "[]"}, "JSON object"),
        ({"verb": "test", "address": "a@b.example", "data": '{"NAME": "\\u0000"}'}, "NUL"),
        ({"verb": "test", "address": "a@b.example", "from": "x@elsewhere.example"}, "not verified"),
        ({"verb": "x"}, "No such action"),
    ],
)
def test_what_cannot_be_is_said_at_the_form_and_what_was_typed_stays(dora, draft, changed, said):
    asked = {**DRAFT, "html": "</textarea><script>alert(1)</script>", **changed}
    page = dora.post(one(draft), asked, follow=True).content.decode()
    assert said in page and "<script>alert" not in page
    if asked["verb"] == "save" and "\0" not in asked["html"]:
        assert "&lt;/textarea&gt;&lt;script&gt;" in page
    assert Template.objects.get().html == DRAFT["html"] and not Message.objects.exists()


def test_a_viewer_reads_and_another_tenant_knows_nothing_of_it(shop, draft):
    viewer = login(mail.person("vera", shop))
    stranger = login(mail.person("eve", mail.tenant("Other"), role="owner"))
    page = viewer.get(one(draft)).content.decode()
    assert "Thank you, {{{NAME}}}" in page and 'value="save"' not in page
    assert viewer.post(one(draft), DRAFT).status_code == 403
    assert viewer.get(reverse("admin:deliveries_template_add")).status_code == 403
    assert stranger.get(one(draft)).status_code == 302
    assert stranger.post(one(draft), {"verb": "remove"}).status_code == 302
    assert stranger.post(one(draft, "preview"), {}).status_code == 404
    assert Template.objects.exists()


def test_a_template_is_removed(dora, draft):
    assert dora.post(one(draft), {"verb": "remove"}).url == reverse("admin:deliveries_template_changelist")
    assert not Template.objects.exists()
