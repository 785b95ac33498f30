"""How people leave, by each face: the service's own place becomes the link, and a group is a stream. And how a mail
says that nobody is to be watched.
"""

import json

from deliveries.mime.links import LEAVE_PLACE
from deliveries.models import Message, MessageContent
from deliveries.models.sql import execute
from deliveries.read import outbound
from deliveries.record import suppressions
from deliveries.states import Tracking
from tests.steps import test_face_mailgun as mailgun
from tests.steps import test_face_postmark as postmark
from tests.steps import test_face_sendgrid as sendgrid
from tests.steps.api import message_count, template
from tests.steps.test_faces_reading import ask


def newest(api):
    """(stream, whether it can be left, html, text, header fields) of the mail that came last."""
    mail = Message.objects.filter(tenant=api.tenant).order_by("-id").first()
    content = MessageContent.objects.get(id=mail.id)
    return mail.stream, mail.unsubscribe, content.html, content.text, content.headers


def groups(api, rest, body=None, method="post"):
    extra = {"data": json.dumps(body), "content_type": "application/json"} if body else {}
    return ask(api, "sendgrid", f"v3/asm/groups/17/suppressions{rest}", method, **extra)


def test_a_group_of_sendgrids_is_a_stream_that_is_left_alone(api):
    html = '<a href="<%asm_group_unsubscribe_raw_url%>">x</a> <% asm_preferences_raw_url %>'
    body = sendgrid.mail(
        api, asm={"group_id": 17, "groups_to_display": [17]}, content=[{"type": "text/html", "value": html}]
    )
    assert sendgrid.post(api, body).headers["X-Ignored-Fields"] == "asm.groups_to_display"
    assert newest(api)[:3] == ("group-17", True, f'<a href="{LEAVE_PLACE}">x</a> {LEAVE_PLACE}')
    people = {"recipient_emails": ["delivered@simulator.test"]}
    assert groups(api, "", people).status_code == 201
    assert groups(api, "/search", {"recipient_emails": ["Delivered@simulator.test", "b@c.example"]}).json() == [
        "delivered@simulator.test"
    ]
    sendgrid.post(api, body)
    sendgrid.post(api, {**body, "asm": None})
    statuses = [list(m.deliveries.values_list("status", flat=True)) for m in Message.objects.order_by("id")]
    assert statuses == [["queued"], ["suppressed"], ["queued"]]
    # nobody who left a group left everything, and who is taken off the list of all stays out of the group
    assert ask(api, "sendgrid", "v3/suppression/unsubscribes").json() == []
    assert ask(api, "sendgrid", "v3/asm/suppressions/global/delivered@simulator.test", "delete").status_code == 204
    assert groups(api, "", method="get").json() == people["recipient_emails"]
    assert groups(api, "/delivered@simulator.test", method="delete").status_code == 204
    assert groups(api, "", method="get").json() == []
    suppressions.add(api.tenant, "first@c.example", "unsubscribe", "", "test", "group-17")
    execute(
        "INSERT INTO suppression (id, tenant_id, stream, address, reason, detail, rule, category, site, created_at) "
        "SELECT make_uuid7(), %(tenant)s, 'group-17', n || '@d.example', 'unsubscribe', '', '', '', '', now() "
        "FROM generate_series(1, %(many)s::int) n",
        {"tenant": api.tenant.pk, "many": outbound.MOST},
    )
    asked = {"recipient_emails": ["first@c.example", "none@c.example"]}
    assert groups(api, "/search", asked).json() == ["first@c.example"], "behind as many as a list shows"
    assert ask(api, "sendgrid", f"v3/asm/groups/{10**300}/suppressions").status_code == 404


def test_sendgrids_subscription_tracking_adds_its_words_and_two_header_fields(api):
    both = [{"type": "text/plain", "value": "Hi [out]"}, {"type": "text/html", "value": "<body>Hi [out]</body>"}]

    def sent(**tracked):
        tracking = {"subscription_tracking": {"enable": True, **tracked}, "click_tracking": {"enable": True}}
        answer = sendgrid.post(api, sendgrid.mail(api, tracking_settings=tracking, content=both))
        assert answer.headers["X-Ignored-Fields"] == "tracking_settings.click_tracking", answer.content
        return newest(api)[1:4]

    words = {"text": "To leave: <% %>", "html": "<p><% leave & go %></p>"}
    link = f'<a href="{LEAVE_PLACE}">leave & go</a>'
    assert sent(**words) == (True, f"<body>Hi [out]<p>{link}</p></body>", f"Hi [out]\n\nTo leave: {LEAVE_PLACE}\n")
    assert sent(**words, substitution_tag="[out]") == (True, f"<body>Hi {LEAVE_PLACE}</body>", f"Hi {LEAVE_PLACE}")
    open_ended = f"<%{' ' * 50_000}"
    assert sent(text=open_ended)[2] == f"Hi [out]\n\n{open_ended}\n", "what never ends is no place, and soon known"
    assert sent(enable=False) == (False, "<body>Hi [out]</body>", "Hi [out]")


def test_what_would_leave_more_or_less_than_it_says_is_refused(api):
    everything = [{"type": "text/plain", "value": "<%asm_global_unsubscribe_raw_url%>"}]
    for fields, field in (
        ({"content": everything}, "content"),
        ({"asm": {"group_id": "17"}}, "asm.group_id"),
        ({"asm": {"group": 17}}, "asm.group"),
        ({"content": [{"type": "text/plain", "value": "i" * 3_000_000}],
          "tracking_settings": {"subscription_tracking": {"enable": True, "substitution_tag": "i"}}},
         "tracking_settings.subscription_tracking.substitution_tag"),
        ({"tracking_settings": {"subscription_tracking": {"enable": True, "text": 1}}},
         "tracking_settings.subscription_tracking.text"),
    ):  # fmt: skip
        answer = sendgrid.post(api, sendgrid.mail(api, **fields))
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
    for rows in ([{"address": "a@b.example", "tags": ["news"]}], [{"address": "a@b.example", "reason": "x"}]):
        extra = {"data": json.dumps(rows), "content_type": "application/json"}
        answer = ask(api, "mailgun", f"v3/{api.domain}/unsubscribes", "post", **extra)
        assert answer.status_code == 400 and "[0]." in answer.json()["message"]
    assert message_count(api) == 0 and ask(api, "mailgun", f"v3/{api.domain}/unsubscribes").json()["items"] == []


def test_postmarks_place_is_the_link_and_a_broadcast_can_be_left(api):
    text = "Bye: {{{ pm:unsubscribe }}} {{{pm:unsubscribe_url}}}"
    link = f"Bye: {LEAVE_PLACE} {LEAVE_PLACE}"
    html = "<a href='{{{ pm:unsubscribe }}}'>Bye</a> or {{{pm:unsubscribe}}}"
    sent = postmark.mail(api, TextBody=text, HtmlBody=html, MessageStream="broadcast")
    assert postmark.post(api, "/email", sent).status_code == 200
    shown = f"<a href='{LEAVE_PLACE}'>Bye</a> or <a href=\"{LEAVE_PLACE}\">Unsubscribe</a>"
    assert newest(api)[:4] == ("broadcast", True, shown, link)
    template(api, "bye", "mustachio", text=text)
    bare = {k: v for k, v in postmark.mail(api).items() if k not in ("Subject", "TextBody")}
    named = {**bare, "TemplateAlias": "bye", "TemplateModel": {"name": "Ann"}}
    assert postmark.post(api, "/email/withTemplate", named).status_code == 200
    assert newest(api)[1::2] == (True, link)
    bulk = {**bare, "Subject": "x", "TextBody": text, "Messages": [{"To": bare.pop("To"), "TemplateModel": {"a": 1}}]}
    del bulk["To"]
    assert postmark.post(api, "/email/bulk", bulk).status_code == 200
    assert newest(api)[3] == link


def test_mailguns_places_become_the_link_and_its_header_field_ours(api):
    html = '<a href="%unsubscribe_url%">x</a> %tag_unsubscribe_url%'
    fields = {"html": html, "h:List-Unsubscribe": "<%unsubscribe_url%>", "h:X-A": "b"}
    assert mailgun.post(api, mailgun.mail(api, **fields)).status_code == 200
    assert newest(api) == (
        "transactional",
        True,
        f'<a href="{LEAVE_PLACE}">x</a> {LEAVE_PLACE}',
        "Hello",
        [["X-A", "b"]],
    )
    own = {"h:List-Unsubscribe": "<https://shop.example/leave>"}
    assert mailgun.post(api, mailgun.mail(api, **own)).status_code == 200
    assert newest(api)[4] == [["List-Unsubscribe", "<https://shop.example/leave>"]]


def test_a_handlebars_template_shows_the_link_unless_its_data_have_the_name(api):
    template(api, "d-bye", "handlebars", text="{{{unsubscribe}}} {{unsubscribe_preferences}}")
    for data, shown in (({}, LEAVE_PLACE), ({"unsubscribe": "https://shop.example/"}, "https://shop.example/")):
        people = [sendgrid.to("a@simulator.test", dynamic_template_data={"n": 1, **data})]
        assert sendgrid.post(api, sendgrid.mail(api, template_id="d-bye", personalizations=people)).status_code == 202
        assert newest(api)[3] == f"{shown} {LEAVE_PLACE}"


def test_what_a_mail_switches_off_is_not_counted_though_its_domain_counts(api):
    api.tenant.domains.update(open_tracking=True, click_tracking=True)
    html = [{"type": "text/html", "value": "<p>Hi</p>"}]
    off, on = {"enable": False}, {"enable": True}

    def by(face, **fields):
        match face:
            case "postmark":
                answer = postmark.post(api, "/email", postmark.mail(api, HtmlBody="<p>Hi</p>", **fields))
            case "sendgrid":
                answer = sendgrid.post(api, sendgrid.mail(api, content=html, tracking_settings=fields))
            case _:
                answer = mailgun.post(api, mailgun.mail(api, html="<p>Hi</p>", **fields))
        assert answer.status_code < 300, answer.content
        tracking = Message.objects.filter(tenant=api.tenant).order_by("-id").first().tracking
        return tracking, answer.headers.get("X-Ignored-Fields")

    both = Tracking.OPENS | Tracking.CLICKS
    assert by("postmark", TrackOpens=True, TrackLinks="HtmlOnly") == (both, "TrackOpens, TrackLinks")
    assert by("postmark", TrackOpens=False, TrackLinks="None") == (0, None)
    assert by("sendgrid", open_tracking=off, click_tracking=on) == (Tracking.CLICKS, "tracking_settings.click_tracking")
    assert by("sendgrid") == (both, None)
    assert by("mailgun", **{"o:tracking": "no"}) == (0, None)
    assert by("mailgun", **{"o:tracking-clicks": "no", "o:tracking-opens": "yes"}) == (1, "o:tracking-opens")
    whole = f"From: a@{api.domain}\r\nTo: b@simulator.test\r\nX-Mailgun-Track-Opens: no\r\n\r\nHi\r\n"
    sent = mailgun.post(api, {"to": "b@simulator.test", "message": whole}, path="messages.mime")
    assert sent.status_code == 200, sent.content
    assert Message.objects.filter(tenant=api.tenant).order_by("-id").first().tracking == Tracking.CLICKS
    for answer in (
        postmark.post(api, "/email", postmark.mail(api, TrackLinks="Everything")),
        sendgrid.post(api, sendgrid.mail(api, tracking_settings={"open_tracking": {"enable": "no"}})),
        mailgun.post(api, mailgun.mail(api, **{"o:tracking": "maybe"})),
    ):
        assert answer.status_code in (400, 422) and b"rack" in answer.content
