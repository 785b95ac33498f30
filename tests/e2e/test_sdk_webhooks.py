"""Webhooks judged by those who read them: the vendors' verifiers and django-anymail's tracking views."""

import json
import warnings

import pytest
from anymail.exceptions import AnymailWebhookValidationFailure
from anymail.signals import tracking
from anymail.webhooks.mailgun import MailgunTrackingWebhookView
from anymail.webhooks.postmark import PostmarkTrackingWebhookView
from anymail.webhooks.resend import ResendTrackingWebhookView
from anymail.webhooks.sendgrid import SendGridTrackingWebhookView
from django.test import RequestFactory
from django.utils import timezone
from sendgrid.helpers.eventwebhook import EventWebhook

from deliveries import endpoints, notify
from deliveries.models import Event
from deliveries.notify import ask
from deliveries.states import FORMAT_EVENTS, EventType
from tests.fakes.house import build
from tests.fakes.node import node
from tests.fakes.receiver import receiver

pytestmark = pytest.mark.django_db(transaction=True)

#: event of ours and its data → django-anymail's word for it, by format
STORIES = [
    (EventType.DELIVERED, {"reply": "250 ok"}, "delivered", "delivered", "delivered"),
    (EventType.DELIVERY_DELAYED, {"reply": "451 later", "attempt": 1}, "deferred", "deferred", "deferred"),
    (EventType.BOUNCED, {"category": "bad_mailbox", "reply": "550 5.1.1 no"}, "bounced", "bounced", "bounced"),
    (EventType.BOUNCED, {"category": "ip_reputation", "reply": "554 list"}, "rejected", "bounced", "bounced"),
    (EventType.EXPIRED, {"reply": "451 later"}, "bounced", "bounced", "bounced"),
    (EventType.SUPPRESSED, {"suppressed": "bounce"}, "rejected", "rejected", "bounced"),
    (EventType.COMPLAINED, {}, "complained", "complained", "complained"),
    (EventType.OPENED, {"user_agent": "Mail/1"}, "opened", "opened", "opened"),
    (EventType.CLICKED, {"link": "https://a.example/", "user_agent": "Mail/1"}, "clicked", "clicked", "clicked"),
    (EventType.UNSUBSCRIBED, {}, "unsubscribed", "unsubscribed", "unsubscribed"),
]


@pytest.fixture(autouse=True)
def _loopback(settings):
    settings.WEBHOOK_ALLOW_PRIVATE = True


def _posts(house, form, stories, userinfo=""):
    """What an endpoint of that format hears of one mail, and what it verifies with."""
    with receiver() as web:
        endpoint, secret = endpoints.create(house.tenant.id, web.url().replace("//", f"//{userinfo}"), [], "test", form)
        (delivery,) = house.send("ann@one.test", tags=(("order", ""), ("kind", "receipt")), metadata=(("n", "17"),))
        notify.run()
        web.came.clear()
        for place, (kind, data, *_) in enumerate(stories, 2):
            event = Event.objects.create(
                tenant_id=house.tenant.id, type=kind, message=delivery.message, delivery_id=delivery.id,
                place=place, recipient="ann@one.test", data=data, created_at=timezone.now(),
            )  # fmt: skip
            ask.replay_event(house.tenant.id, endpoint.id, event.id, "test")
            notify.run()
        return delivery, secret, list(web.came)


def _heard(view, came):
    """The events that django-anymail's view makes of a POST."""
    heard = []

    def hear(sender, event, **kwargs):
        heard.append(event)

    tracking.connect(hear)
    try:
        headers = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in came.headers.items()}
        request = RequestFactory().post("/", came.body, content_type="application/json", **headers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert view(request).status_code == 200
    finally:
        tracking.disconnect(hear)
    return heard


def _view(form, secret):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "postmark": lambda: PostmarkTrackingWebhookView.as_view(),
            "sendgrid": lambda: SendGridTrackingWebhookView.as_view(tracking_webhook_verification_key=secret),
            "mailgun": lambda: MailgunTrackingWebhookView.as_view(webhook_signing_key=secret),
        }[form]()


@pytest.mark.parametrize("form", ["postmark", "sendgrid", "mailgun"])
def test_anymails_views_read_every_event_of_a_format(form):
    house = build()
    delivery, secret, came = _posts(house, form, STORIES)
    assert len(came) == len(STORIES)
    view = _view(form, secret)
    for post, (kind, data, *words) in zip(came, STORIES, strict=True):
        (event,) = _heard(view, post)
        assert event.event_type == words[["postmark", "sendgrid", "mailgun"].index(form)], (kind, data, event.esp_event)
        assert (event.recipient, event.metadata) == ("ann@one.test", {"n": "17"})
        assert "order" in event.tags
        if form == "postmark":
            assert event.message_id == str(delivery.message_id)
        else:
            assert event.message_id == f"<{delivery.message.message_id}>"
        if kind == EventType.CLICKED:
            assert (event.click_url, event.user_agent) == ("https://a.example/", "Mail/1")
        if kind in (EventType.BOUNCED, EventType.DELIVERED):
            assert event.mta_response == data["reply"]


@pytest.mark.parametrize("form", ["sendgrid", "mailgun"])
def test_an_altered_body_or_another_key_is_refused_by_anymails_views(form):
    house = build()
    _, secret, (came,) = _posts(house, form, STORIES[:1])
    _, other, _ = _posts(build(), form, [])
    with pytest.raises(AnymailWebhookValidationFailure):
        _heard(_view(form, other), came)
    told = json.loads(came.body)
    if form == "mailgun":
        told["signature"]["timestamp"] = str(int(told["signature"]["timestamp"]) + 1)
    altered = type(came)(**{**came.__dict__, "body": json.dumps(told, indent=1).encode()})
    with pytest.raises(AnymailWebhookValidationFailure):
        _heard(_view(form, secret), altered)


def test_sendgrids_own_verifier_accepts_ours():
    _, secret, (came,) = _posts(build(), "sendgrid", STORIES[:1])
    signature, timestamp = (came.headers[f"x-twilio-email-event-webhook-{name}"] for name in ("signature", "timestamp"))
    judge = EventWebhook(secret)
    assert judge.verify_signature(came.body.decode(), signature, timestamp) is True
    assert judge.verify_signature(came.body.decode() + " ", signature, timestamp) is False


def test_the_verifiers_for_node_accept_ours_and_refuse_altered_ones():
    _, native, (one,) = _posts(build(), "native", STORIES[:1])
    _, public, (two,) = _posts(build(), "sendgrid", STORIES[:1])
    got = node(
        "verify.mjs",
        native={"secret": native, "body": one.body.decode(), "headers": dict(one.headers)},
        sendgrid={"secret": public, "body": two.body.decode(), "headers": dict(two.headers)},
    )
    assert got["svix"] == got["standard"] == json.loads(one.body) and got["resend"] == json.loads(one.body)
    assert got["sendgrid"] is True and got["altered"] == [True, True, True, True]


def test_anymails_view_for_resend_reads_the_native_format():
    delivery, secret, came = _posts(build(), "native", STORIES[:3])
    view = ResendTrackingWebhookView.as_view(signing_secret=secret)
    events = [_heard(view, post)[0] for post in came]
    assert [e.event_type for e in events] == ["delivered", "deferred", "bounced"]
    assert {e.message_id for e in events} == {str(delivery.message_id)}


def test_an_endpoint_of_a_format_hears_what_it_has_words_for_and_its_secret_turns():
    house = build()
    endpoint, secret = endpoints.create(house.tenant.id, "https://app.example.com/", [], "test", "sendgrid")
    assert set(endpoint.events) == FORMAT_EVENTS["sendgrid"]
    turned = endpoints.rotate(house.tenant.id, endpoint.id, "test")
    endpoint.refresh_from_db()
    assert turned == endpoint.verifier != secret


def test_anymails_postmark_view_asks_for_the_password_that_the_endpoint_was_given(settings):
    _, _, (came,) = _posts(build(), "postmark", STORIES[:1], "anymail:s3cret@")
    settings.ANYMAIL = {"WEBHOOK_SECRET": "anymail:s3cret"}
    assert _heard(PostmarkTrackingWebhookView.as_view(), came)[0].event_type == "delivered"
    settings.ANYMAIL = {"WEBHOOK_SECRET": "anymail:other"}
    with pytest.raises(AnymailWebhookValidationFailure):
        _heard(PostmarkTrackingWebhookView.as_view(), came)
