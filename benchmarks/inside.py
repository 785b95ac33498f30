"""What needs the service's own models: the sender domain and the webhook endpoint, and the claim over a backlog.

python -m benchmarks.inside prepare DOMAIN WEBHOOK_URL
python -m benchmarks.inside claims ROWS          says the p95 of queue.claim in ms, at ROWS due mails all the time
"""

from __future__ import annotations

import statistics
import sys
import time
from uuid import uuid4

import django

django.setup()

from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from deliveries import endpoints, queue  # noqa: E402
from deliveries.mime import dkim  # noqa: E402
from deliveries.models import DkimKey, SendingDomain, Tenant  # noqa: E402

#: a claim of a deliver process with all its places free
_CLAIM = 200
_CLAIMS = 100
_DESTINATIONS = 100
_TENANTS = 10


@transaction.atomic
def prepare(name: str, url: str) -> None:
    tenant = Tenant.objects.get()
    domain = SendingDomain.objects.create(tenant=tenant, name=name, verified_at=timezone.now())
    private_key, public_key = dkim.generate_key()
    DkimKey.objects.create(domain=domain, selector="bench", private_key=private_key, public_key=public_key)
    endpoints.create(tenant.id, url, ["email.delivered", "email.bounced", "email.complained"], "benchmark")


_FILL = f"""
INSERT INTO queued (delivery_id, lane, destination, tenant_id, due_at, size)
SELECT gen_random_uuid(), 1, 'claim-' || (n %% {_DESTINATIONS}) || '.bench.test',
       md5('tenant ' || (n / {_DESTINATIONS} %% {_TENANTS}))::uuid, now() - make_interval(secs => random() * 3600), 5000
  FROM generate_series(1, %s) AS n
"""
_KNOWN = f"""
INSERT INTO destination (lane, name, next_due, proven)
SELECT 1, 'claim-' || n || '.bench.test', now(), true FROM generate_series(0, {_DESTINATIONS - 1}) AS n
ON CONFLICT DO NOTHING
"""


def claims(rows: int) -> float:
    """Every claim is followed by the end of its mails and the coming of as many new ones."""
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")  # as a deliver process has it
        cursor.execute("TRUNCATE queued")
        cursor.execute("UPDATE destination SET next_due = '3000-01-01Z'")
        cursor.execute("DELETE FROM destination WHERE name LIKE 'claim-%'")
        cursor.execute(_FILL, [rows])
        cursor.execute(_KNOWN)
        cursor.execute("VACUUM ANALYZE queued")
    took = []
    for _ in range(_CLAIMS):
        started = time.perf_counter()
        claim = queue.claim(uuid4(), _CLAIM, queue.MAX_OCTETS, {})
        took.append((time.perf_counter() - started) * 1000)
        assert claim.rows, "nothing was claimed"
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM queued WHERE delivery_id = ANY (%s)", [[r.delivery_id for r in claim.rows]])
            cursor.execute(_FILL, [len(claim.rows)])
            cursor.execute("UPDATE destination SET next_due = now() WHERE name LIKE 'claim-%' AND next_due > now()")
    return statistics.quantiles(took, n=20)[18]


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2], sys.argv[3])
    else:
        print(round(claims(int(sys.argv[2])), 2))
