"""What the faces list: nothing of another tenant, and a 4xx in their shape for questions that make no sense."""

import base64
from urllib.parse import quote

import pytest

from deliveries.models import Message
from deliveries.record import suppressions
from tests.steps.api import Client, make_tenant

ODD = ["%00", "x" * 300, "%F0%9F%8E%89", "..%2f", "9999-12-31T23:59:59-23:59", "0" * 5000, "%ff"]


def headers(api, face):
    if face == "postmark":
        return {"HTTP_X_POSTMARK_SERVER_TOKEN": api.secret}
    if face == "mailgun":
        return {"HTTP_AUTHORIZATION": "Basic " + base64.b64encode(f"api:{api.secret}".encode()).decode()}
    return {"HTTP_AUTHORIZATION": f"Bearer {api.secret}"}


def ask(api, face, path, method="get", **extra):
    return getattr(api.http, method)(f"/compat/{face}/{path}", **headers(api, face), **extra)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("face", "path"),
    [
        ("postmark", "messages/outbound/{}/details"),
        ("postmark", "bounces/{}"),
        ("postmark", "message-streams/{}/suppressions/dump"),
        ("postmark", "messages/outbound?count={}"),
        ("postmark", "messages/outbound?fromdate={}"),
        ("postmark", "messages/outbound?status={}"),
        ("postmark", "bounces?messageID={}"),
        ("sendgrid", "v3/suppression/{}"),
        ("sendgrid", "v3/suppression/bounces/{}"),
        ("sendgrid", "v3/suppression/bounces?limit={}"),
        ("mailgun", "v3/{}/events"),
        ("mailgun", "v3/{domain}/events/{}"),
        ("mailgun", "v3/{domain}/events?event={}"),
        ("mailgun", "v3/{domain}/bounces/{}"),
        ("mailgun", "v3/{domain}/bounces?skip={}"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_in_the_faces_shape(api, face, path, odd):
    answer = ask(api, face, path.replace("{domain}", api.domain).replace("{}", odd))
    assert answer.status_code in (200, 400, 404, 422), answer.content
    word = {"postmark": "Message", "sendgrid": "errors", "mailgun": "message"}[face]
    assert answer.status_code == 200 or word in answer.json()


@pytest.mark.parametrize(
    ("face", "path", "known"),
    [
        ("postmark", "messages/outbound?fromEmail=nobody@a.example&toDate=2030-01-01", "fromname"),
        ("postmark", "bounces?emailfilter=nobody&messageStream=x", "activity"),
        ("postmark", "message-streams/outbound/suppressions/dump?emailAddress=a@b.example&count=9&offset=9", "email"),
        ("sendgrid", "v3/suppression/bounces?start_time=1", "email"),
        ("mailgun", "v3/{domain}/events?subject=nothing&begin=Fri, 31 Jan 2020 09:00:00 -0500", "attachment"),
        ("mailgun", "v3/{domain}/events?severity=temporary&event=failed OR delivered", "list"),
        ("mailgun", "v3/{domain}/unsubscribes?limit=1", "term"),
    ],
)
def test_a_list_is_narrowed_by_each_word_and_an_unknown_one_is_refused(api, face, path, known):
    api.send(to="dead@simulator.test")
    suppressions.add(api.tenant, "dead@simulator.test", "bounce", "", "test")
    path = path.replace("{domain}", api.domain).replace(" ", "%20")
    answer = ask(api, face, path)
    assert answer.status_code == 200, answer.content
    told = answer.json()
    rows = told if isinstance(told, list) else next(v for v in told.values() if isinstance(v, list))
    assert len(rows) == (face == "sendgrid")
    refused = ask(api, face, f"{path}&{known}=x")
    assert refused.status_code == (422 if face == "postmark" else 400) and known.encode() in refused.content
    name, _, value = path.partition("?")[2].partition("&")[0].partition("=")
    # clients say a word again beside those of a page's link
    assert ask(api, face, f"{path}&{name.upper()}={value}").status_code == 200
    for again in (f"{name}={value}9", f"{name.upper()}={value}9"):
        twice = ask(api, face, f"{path}&{again}")
        assert twice.status_code == refused.status_code and b"Stands twice" in twice.content


def test_the_pages_of_mailguns_events_keep_what_was_asked(api):
    suppressions.add(api.tenant, "dead@simulator.test", "bounce", "", "test")
    for to in ("dead@simulator.test", "a@simulator.test", "b@simulator.test"):
        api.send(to=to)
    for words, seen in (
        ("event=failed&limit=1", ["dead@"]),
        ("event=accepted&limit=1&begin=1&end=9999999999", ["a@", "b@"]),
        ("event=accepted&limit=1&begin=9999999999&end=1", ["b@", "a@"]),
    ):
        path, found = f"v3/{api.domain}/events?{words}", []
        while items := (page := ask(api, "mailgun", path).json())["items"]:
            found += [item["recipient"].removesuffix("simulator.test") for item in items]
            path = page["paging"]["next"].partition("/compat/mailgun/")[2]
        assert found == seen, words


def test_a_bounce_that_proves_no_address_dead_is_soft_and_a_block(api):
    for to, rule in (("dead@simulator.test", "unknown-user"), ("off@simulator.test", "inactive-suspended")):
        Message.objects.get(id=api.send(to=to).json()["id"]).deliveries.update(
            status="bounced", category="inactive", rule=rule
        )
    for kind, to in (("HardBounce", "dead@simulator.test"), ("SoftBounce", "off@simulator.test")):
        (line,) = ask(api, "postmark", f"bounces?type={kind}").json()["Bounces"]
        assert (line["Type"], line["Email"]) == (kind, to)
    suppressions.add(api.tenant, "Dead@simulator.test", "bounce", "", "test")
    suppressions.add(api.tenant, "off@simulator.test", "unsubscribe", "", "test", "news")
    for inactive, to in (("true", "dead@simulator.test"), ("False", "off@simulator.test")):
        (line,) = ask(api, "postmark", f"bounces?inactive={inactive}").json()["Bounces"]
        assert (line["Email"], line["Inactive"]) == (to, inactive == "true")
    told = ask(api, "postmark", "deliverystats").json()["Bounces"]
    assert {line["Type"]: line["Count"] for line in told} == {"All": 2, "HardBounce": 1, "SoftBounce": 1}
    assert [line["email"] for line in ask(api, "sendgrid", "v3/suppression/blocks").json()] == ["off@simulator.test"]


def test_nothing_of_another_tenant_is_shown_or_changed(api):
    other = Client(make_tenant())
    sent = other.send(to="dead@simulator.test").json()["id"]
    stored = Message.objects.get(id=sent)
    stored.deliveries.update(status="bounced", category="bad_mailbox")
    suppressions.add(other.tenant, "dead@simulator.test", "bounce", "", "test")
    assert ask(api, "postmark", f"messages/outbound/{sent}/details").status_code == 404
    assert ask(api, "postmark", "messages/outbound").json()["Messages"] == []
    theirs = ask(other, "postmark", "bounces").json()["Bounces"][0]["ID"]
    assert ask(api, "postmark", f"bounces/{theirs}").status_code == 404
    assert ask(api, "postmark", f"bounces/{theirs}/activate", "put").status_code == 404
    assert ask(api, "postmark", "bounces").json() == {"TotalCount": 0, "Bounces": []}
    assert ask(api, "postmark", "message-streams/outbound/suppressions/dump").json() == {"Suppressions": []}
    assert ask(api, "sendgrid", "v3/suppression/bounces").json() == []
    assert ask(api, "sendgrid", f"v3/suppression/bounces/{quote('dead@simulator.test')}", "delete").status_code == 404
    for path in ("events", "bounces", "bounces/dead@simulator.test"):
        assert ask(api, "mailgun", f"v3/{other.domain}/{path}").status_code == 404
    assert ask(api, "mailgun", f"v3/{api.domain}/bounces").json()["items"] == []
    assert ask(api, "mailgun", f"v3/{api.domain}/bounces", "delete").status_code == 200
    assert ask(other, "sendgrid", "v3/suppression/bounces").json()[0]["email"] == "dead@simulator.test"
