"""A person at the panel, without a browser: logged in, and a tenant that can send."""

from __future__ import annotations

from django.test import Client

from deliveries.models import ApiKey, Tenant, User
from tests.fakes import mail


def login(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def sending(domain: str) -> Tenant:
    """A tenant with a verified domain and an API key."""
    own = mail.tenant("Shop")
    mail.domain(own, domain)
    ApiKey.objects.create(tenant=own, name="web", prefix="re_1", secret_hash=b"h" * 32)
    return own
