"""Every id of one tenant at every path of the faces with another tenant's key: that face's not-found, and no more.

The paths are read off the faces' URLs: a new one with an id needs a sample here. And whatever is posted to a face is
answered by it: no 5xx comes from input.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.test import Client as DjangoClient
from django.urls import URLPattern
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deliveries.models import Event, Message, Suppression
from deliveries.notify import words
from deliveries.record import suppressions
from mailapi.compat.face import NothingHere
from mailapi.compat.mailgun import urls as mailgun
from mailapi.compat.postmark import urls as postmark
from mailapi.compat.sendgrid import urls as sendgrid
from tests.steps.api import Client, make_tenant
from tests.steps.test_faces_reading import headers

FACES = {"postmark": postmark, "sendgrid": sendgrid, "mailgun": mailgun}
#: parameters that name a list which each account has, and the one that is asked
LISTS = {"stream": "outbound", "kind": "bounces", "group": "17"}
BODIES = {("mailgun", "POST"): "address=x%40one.test"}
#: what stands for not-found where the face has another answer than 404
NOT_THERE = {
    ("sendgrid", "GET", "v3/suppression/{kind}/{email}"): (200, []),
    ("sendgrid", "GET", "v3/asm/suppressions/global/{email}"): (200, {}),
    ("sendgrid", "DELETE", "v3/asm/suppressions/global/{email}"): (204, None),
    ("sendgrid", "DELETE", "v3/asm/groups/{group}/suppressions/{email}"): (204, None),
}
GONE = "secret.person@simulator.test"


def operations() -> Iterator[tuple[str, str, str]]:
    """(face, method, path with {parameters}) of every view."""
    for face, urls in FACES.items():
        for found in urls.urlpatterns:
            assert isinstance(found, URLPattern), "a nested include is not walked here"
            view: Any = found.callback.view_class  # type: ignore[union-attr]
            if issubclass(view, NothingHere):
                continue
            path = re.sub(r"<\w+:(\w+)>", r"{\1}", str(found.pattern))
            path = re.sub(r"\(\?P<(\w+)>\[\^/\]\+\)", r"{\1}", path).removeprefix("^").removesuffix("/?$")
            path = re.sub(r"\[([a-z])[A-Z]\]", r"\1", path)
            for method in ("get", "post", "put", "patch", "delete"):
                if hasattr(view, method):
                    yield face, method.upper(), path


def names(path: str) -> list[str]:
    return [name for name in re.findall(r"\{(\w+)\}", path) if name not in LISTS]


def ask(client: Client, face: str, method: str, path: str) -> Any:
    kind = "application/x-www-form-urlencoded" if face == "mailgun" else "application/json"
    body = BODIES.get((face, method), "")
    return client.http.generic(method, f"/compat/{face}/{path}", body, kind, **headers(client, face))


@pytest.fixture
def victim(api: Client, settings: Any) -> Client:
    settings.RATE_LIMIT = 0
    sent = api.send(to=GONE, subject="Secret subject").json()["id"]
    stored = Message.objects.get(id=sent)
    stored.deliveries.update(status="bounced", category="bad_mailbox", reply="550 secret reply")
    for reason in ("bounce", "complaint", "unsubscribe"):
        stream = {"bounce": "*", "complaint": "outbound", "unsubscribe": "news"}[reason]
        suppressions.add(api.tenant, GONE, reason, "secret detail", "test", stream)
    bulk = {
        "From": f"orders@{api.domain}", "Subject": "Secret subject", "TextBody": "x", "MessageStream": "broadcast",
        "Messages": [{"To": "delivered@simulator.test"}],
    }  # fmt: skip
    made = api.http.post(
        "/compat/postmark/email/bulk", json.dumps(bulk), "application/json", **headers(api, "postmark")
    )
    assert made.status_code == 200, made.content
    (delivery,) = stored.deliveries.all()
    newest = Event.objects.filter(tenant_id=api.tenant.id).order_by("-id").first()
    api.samples = {  # type: ignore[attr-defined]
        "message_id": sent,
        "bounce_id": str(words.number(delivery.id)),
        "bulk_id": made.json()["ID"],
        "domain": api.domain,
        "address": GONE,
        "email": GONE,
        "page": f"d{newest.id.hex}" if newest else "d",
    }
    return api


def filled(path: str, samples: dict[str, str]) -> str:
    for name in names(path):
        assert name in samples, f"{path}: give a sample for {{{name}}} in tests/steps/test_faces_apart.py"
    return re.sub(r"\{(\w+)\}", lambda found: quote((LISTS | samples)[found[1]], safe=""), path)


def seen(client: Client) -> dict[tuple[str, str], bytes]:
    """What a tenant finds at all that can be read."""
    samples = client.samples  # type: ignore[attr-defined]
    return {
        (face, path): ask(client, face, method, filled(path, samples)).content
        for face, method, path in operations()
        if method == "GET"
    }


@pytest.mark.django_db(transaction=True)
def test_an_id_of_another_tenant_is_not_there_by_any_face(victim: Client) -> None:
    before, other, asked = seen(victim), Client(make_tenant()), 0
    kept = Suppression.objects.filter(tenant=victim.tenant).count()
    theirs: dict[str, str] = victim.samples  # type: ignore[attr-defined]
    for face, method, path in operations():
        if not names(path):
            continue
        # the other's ids, and where the path names a domain also those below the own one
        tries = [theirs] + ([theirs | {"domain": other.domain}] if len(names(path)) > 1 else [])
        for samples in tries:
            answer = ask(other, face, method, filled(path, samples))
            where = f"{face} {method} {path} answered {answer.status_code}: {answer.content[:300]!r}"
            own_list = samples["domain"] == other.domain and "page" in names(path)
            status, body = NOT_THERE.get((face, method, path), (200 if own_list else 404, None))
            assert answer.status_code == status, where
            assert body is None or answer.json() == body, where
            told = answer.content.decode()
            hidden = {v for k, v in theirs.items() if k not in names(path)} | {"ecret subject", "ecret reply", "detail"}
            assert not [word for word in hidden if word in told], where
            asked += 1
    assert asked > 20 and seen(victim) == before, "and nothing was changed"
    assert Suppression.objects.filter(tenant=victim.tenant).count() == kept


@pytest.mark.django_db(transaction=True)
def test_a_list_of_a_face_tells_nothing_of_another_tenant(victim: Client) -> None:
    other = Client(make_tenant())
    before = seen(victim)
    for face, method, path in operations():
        own = {"domain": other.domain}
        if method in ("GET", "DELETE") and set(names(path)) <= set(own):
            answer = ask(other, face, method, filled(path, own))
            assert answer.status_code < 500 and b"ecret" not in answer.content, (face, method, path, answer.content)
            assert not [w for w in victim.samples.values() if w.encode() in answer.content]  # type: ignore[attr-defined]
    assert seen(victim) == before


def test_each_path_of_the_faces_is_walked() -> None:
    found = set(operations())
    assert len(found) > 30 and ("postmark", "PUT", "bounces/{bounce_id}/activate") in found
    assert ("mailgun", "DELETE", "v3/{domain}/bounces/{address}") in found
    assert NOT_THERE.keys() <= found, "an exception for a path that is not there"


# --- what is posted --------------------------------------------------------------------------------------------

DOMAIN = "fuzz.example.com"
PERSON = "delivered@simulator.test"
POSTMARK = {
    "From": f"Shop <orders@{DOMAIN}>", "To": PERSON, "Cc": PERSON, "Bcc": PERSON, "Subject": "x", "TextBody": "y",
    "HtmlBody": "<p>y</p>", "ReplyTo": PERSON, "Tag": "t", "Metadata": {"a": "b"}, "MessageStream": "outbound",
    "Headers": [{"Name": "X-A", "Value": "b"}], "TrackOpens": False, "TrackLinks": "None",
    "Attachments": [{"Name": "a.txt", "Content": "YQ==", "ContentType": "text/plain", "ContentID": "cid:a"}],
    "Redact": "content",
}  # fmt: skip
TEMPLATED = {"From": POSTMARK["From"], "To": PERSON, "TemplateAlias": "welcome", "TemplateModel": {"name": "Ann"}}
GOOD: dict[str, Any] = {
    "postmark/email": POSTMARK,
    "postmark/email/batch": [POSTMARK, POSTMARK],
    "postmark/email/withTemplate": TEMPLATED,
    "postmark/email/batchWithTemplates": {"Messages": [TEMPLATED, TEMPLATED]},
    "postmark/email/bulk": {
        "From": POSTMARK["From"], "Subject": "Hi {{name}}", "HtmlBody": "{{#each a}}{{b}}{{/each}}", "TextBody": "y",
        "Messages": [{"To": PERSON, "TemplateModel": {"name": "Ann", "a": [{"b": 1}]}}], "MessageStream": "broadcast",
    },
    "postmark/message-streams/outbound/suppressions": {"Suppressions": [{"EmailAddress": PERSON}]},
    "postmark/message-streams/outbound/suppressions/delete": {"Suppressions": [{"EmailAddress": PERSON}]},
    "sendgrid/v3/mail/send": {
        "personalizations": [
            {"to": [{"email": PERSON, "name": "A"}], "cc": [{"email": "cc@simulator.test"}], "subject": "Hi",
             "substitutions": {"-n-": "A"}, "custom_args": {"a": "b"}, "headers": {"X-A": "b"}, "send_at": 1}
        ],
        "from": {"email": f"orders@{DOMAIN}", "name": "Shop"}, "reply_to": {"email": PERSON}, "subject": "x",
        "content": [{"type": "text/plain", "value": "y"}, {"type": "text/html", "value": "<p>y</p>"}],
        "attachments": [{"content": "YQ==", "filename": "a", "type": "text/plain", "disposition": "inline",
                         "content_id": "a"}],
        "categories": ["a"], "custom_args": {"a": "b"}, "headers": {"X-A": "b"}, "asm": {"group_id": 1},
        "mail_settings": {"sandbox_mode": {"enable": False}},
        "tracking_settings": {"subscription_tracking": {"enable": True, "text": "<% %>", "html": "<% x %>"}},
    },
    "sendgrid/v3/asm/suppressions/global": {"recipient_emails": [PERSON]},
    f"mailgun/v3/{DOMAIN}/bounces": [{"address": PERSON}],
}  # fmt: skip
FORM = {
    "from": f"orders@{DOMAIN}", "to": PERSON, "subject": "x", "text": "Hi %recipient.n%", "html": "<p>y</p>",
    "h:X-A": "b", "v:a": "b", "o:tag": "t", "o:deliverytime": "Fri, 14 Oct 2033 23:10:10 -0000", "template": "",
    "recipient-variables": json.dumps({PERSON: {"n": "A"}}), "o:tracking": "yes", "message": "From: a\r\n\r\nx",
}  # fmt: skip
TEXT = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        "a\r\nBcc: b@c.test",
        "{{",
        "{{#each x}}",
        "{{/if}}",
        "%recipient.",
        "x" * 3000,
        "<@",
        "😀@é.test",
    ]
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**30) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
QUIET = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


@st.composite
def spoiled(draw: Any, good: Any) -> Any:
    """A good body with junk in up to three places: instead of a part, as a field that nobody knows, or nothing."""
    body = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(body))))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(JUNK)
            continue
        part = body
        for step in path[:-1]:
            part = part[step]
        match draw(st.integers(0, 3)):
            case 0:
                del part[path[-1]]
            case 1 if isinstance(part, dict):
                part[draw(TEXT)] = draw(JUNK)
            case _:
                part[path[-1]] = draw(JUNK)
    return body


@pytest.fixture
def fuzzed(transactional_db: None, settings: Any) -> Client:
    settings.RATE_LIMIT = 0
    client = Client(make_tenant(), domain=DOMAIN)
    client.tenant.domains.create(name=DOMAIN, verified_at=client.tenant.created_at)
    made = client.post("/templates", {
        "name": "w", "alias": "welcome", "subject": "x", "html": "{{name}}", "language": "mustachio",
    })  # fmt: skip
    assert made.status_code == 201 and client.post("/templates/welcome/publish", {}).status_code == 200
    client.http = DjangoClient(raise_request_exception=False)
    return client


@pytest.mark.parametrize("path", GOOD)
def test_nothing_that_is_posted_to_a_face_makes_it_fail(fuzzed: Client, path: str) -> None:
    face, came = path.partition("/")[0], set()

    def post(octets: bytes) -> int:
        answer = fuzzed.http.post(f"/compat/{path}", octets, content_type="application/json", **headers(fuzzed, face))
        came.add(answer.status_code)
        return answer.status_code

    assert post(json.dumps(GOOD[path]).encode()) < 300

    @settings(max_examples=40, **QUIET)
    @given(spoiled(GOOD[path]).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=30))
    def spoil(octets: bytes) -> None:
        assert post(octets) < 500, octets

    spoil()
    assert len(came) > 1, f"only {came}: nothing was spoiled"


def test_nothing_that_is_posted_to_mailguns_forms_makes_it_fail(fuzzed: Client) -> None:
    @settings(max_examples=60, **QUIET)
    @given(
        st.sampled_from(["messages", "messages.mime", "bounces", "complaints", "unsubscribes"]),
        st.dictionaries(st.sampled_from(sorted(FORM)), TEXT, max_size=3),
        st.booleans(),
    )
    def spoil(rest: str, wrong: dict[str, str], multipart: bool) -> None:
        form = {k: v.encode("utf-8", "surrogatepass") for k, v in (FORM | wrong).items()}
        kind, octets = "application/x-www-form-urlencoded", urlencode(form).encode()
        if multipart:
            kind = "multipart/form-data; boundary=b"
            lines = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n'.encode() + v for k, v in form.items()]
            octets = b"\r\n".join([*lines, b"--b--\r\n"])
        path = f"/compat/mailgun/v3/{DOMAIN}/{rest}"
        answer = fuzzed.http.post(path, octets, content_type=kind, **headers(fuzzed, "mailgun"))
        assert answer.status_code < 500, (path, form, answer.content[:300])

    spoil()
