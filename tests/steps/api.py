"""A tenant per test, with a verified domain and a key, and a client that speaks for it."""

import json
from datetime import UTC, datetime
from uuid import uuid4

from django.test import Client as DjangoClient

from deliveries import keys, templating
from deliveries.models import Message, MessageContent, SendingDomain, Tenant


def make_tenant():
    return Tenant.objects.create(name=f"tenant {uuid4()}")


class Client:
    def __init__(self, tenant, secret=None, domain=None):
        self.tenant = tenant
        self.http = DjangoClient(raise_request_exception=True)
        self.domain = domain or f"{uuid4().hex[:12]}.example.com"
        if domain is None:
            SendingDomain.objects.create(tenant=tenant, name=self.domain, verified_at=datetime.now(UTC))
        self.secret = secret or keys.create(tenant, "test")[1]

    def mail(self, **fields):
        return {
            "from": f"orders@{self.domain}",
            "to": "delivered@simulator.test",
            "subject": "Hello",
            "text": "Hello",
            **fields,
        }

    def send(self, http=None, **fields):
        return self.post("/emails", self.mail(**fields), **(http or {}))

    def post(self, path, body, **extra):
        return self.raw(path, json.dumps(body).encode(), **extra)

    def raw(self, path, octets, **extra):
        headers = {"HTTP_AUTHORIZATION": f"Bearer {self.secret}", **extra}
        return self.http.post(path, octets, content_type="application/json", **headers)

    def get(self, path):
        return self.http.get(path, HTTP_AUTHORIZATION=f"Bearer {self.secret}")

    def patch(self, path, body=None):
        octets = json.dumps(body or {}).encode()
        return self.http.patch(
            path, octets, content_type="application/json", HTTP_AUTHORIZATION=f"Bearer {self.secret}"
        )

    def delete(self, path):
        return self.http.delete(path, HTTP_AUTHORIZATION=f"Bearer {self.secret}")


def template(client, alias, language, published=True, **parts):
    given = {"subject": "Order {{n}}", "html": "<p>Hi {{name}}</p>", "text": "Hi {{name}}", **parts}
    row = templating.create(client.tenant.id, alias, alias, given | {"language": language}, "test")
    if published:
        templating.publish(client.tenant.id, str(row.id), "test")
    return row


def texts(client):
    """(subject, text) of every mail, in the order of their acceptance."""
    rows = Message.objects.filter(tenant_id=client.tenant.id).order_by("id")
    return [(m.subject, MessageContent.objects.get(id=m.id).text) for m in rows]


def message_count(client):
    return Message.objects.filter(tenant_id=client.tenant.id).count()
