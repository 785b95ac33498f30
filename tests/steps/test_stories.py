"""What a client does one after the other, in any order: mails, templates, suppressions and keys, as the OpenAPI says.

Every answer is held against the description, and the story against a model that knows what must have become of each.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from deliveries import keys
from deliveries.models import Message
from mailapi import auth
from mailapi.schemas.openapi import document
from tests.steps.api import Client, make_tenant
from tests.steps.test_openapi import CHECKS, QUIET

pytestmark = pytest.mark.django_db(transaction=True)

RUNS = int(os.environ.get("SCHEMATHESIS_RUNS", "15"))
HOURS = st.integers(1, 700).map(lambda hours: f"in {hours} hours")
WORD = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9)
#: (method, path) of what was asked, over all stories
REACHED: set[tuple[str, str]] = set()


@pytest.fixture(autouse=True)
def _no_limit(settings: Any) -> None:
    settings.RATE_LIMIT = 0
    auth.forget()


class Story(RuleBasedStateMachine):
    """One tenant; `ask` holds each answer against the OpenAPI."""

    schema: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.client = Client(make_tenant())
        self.due: dict[str, str] = {}  # mail → queued or scheduled or canceled
        self.drafts: dict[str, bool] = {}  # template → published
        self.barred: set[str] = set()

    mails, templates, addresses, own_keys = Bundle("m"), Bundle("t"), Bundle("a"), Bundle("k")

    def ask(self, method: str, path: str, code: int, body: Any = None, /, **parameters: Any) -> Any:
        case = self.schema[path][method].Case(
            path_parameters={k: v for k, v in parameters.items() if f"{{{k}}}" in path},
            query={k: v for k, v in parameters.items() if f"{{{k}}}" not in path},
            **({} if body is None else {"body": body, "media_type": "application/json"}),
        )
        answer = case.call(headers={"Authorization": f"Bearer {self.client.secret}"})
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code == code, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        REACHED.add((method, path))
        return answer.json()

    # --- mails --------------------------------------------------------------------------------------------------

    @rule(target=mails, subject=WORD)
    def send(self, subject: str) -> str:
        ident: str = self.ask("POST", "/emails", 200, self.client.mail(subject=subject))["id"]
        self.due[ident] = "queued"
        return ident

    @rule(target=mails, when=HOURS)
    def schedule(self, when: str) -> str:
        ident: str = self.ask("POST", "/emails", 200, self.client.mail(scheduled_at=when))["id"]
        self.due[ident] = "scheduled"
        return ident

    @rule(target=mails, number=st.integers(1, 3))
    def batch(self, number: int) -> Any:
        made = self.ask("POST", "/emails/batch", 200, [self.client.mail()] * number)["data"]
        self.due |= {one["id"]: "queued" for one in made}
        return multiple(*(one["id"] for one in made))

    @rule(ident=mails)
    def look(self, ident: str) -> None:
        found = self.ask("GET", "/emails/{email_id}", 200, email_id=ident)
        assert (found["id"], found["last_event"]) == (ident, self.due[ident])

    @rule(ident=mails, when=HOURS)
    def reschedule(self, ident: str, when: str) -> None:
        status = 200 if self.due[ident] == "scheduled" else 409
        self.ask("PATCH", "/emails/{email_id}", status, {"scheduled_at": when}, email_id=ident)

    @rule(ident=mails)
    def cancel(self, ident: str) -> None:
        status = 200 if self.due[ident] == "scheduled" else 409
        self.ask("POST", "/emails/{email_id}/cancel", status, email_id=ident)
        if status == 200:
            self.due[ident] = "canceled"

    @rule(status=st.sampled_from(["queued", "scheduled", "canceled"]))
    def list_mails(self, status: str) -> None:
        found = self.ask("GET", "/emails", 200, status=status, limit=100)["data"]
        wanted = {ident for ident, word in self.due.items() if word == status}
        assert {mail["id"] for mail in found} == wanted

    # --- templates ----------------------------------------------------------------------------------------------

    @rule(target=templates, word=WORD)
    def draft(self, word: str) -> str:
        body = {"name": word, "html": "<p>{{{NAME}}}</p>", "variables": [{"key": "NAME", "type": "string"}]}
        ident: str = self.ask("POST", "/templates", 201, body)["id"]
        self.drafts[ident] = False
        return ident

    @rule(target=templates, ident=templates)
    def duplicate(self, ident: str) -> str:
        copy: str = self.ask("POST", "/templates/{template_id}/duplicate", 201, {}, template_id=ident)["id"]
        self.drafts[copy] = False
        return copy

    @rule(ident=templates, word=WORD)
    def edit(self, ident: str, word: str) -> None:
        self.ask("PATCH", "/templates/{template_id}", 200, {"name": word, "alias": None}, template_id=ident)
        assert self.ask("GET", "/templates/{template_id}", 200, template_id=ident)["name"] == word

    @rule(ident=templates)
    def publish(self, ident: str) -> None:
        self.ask("POST", "/templates/{template_id}/publish", 200, {}, template_id=ident)
        self.drafts[ident] = True

    @rule(ident=templates, word=WORD)
    def preview(self, ident: str, word: str) -> None:
        body = {"variables": {"NAME": word}}
        shown = self.ask("POST", "/templates/{template_id}/preview", 200, body, template_id=ident)
        assert word in shown["html"]

    @rule(target=mails, ident=templates, word=WORD)
    def use(self, ident: str, word: str) -> Any:
        body = self.client.mail(text=None, template={"id": ident, "variables": {"NAME": word}})
        published = self.drafts[ident]
        answer = self.ask("POST", "/emails", 200 if published else 422, {k: v for k, v in body.items() if v})
        if not published:
            return multiple()
        self.due[answer["id"]] = "queued"
        assert word in self.ask("GET", "/emails/{email_id}", 200, email_id=answer["id"])["html"]
        return answer["id"]

    @rule(ident=consumes(templates))
    def remove_template(self, ident: str) -> None:
        self.ask("DELETE", "/templates/{template_id}", 200, template_id=ident)
        self.ask("GET", "/templates/{template_id}", 404, template_id=ident)
        self.drafts.pop(ident)
        listed = self.ask("GET", "/templates", 200, limit=100)["data"]
        assert {one["id"] for one in listed} == self.drafts.keys()

    # --- who gets no mail -----------------------------------------------------------------------------------------

    @rule(target=addresses, word=WORD)
    def bar(self, word: str) -> str:
        address = f"{word}@simulator.test"
        self.ask("POST", "/suppressions", 201, {"email": address})
        self.barred.add(address)
        return address

    @rule(address=addresses)
    def mail_to(self, address: str) -> None:
        sent = self.ask("POST", "/emails", 200, self.client.mail(to=address))["id"]
        found = self.ask("GET", "/emails/{email_id}", 200, email_id=sent)
        assert found["last_event"] == ("suppressed" if address in self.barred else "queued")
        self.due[sent] = found["last_event"]

    @rule(address=addresses)
    def free(self, address: str) -> None:
        there = address in self.barred
        self.ask("GET", "/suppressions/{suppression_id}", 200 if there else 404, suppression_id=address)
        self.ask("DELETE", "/suppressions/{suppression_id}", 200 if there else 404, suppression_id=address)
        self.barred.discard(address)
        listed = self.ask("GET", "/suppressions", 200, limit=100)["data"]
        assert {one["email"] for one in listed} == self.barred

    # --- keys ---------------------------------------------------------------------------------------------------------

    @rule(target=own_keys, word=WORD, permission=st.sampled_from(["full_access", "sending_access", "read_access"]))
    def make_key(self, word: str, permission: str) -> Any:
        made = self.ask("POST", "/api-keys", 201, {"name": word, "permission": permission})
        assert keys.find(made["token"])
        return made["id"], made["token"]

    @rule(key=own_keys, rate=st.none() | st.integers(1, 5000))
    def change_key(self, key: tuple[str, str], rate: int | None) -> None:
        self.ask("PATCH", "/api-keys/{key_id}", 200, {"rate_limit": rate}, key_id=key[0])
        listed = {one["id"]: one for one in self.ask("GET", "/api-keys", 200, limit=100)["data"]}
        assert listed[key[0]]["rate_limit"] == rate

    @rule(key=consumes(own_keys))
    def revoke_key(self, key: tuple[str, str]) -> None:
        self.ask("DELETE", "/api-keys/{key_id}", 200, key_id=key[0])
        self.ask("DELETE", "/api-keys/{key_id}", 404, key_id=key[0])
        assert keys.find(key[1]) is None

    def teardown(self) -> None:
        assert Message.objects.filter(tenant=self.client.tenant).count() == len(self.due), "nothing lost or doubled"


def test_any_order_of_requests_does_what_the_description_and_the_model_say() -> None:
    schema = schemathesis.openapi.from_dict(document())
    schema.app = get_wsgi_application()

    class Machine(Story):
        pass

    Machine.schema = schema
    run_state_machine_as_test(
        Machine, settings=hypothesis_settings(max_examples=RUNS * 2, stateful_step_count=30, **QUIET)
    )
    rooms = {path.split("/")[1] for _, path in REACHED}
    assert rooms == {"emails", "templates", "suppressions", "api-keys"} and len(REACHED) >= 18, sorted(REACHED)
