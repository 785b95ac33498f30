"""Each method of Resend's SDKs that transactional mail uses is called, as it should be and as it should not.

What the SDKs have is read off their objects: a method that a later version adds fails here until it is called, or is
named as one that has no part in transactional mail.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import resend
from resend import exceptions
from svix.webhooks import Webhook

from deliveries.management.commands import smtpd
from deliveries.models import Message
from tests.e2e.test_sdk_domains import server, zone  # noqa: F401 - fixtures: a web process that asks a nameserver here
from tests.fakes.house import build
from tests.fakes.node import node
from tests.steps.api import Client
from tests.steps.test_receiving import claim, received

pytestmark = pytest.mark.django_db(transaction=True)
NOBODY = "01900000-0000-7000-8000-000000000000"

#: marketing, mailboxes, and the account at Resend
ELSEWHERE = {
    "audiences", "automations", "broadcasts", "contactImports", "contactProperties", "contactSegments", "contacts",
    "contactsTopics", "events", "inboxAgent", "inboxDrafts", "inboxLabels", "inboxThreadEmails", "inboxThreadLabels",
    "inboxThreads", "inboxes", "oauthGrants", "oAuthGrants", "segments", "topics",
}  # fmt: skip
#: of the rest: a public page that shows a mail, and the figures of a plan
NOT_BUILT = {"emails.share", "usage.get"}


@pytest.fixture
def account(transactional_db: None, server: str, zone: Any, settings: Any, monkeypatch: Any) -> Client:  # noqa: F811
    """A tenant with a verified domain, a key, and a received mail with files."""
    settings.DNS_NAMESERVERS = (zone.address,)
    zone.set("")
    monkeypatch.setattr(smtpd._Bell, "ring", lambda self: None)
    monkeypatch.setattr(resend, "api_url", server)
    house = build()
    monkeypatch.setattr(resend, "api_key", house.secret)
    claim(house)
    found = Client(house.tenant, house.secret, house.domain.name)
    found.came = received(house)  # type: ignore[attr-defined]
    return found


def wanted(methods: set[str]) -> set[str]:
    return {m for m in methods if m.split(".")[0] not in ELSEWHERE} - NOT_BUILT


def test_every_method_of_the_node_sdk(server: str, account: Client) -> None:  # noqa: F811
    got = node(
        "resend-whole.mjs",
        url=server,
        key=account.secret,
        domain=account.domain,
        name=f"{uuid4().hex[:12]}.example.com",
    )
    refused = {name: error for name, error in got["bad"].items() if name not in NOT_BUILT}
    assert {name: a["error"] for name, a in got["good"].items() if a["error"]} == {}
    assert [name for name, a in got["good"].items() if not a["data"]] == []
    assert [name for name, error in refused.items() if not (error and error["name"])] == []
    spoken = {name: error["statusCode"] for name, error in refused.items() if "statusCode" in error}
    assert {name: status for name, status in spoken.items() if not 400 <= (status or 400) < 500} == {}
    missed = wanted(set(got["methods"]))
    assert missed - set(got["good"]) == set() and missed - set(got["bad"]) == set()
    assert {got["bad"][name]["statusCode"] for name in NOT_BUILT} == {404}
    assert Message.objects.filter(tenant=account.tenant, subject="Hi Ada").count() == 1


def python_methods() -> set[str]:
    """`Emails.Attachments.get` as `emails.attachments.get`, of every class of the package; the *_async ones too."""
    found: set[str] = set()

    def walk(part: type, path: str, seen: tuple[type, ...] = ()) -> None:
        for name, member in inspect.getmembers(part):
            if name.startswith("_") or member in seen:
                continue
            if inspect.isclass(member):
                if not issubclass(member, dict) and member.__module__.startswith("resend"):
                    walk(member, f"{path}.{name[0].lower()}{name[1:]}", (*seen, member))
            elif callable(member):
                found.add(f"{path}.{name}")

    for name, member in inspect.getmembers(resend, inspect.isclass):
        package = member.__module__.split(".")
        # a resource: a class with methods in a package of its own
        if len(package) > 2 and not issubclass(member, dict) and name not in _ALSO_ELSEWHERE:
            walk(member, name[0].lower() + name[1:])
    return found


#: second names of Emails.Attachments, Emails.Receiving, Domains.Claims and Suppressions.Batch
_ALSO_ELSEWHERE = {"EmailAttachments", "EmailsReceiving", "DomainClaims", "SuppressionsBatch"}


class Walk:
    """Calls methods by name, the async ones where `suffix` says so, and keeps which were called."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.good: set[str] = set()
        self.bad: set[str] = set()

    def _method(self, name: str) -> tuple[str, Callable[..., Any]]:
        *path, method = name.split(".")
        part: Any = resend
        for word in path:
            part = getattr(part, word[0].upper() + word[1:])
        suffix = self.suffix if hasattr(part, method + self.suffix) else ""
        found = getattr(part, method + suffix)
        call = (lambda *args: asyncio.run(found(*args))) if suffix else found
        return name + suffix, call

    def well(self, name: str, *args: Any) -> Any:
        key, call = self._method(name)
        answer = call(*args)
        self.good.add(key)
        return answer

    def badly(self, name: str, *args: Any, error: type[Exception] = exceptions.ResendError) -> None:
        key, call = self._method(name)
        with pytest.raises(error) as caught:
            call(*args)
        assert error is not exceptions.ResendError or 400 <= int(caught.value.code) < 500, (key, caught.value)
        self.bad.add(key)


@pytest.mark.parametrize("suffix", ["", "_async"])
def test_every_method_of_the_python_sdk(account: Client, suffix: str) -> None:
    walk = Walk(suffix)
    well, badly = walk.well, walk.badly
    sender = f"Shop <orders@{account.domain}>"
    mail = {"from": sender, "to": "delivered@simulator.test", "subject": "Grüße 🎉", "text": "Hi"}
    sent = well("emails.send", {**mail, "attachments": [{"filename": "a.txt", "content": list(b"attached")}]})["id"]
    badly("emails.send", {**mail, "to": "nobody"})
    assert well("emails.get", sent)["subject"] == "Grüße 🎉"
    badly("emails.get", NOBODY)
    assert well("emails.list", {"limit": 1})["data"][0]["id"] == sent
    badly("emails.list", {"limit": 1000})
    later = well("emails.send", {**mail, "scheduled_at": "in 1 hour"})["id"]
    assert well("emails.update", {"id": later, "scheduled_at": "in 2 hours"})["id"] == later
    badly("emails.update", {"id": later, "scheduled_at": "whenever"})
    assert well("emails.cancel", later)["id"] == later
    badly("emails.cancel", later)
    well("emails.metrics", {"granularity": "daily", "metrics": ["sent"]})
    badly("emails.metrics", {"granularity": "daily", "timezone": "Nowhere/Land"})
    (own,) = well("emails.attachments.list", sent)["data"]
    badly("emails.attachments.list", NOBODY)
    assert well("emails.attachments.get", sent, own["id"])["filename"] == "a.txt"
    badly("emails.attachments.get", sent, NOBODY)
    assert len(well("batch.send", [mail, {**mail, "to": "nobody"}], {"batch_validation": "permissive"})["data"]) == 1
    badly("batch.send", [mail, {**mail, "to": "nobody"}])

    came = account.came  # type: ignore[attr-defined]
    assert [m["id"] for m in well("emails.receiving.list")["data"]] == [came]
    badly("emails.receiving.list", {"after": "x"})
    assert well("emails.receiving.get", came)["raw"]["download_url"]
    badly("emails.receiving.get", NOBODY)
    part = well("emails.receiving.attachments.list", came)["data"][0]
    badly("emails.receiving.attachments.list", NOBODY)
    assert well("emails.receiving.attachments.get", came, part["id"])["id"] == part["id"]
    badly("emails.receiving.attachments.get", came, NOBODY)

    made = well("templates.create", {"name": "Welcome", "alias": "welcome", "subject": "Hi", "html": "<p>Hi</p>"})["id"]
    badly("templates.create", {"name": "x", "html": "{% if A %}"})
    assert well("templates.update", {"id": "welcome", "name": "Welcome here"})["id"] == made
    badly("templates.update", {"id": NOBODY, "name": "x"})
    assert well("templates.get", "welcome")["name"] == "Welcome here"
    badly("templates.get", "nothing")
    assert well("templates.list", {"limit": 1})["data"][0]["id"] == made
    badly("templates.list", {"limit": 1000})
    assert well("templates.publish", made)["id"] == made
    badly("templates.publish", "nothing")
    copy = well("templates.duplicate", "welcome")["id"]
    badly("templates.duplicate", "nothing")
    assert well("templates.remove", copy)["deleted"] is True
    badly("templates.remove", copy)

    assert well("suppressions.add", {"email": "gone@one.test"})["id"]
    badly("suppressions.add", {"email": "nobody"})
    assert well("suppressions.get", "gone@one.test")["email"] == "gone@one.test"
    badly("suppressions.get", "other@one.test")
    assert len(well("suppressions.list", {"origin": "manual"})["data"]) == 1
    badly("suppressions.list", {"origin": "weather"})
    assert well("suppressions.remove", "gone@one.test")["deleted"] is True
    badly("suppressions.remove", "gone@one.test")
    well("suppressions.batch.add", {"emails": ["a@one.test", "b@one.test"]})
    badly("suppressions.batch.add", {"emails": ["nobody"]})
    well("suppressions.batch.remove", {"emails": ["a@one.test"]})
    badly("suppressions.batch.remove", {"emails": []})

    hook = well("webhooks.create", {"endpoint": "https://app.example.com/hook", "events": ["email.sent"]})["id"]
    badly("webhooks.create", {"endpoint": "ftp://app.example.com", "events": []})
    assert well("webhooks.get", hook)["id"] == hook
    badly("webhooks.get", NOBODY)
    assert well("webhooks.list", {"limit": 1})["data"][0]["id"] == hook
    badly("webhooks.list", {"limit": 1000})
    well("emails.send", mail)
    event = well("webhooks.list_events", hook)["data"][0]["id"]
    badly("webhooks.list_events", NOBODY)
    assert well("webhooks.get_event", hook, event)["id"] == event
    badly("webhooks.get_event", hook, NOBODY)
    assert well("webhooks.replay_event", hook, event)["id"] == event
    badly("webhooks.replay_event", hook, NOBODY)
    assert well("webhooks.list_event_attempts", hook, event)["object"] == "list"
    badly("webhooks.list_event_attempts", hook, NOBODY)
    assert well("webhooks.update", {"webhook_id": hook, "status": "disabled"})["id"] == hook
    badly("webhooks.update", {"webhook_id": hook, "events": ["email.nothing"]})
    secret = well("webhooks.rotate_signing_secret", hook)["signing_secret"]
    badly("webhooks.rotate_signing_secret", NOBODY)
    now, payload = datetime.now(UTC), '{"type": "email.sent"}'
    headers = {"id": "msg_1", "timestamp": str(int(now.timestamp()))}
    headers["signature"] = Webhook(secret).sign("msg_1", now, payload)
    well("webhooks.verify", {"payload": payload, "headers": headers, "webhook_secret": secret})
    altered = {"payload": payload + " ", "headers": headers, "webhook_secret": secret}
    badly("webhooks.verify", altered, error=ValueError)
    assert well("webhooks.remove", hook)["deleted"] is True
    badly("webhooks.remove", hook)

    name = f"{uuid4().hex[:12]}.example.com"
    domain = well("domains.create", {"name": name})["id"]
    badly("domains.create", {"name": "co.uk"})
    assert well("domains.get", domain)["name"] == name
    badly("domains.get", NOBODY)
    assert len(well("domains.list")["data"]) == 2
    badly("domains.list", {"limit": 1000})
    well("domains.update", {"id": domain, "open_tracking": True})
    badly("domains.update", {"id": NOBODY, "open_tracking": True})
    assert well("domains.verify", domain)["status"] == "pending"
    badly("domains.verify", NOBODY)
    claimed = well("domains.claims.create", {"name": f"claimed-{name}"})["domain_id"]
    badly("domains.claims.create", {"name": "com"})
    well("domains.claims.get", claimed)
    badly("domains.claims.get", NOBODY)
    well("domains.claims.verify", claimed)
    badly("domains.claims.verify", NOBODY)
    key = well("apiKeys.create", {"name": "shop", "permission": "sending_access", "domain_id": domain})["id"]
    badly("apiKeys.create", {"name": ""})
    assert key in {k["id"] for k in well("apiKeys.list")["data"]}
    badly("apiKeys.list", {"limit": 1000})
    assert well("apiKeys.update", {"id": key, "name": "web shop"})["id"] == key
    badly("apiKeys.update", {"id": NOBODY, "name": "x"})
    well("apiKeys.remove", key)
    badly("apiKeys.remove", key)
    assert well("domains.remove", domain)["deleted"] is True
    badly("domains.remove", domain)

    for _ in range(300):  # written off the requests' path
        if noted := well("logs.list")["data"]:
            break
        time.sleep(0.1)
    badly("logs.list", {"limit": 1000})
    assert well("logs.get", noted[0]["id"])["object"] == "log"
    badly("logs.get", NOBODY)

    ours = {m for m in wanted(python_methods()) if m.endswith("_async") == bool(suffix) or m == "webhooks.verify"}
    ours -= {f"{m}_async" for m in NOT_BUILT}
    assert ours - walk.good == set() and ours - walk.bad == set()
    for method in NOT_BUILT:
        badly(method, *([sent] if method == "emails.share" else []))
