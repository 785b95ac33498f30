"""The OpenAPI is true: schemathesis asks every endpoint for what it describes and for what it does not.

`SCHEMATHESIS_EXAMPLES` says how many requests for each operation (default 12), `SCHEMATHESIS_RUNS` how many stateful
runs (default 15); larger numbers go before a release.
"""

import os
from collections import Counter
from contextlib import suppress

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky
from schemathesis.specs.openapi import checks as openapi_checks

from deliveries import operators
from deliveries.management.commands.seed import SENDER_DOMAIN
from deliveries.models import SendingDomain
from mailapi import auth
from mailapi.schemas.openapi import document
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12"))
RUNS = int(os.environ.get("SCHEMATHESIS_RUNS", "15"))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
#: answers 503 here: nothing delivers
NOT_ASKED = {"/health/ready"}
QUIET = {
    "deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "derandomize": True,
    "phases": [Phase.explicit, Phase.generate],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_limit(settings):
    settings.RATE_LIMIT = 0
    auth.forget()


def schema():
    found = schemathesis.openapi.from_dict(document())
    found.app = get_wsgi_application()
    return found


def operations():
    return [result.ok() for result in schema().get_all_operations() if result.ok().path not in NOT_ASKED]


@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without"])
def test_every_operation_answers_as_described(keyed):
    client = Client(make_tenant())
    operator = operators.create("all", "full_access", "test")[1]
    wrong = {}
    for operation in operations():
        secret = operator if operation.path.startswith("/tenants") else client.secret
        headers = {"Authorization": f"Bearer {secret}"} if keyed else {}
        try:
            _ask(operation, headers, EXAMPLES if keyed else 2)
        except Exception as failure:  # all of them are told, not only the first
            wrong[operation.label] = str(failure)
    assert not wrong, "\n\n".join(f"{label}: {why}" for label, why in wrong.items())


def _ask(operation, headers, examples):
    positive, negative = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE

    @settings(max_examples=examples, **QUIET)
    @given(operation.as_strategy(generation_mode=positive) | operation.as_strategy(generation_mode=negative))
    def ask(case):
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS)
        assert headers or response.status_code in (200, 401, 403, 404, 405)

    ask()


def test_what_one_answer_gives_the_next_request_takes():
    """Each run has a tenant of its own. What a run finds is told at the end: to hypothesis, which plays runs again,
    a server that remembers looks like a test that changes."""
    asked, wrong = Counter(), []

    class Machine(schema().exclude(path=sorted(NOT_ASKED)).as_state_machine()):
        def setup(self):
            self.client = Client(make_tenant())
            self.operator = operators.create("all", "full_access", "test")[1]

        def get_call_kwargs(self, case):
            secret = self.operator if case.operation.path.startswith("/tenants") else self.client.secret
            return {"headers": {"Authorization": f"Bearer {secret}"}}

        def validate_response(self, response, case, **kwargs):
            asked[case.operation.label] += 1
            try:
                case.validate_response(response, checks=CHECKS)
            except Exception as failure:
                wrong.append(f"{case.operation.label}: {failure}")

    for _ in range(5):
        with suppress(Flaky, AssertionError):  # both are said of a run that is played again and goes another way
            Machine.run(settings=settings(max_examples=RUNS, stateful_step_count=8, **QUIET))
        if asked.total() >= 2 * RUNS:
            break
    assert not wrong, "\n\n".join(wrong)
    assert asked.total() >= 2 * RUNS and len(asked) >= min(RUNS, 10), asked


def test_every_example_of_the_docs_is_taken_as_it_stands():
    client = Client(make_tenant())
    SendingDomain.objects.create(tenant=client.tenant, name=SENDER_DOMAIN, verified_at=timezone.now())
    # a template is there and published before others speak of it
    order = sorted(document()["paths"].items(), key=lambda item: (not item[0].startswith("/templates"), len(item[0])))
    taken = 0
    for path, methods in order:
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            answer = client.post(path.replace("{template_id}", "receipt"), example["value"])
            assert answer.status_code in (200, 201), f"{path}, {name}: {answer.content}"
            taken += 1
        if path == "/templates":
            assert client.post("/templates/receipt/publish", {}).status_code == 200
    assert taken >= 4
