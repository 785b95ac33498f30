"""The first login and key of an installation."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from deliveries import keys
from deliveries.models import User

pytestmark = pytest.mark.django_db


def test_a_first_start_without_secrets_makes_them_up_and_shows_them_once() -> None:
    said = StringIO()
    call_command("seed", stdout=said)
    told = json.loads(said.getvalue())
    assert keys.find(told["api_key"]) is not None
    assert User.objects.get(username=told["admin"]["username"]).check_password(told["admin"]["password"])
    with pytest.raises(CommandError, match="first start"):
        call_command("seed", stdout=StringIO())
