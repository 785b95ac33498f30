import pytest

from tests.fakes.web import web
from tests.steps.api import Client, make_tenant


@pytest.fixture(scope="module")
def server(django_db_setup, django_db_blocker, tmp_path_factory):
    """The URL of a web process that the tests of a module share; tests differ by their tenants."""
    with django_db_blocker.unblock(), web(tmp_path_factory.mktemp("web")) as url:
        yield url


@pytest.fixture
def account(transactional_db, server):
    """A tenant with a verified domain and a key."""
    return Client(make_tenant())
