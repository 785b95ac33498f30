"""manage.py switch_check against a real web process."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from deliveries.models import ApiKey, Message

pytestmark = pytest.mark.django_db(transaction=True)


def run(server, key, provider):
    out = StringIO()
    try:
        call_command("switch_check", provider=provider, key=key, url=server, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


@pytest.mark.parametrize("provider", ["postmark", "sendgrid", "mailgun", "resend"])
def test_all_that_a_provider_s_clients_send_works_and_is_told_line_by_line(server, account, provider):
    told, error = run(server, account.secret, provider)
    assert error == "" and "FAILS" not in told, told
    assert told.count(" works") > 10 and "All " in told
    assert Message.objects.filter(tenant=account.tenant).count() >= 5
    if provider == "postmark":
        assert "without effect: TrackOpens" in told


def test_a_key_that_may_only_send_is_told_what_does_not_work(server, account):
    ApiKey.objects.filter(tenant=account.tenant).update(scope=ApiKey.Scope.SENDING)
    told, error = run(server, account.secret, "postmark")
    assert "4 of 14 do not work" in error and told.count("FAILS") == 4


def test_an_unknown_key_and_a_silent_host_are_said_in_one_line(server, account):
    assert "unknown" in run(server, "nobody", "postmark")[1]
    assert "does not answer" in run("http://127.0.0.1:1", account.secret, "postmark")[1]
