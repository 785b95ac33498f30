"""Every example of docs/api.md is run as it stands, against a web process: curl, Python and Node."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import resend
from django.utils import timezone

from deliveries import operators
from deliveries.models import SendingDomain
from tests.e2e.test_sdk_domains import server, zone  # noqa: F401 - fixtures: a web process that asks a nameserver here
from tests.fakes.node import SDK, missing
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "api.md"
#: what people do: a section for each, with an example in each language
WHOLE = {
    "API keys",
    "A mail",
    "Domains",
    "Templates",
    "Limits",
    "Logs",
    "Suppressions",
    "Tenants",
    "Webhooks",
    "Receiving",
}
LANGUAGES = {"sh", "python", "js"}
#: the sections whose examples make example.com themselves
MAKE_THE_DOMAIN = {"Domains"}


class Example(NamedTuple):
    section: str
    language: str
    text: str
    line: int


def examples() -> Iterator[Example]:
    page, section = PAGE.read_text(), "The API"
    for found in re.finditer(r"^#+ (?P<section>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$", page, re.M | re.S):
        if found["section"]:
            section = found["section"]
        else:
            yield Example(section, found["language"], found["text"], page.count("\n", 0, found.start()) + 2)


RUN = [e for e in examples() if e.language in LANGUAGES]


class Reader(NamedTuple):
    """Who follows the page: the address and the key that stand in place of the page's, and ids of things there are."""

    url: str
    key: str
    ids: dict[str, str]


@pytest.fixture
def reader(request: Any, transactional_db: None, server: str, zone: Any, settings: Any) -> Reader:  # noqa: F811
    settings.DNS_NAMESERVERS = (zone.address,)
    zone.set("")
    tenant = make_tenant()
    if request.param.section not in MAKE_THE_DOMAIN:
        SendingDomain.objects.create(tenant=tenant, name="example.com", verified_at=timezone.now())
    client = Client(tenant)
    ids = {"ID": ""}
    if request.param.section == "Domains":
        ids["ID"] = client.post("/domains", {"name": "shop.example.org"}).json()["id"]
    if request.param.section == "A mail":
        mail = {"from": "a@example.com", "to": "delivered@simulator.test", "subject": "x", "text": "y"}
        ids["ID"] = client.post("/emails", {**mail, "scheduled_at": "in 1 hour"}).json()["id"]
    if request.param.section == "Webhooks":
        hook = {"endpoint": "https://app.example.com/other", "events": []}
        ids["ID"] = client.post("/webhooks", hook).json()["id"]
    if request.param.section == "Tenants":
        ids["OPERATOR_KEY"] = operators.create("provisioning", "full_access", "test")[1]
        ids["TENANT"] = str(tenant.id)
    return Reader(server, client.secret, ids)


@pytest.mark.parametrize(
    ("example", "reader"),
    [(e, e) for e in RUN],
    ids=[f"{e.section}, {e.language}, line {e.line}" for e in RUN],
    indirect=["reader"],
)
def test_an_example_runs_as_it_stands(example: Example, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    run = {"sh": shell, "python": python, "js": script}[example.language]
    text = example.text.replace("http://127.0.0.1:8000", reader.url).replace("re_…", reader.key)
    text = text.replace("op_…", reader.ids.get("OPERATOR_KEY", ""))
    monkeypatch.setattr(resend, "api_url", reader.url)
    monkeypatch.setattr(resend, "api_key", reader.key)
    run(text, reader)


def test_each_thing_that_people_do_has_an_example_in_each_language() -> None:
    there = {(e.section, e.language) for e in RUN}
    assert {(section, language) for section in WHOLE for language in LANGUAGES} - there == set()
    assert {e.language for e in examples()} <= LANGUAGES | {"json"}, "a language that nothing runs"


def shell(text: str, reader: Reader) -> None:
    if not shutil.which("curl"):
        pytest.fail("curl is not installed") if os.environ.get("REQUIRE_ALL") else pytest.skip("curl is not installed")
    # an answer that is no 2xx fails, and so does the example
    head = 'set -euo pipefail; curl() { command curl --fail-with-body -sS "$@"; }\n'
    environ = {"PATH": os.environ["PATH"], "URL": reader.url, "KEY": reader.key, **reader.ids}
    done = subprocess.run(
        ["bash", "-c", head + text], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def python(text: str, reader: Reader) -> None:
    values: dict[str, Any] = {
        "resend": resend,
        "mail": {
            "from": "Shop <orders@example.com>",
            "to": ["delivered@simulator.test"],
            "subject": "Your order",
            "text": "It is on its way.",
        },
    }
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, str(PAGE), "exec"), values)


HEAD = """
import { Resend } from 'resend'
const resend = new Resend(process.env.KEY, { baseUrl: process.env.URL })
const mail = { from: 'Shop <orders@example.com>', to: 'delivered@simulator.test', subject: 'Your order', text: 'Sent.' }
const ask = globalThis.fetch
globalThis.fetch = async (...asked) => {
  const answer = await ask(...asked)
  if (!answer.ok) {
    console.error(answer.status, asked[0], await answer.clone().text())
    process.exitCode = 3
  }
  return answer
}
"""


def script(text: str, reader: Reader) -> None:
    if why := missing():
        pytest.fail(why) if os.environ.get("REQUIRE_ALL") else pytest.skip(why)
    environ = {**os.environ, "URL": reader.url, "KEY": reader.key, **reader.ids}
    done = subprocess.run(
        ["node", "--input-type=module", "-"], input=HEAD + text, cwd=SDK, env=environ, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
