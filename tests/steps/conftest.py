import pytest

from deliveries import queue
from mailapi import auth
from tests.steps.api import Client, make_tenant


@pytest.fixture(autouse=True)
def _no_bell(monkeypatch):
    """What is due is asked for by the tests themselves; nobody is to be woken."""
    monkeypatch.setattr(queue.bell, "ring", lambda ids=(): None)


@pytest.fixture
def api(db):
    """A tenant of this test alone."""
    auth.forget()
    return Client(make_tenant())
