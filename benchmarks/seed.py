"""A month of mail in the tables, by COPY, and how fast the panel's pages are over it.

    python benchmarks/seed.py --messages 1000000            load (three events a message), tally, measure, forget
    python benchmarks/seed.py --messages 100000 --keep      load into DATABASE_URL (or `up`'s) and leave it there
    python benchmarks/seed.py --again                       tally and measure what was left there

Without --keep and --again a Postgres of its own is started and thrown away. What is loaded is what the service would
have written: messages, contents, deliveries, attempts with their conversations, events, queue rows of what still waits.
The hours of the first page are made from the events by the service's own tally. Pages are asked of the real panel, in
this process, as the operator and as a member; each statement that they run is explained, with what it touches; a
sequential scan of a big table is told. Processor time (this process', Postgres') and pages of 8 KB touched do not
depend on who else works.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DAYS = 30
TENANTS = 5
CHUNK = 20_000
ROUNDS = 15
BIG = re.compile(r"^(message|message_content|delivery|attempt|event|queued|webhook_delivery)(_\d{4}_\d\d|_default)?$")
#: status, share, category, rule, code, reply
OUTCOMES = (
    ("delivered", 0.93, "", "accepted", 250, "250 2.0.0 OK queued as 4F2A"),
    ("bounced", 0.03, "bad_mailbox", "unknown-user", 550, "550 5.1.1 No such user here"),
    ("deferred", 0.02, "greylisted", "greylisting", 451, "451 4.7.1 Greylisted, come back later"),
    ("expired", 0.01, "mailbox_full", "mailbox-full", 452, "452 4.2.2 Mailbox is full"),
    ("suppressed", 0.01, "", "", 0, ""),
)
EVENT = {"delivered": "email.delivered", "bounced": "email.bounced", "deferred": "email.delivery_delayed",
         "expired": "email.expired", "suppressed": "email.suppressed"}  # fmt: skip
SITES = [f"mx{n}.example" for n in range(200)]
WORDS = "your order receipt invoice password reset welcome confirmation shipping reminder account statement".split()
TALK = "\\n".join([
    "0 *: connecting to 192.0.2.25:25", "12 S: 220 mx.example ESMTP", "12 C: EHLO mail.example.org",
    "24 S: 250-mx.example", "25 C: STARTTLS", "37 S: 220 go ahead", "58 *: TLSv1.3 TLS_AES_256_GCM_SHA384",
    "59 C: MAIL FROM:<b-x@bounce.example.org>", "59 C: RCPT TO:<someone@example.net>", "59 C: DATA", "71 S: 250 ok",
])  # fmt: skip
COLUMNS = {
    "message": "id tenant_id domain_id message_id from_header to cc bcc reply_to subject tags metadata stream lane "
               "size attachment_count created_at",
    "message_content": "id html text headers",
    "delivery": "id message_id tenant_id position field recipient status reason category rule enhanced reply host "
                "attempts unknowns late duplicate_possible created_at expires_at next_attempt_at settled_at events",
    "attempt": "id delivery_id tenant_id number host address port tls started_at finished_at stage status category "
               "rule code enhanced reply transcript",
    "event": "id tenant_id type message_id delivery_id place recipient data created_at",
    "queued": "delivery_id lane destination tenant_id due_at size",
}  # fmt: skip


def uuid_at(ms: int) -> str:
    return str(UUID(int=ms << 80 | 7 << 76 | random.getrandbits(12) << 64 | 2 << 62 | random.getrandbits(62)))


class Owner:
    def __init__(self, n: int) -> None:
        from deliveries.models import Tenant, User
        from tests.fakes import mail

        if (row := Tenant.objects.filter(name=f"Tenant {n}").first()) is not None:
            self.row, self.domain = row, row.domains.get()
            self.member = User.objects.get(username=f"member{n}")
            return
        self.row = mail.tenant(f"Tenant {n}")
        self.domain = mail.domain(self.row, f"shop{n}.example")
        self.member = mail.person(f"member{n}", self.row, role="developer")


def rows(owners: list[Owner], messages: int, start_ms: int, step_ms: float) -> Iterator[dict[str, list[str]]]:
    """Chunks of lines in COPY's text form, by table; three events a message."""
    names, weights = [o[0] for o in OUTCOMES], [o[1] for o in OUTCOMES]
    by_name = {o[0]: o for o in OUTCOMES}
    later = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    made: dict[str, list[str]] = {table: [] for table in COLUMNS}
    for n in range(messages):
        ms = int(start_ms + n * step_ms)
        at = datetime.fromtimestamp(ms / 1000, UTC)
        took = random.expovariate(1 / 3)
        then = (at + timedelta(seconds=took)).isoformat()
        owner = owners[min(int(random.expovariate(1.0)), len(owners) - 1)]
        status = random.choices(names, weights)[0]
        _, _, category, rule, code, reply = by_name[status]
        site = SITES[min(int(random.expovariate(0.05)), len(SITES) - 1)]
        recipient = f"user{random.randrange(messages // 2 + 1)}@{site}"
        mid, did, tenant = uuid_at(ms), uuid_at(ms), str(owner.row.id)
        subject = f"{' '.join(random.sample(WORDS, 3))} {n}"
        # one tag of few mails, and one of many
        tags = f'[{{"name": "campaign", "value": "c{n % 5000}"}}]' if n % 10 == 0 else "[]"
        tags = '[{"name": "kind", "value": "order"}]' if n % 10 in (1, 2, 3) else tags
        iso = at.isoformat()
        made["message"].append("\t".join([
            mid, tenant, str(owner.domain.id), f"{mid.replace('-', '')}@{owner.domain.name}",
            f"Shop <hello@{owner.domain.name}>", f'["{recipient}"]', "[]", "[]", "[]", subject, tags, "{}",
            "transactional", "1", "2048", "0", iso,
        ]))  # fmt: skip
        made["message_content"].append("\t".join([mid, f"<h1>{subject}</h1>" + "<p>Thank you for it.</p>" * 12,
                                                  f"{subject}: thank you.", "[]"]))  # fmt: skip
        waits = status == "deferred"
        made["delivery"].append("\t".join([
            did, mid, tenant, "0", "to", recipient, status, f"{site} said so.", category, rule, "", reply,
            f"mx1.{site}",
            "1" if code else "0", "0", "f", "f", iso, (at + timedelta(days=4)).isoformat(), later if waits else "\\N",
            "\\N" if waits else then, "3",
        ]))  # fmt: skip
        if waits:
            made["queued"].append("\t".join([did, "1", site, tenant, later, "2048"]))
        if code:
            verdict = "deferred" if status == "expired" else status
            made["attempt"].append("\t".join([
                uuid_at(ms + 1), did, tenant, "1", f"mx1.{site}", "192.0.2.25", "25",
                "TLSv1.3 TLS_AES_256_GCM_SHA384, verified", iso, then, "dot", verdict, category, rule, str(code), "",
                reply, TALK,
            ]))  # fmt: skip
        for place, kind in enumerate(("email.sent", "email.queued", EVENT[status]), 1):
            when = then if place == 3 else iso
            data = f'{{"reply": "{reply}", "attempt": 1}}' if place == 3 else "{}"
            made["event"].append("\t".join([uuid_at(ms + place), tenant, kind, mid, did, str(place), recipient, data,
                                            when]))  # fmt: skip
        if len(made["message"]) == CHUNK:
            yield made
            made = {table: [] for table in COLUMNS}
    yield made


def load(messages: int, age_days: int = 0) -> list[Owner]:
    """A month of mail that ended `age_days` ago."""
    from django.db import connection

    owners = [Owner(n) for n in range(TENANTS)]
    span_ms = DAYS * 86_400_000
    start_ms = int(time.time() * 1000) - span_ms - age_days * 86_400_000
    began = time.monotonic()
    done = 0
    for chunk in rows(owners, messages, start_ms, span_ms / messages):
        with connection.cursor() as cursor:
            for table, lines in chunk.items():
                columns = ", ".join(f'"{c}"' for c in COLUMNS[table].split())
                with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                    copy.write("".join(f"{line}\n" for line in lines))
        done += len(chunk["message"])
        print(f"\r{done:,} messages", end="", file=sys.stderr)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO destination (lane, name, next_due, proven) "
            "SELECT lane, destination, min(due_at), true FROM queued GROUP BY 1, 2 ON CONFLICT DO NOTHING"
        )
        cursor.execute("ANALYZE")
    print(f"\n{messages:,} messages, {3 * messages:,} events in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return owners


def tally() -> float:
    from deliveries.record import figures

    began = time.monotonic()
    while figures.tally():
        if time.monotonic() - began > 1200:
            raise SystemExit("the tally does not come to its end")
        if datetime.now(UTC) - _mark() < timedelta(seconds=10):
            break
    return time.monotonic() - began


def _mark() -> datetime:
    from deliveries.models import TallyMark

    return TallyMark.objects.get().until


class Asked:
    """Every statement of a request, Django's and the prepared ones, as it was sent."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Any, bool]] = []

    def __enter__(self) -> Asked:
        import psycopg
        from django.db import connection

        self._raw = psycopg.RawCursor.execute

        def raw(cursor: Any, query: Any, params: Any = None, **more: Any) -> Any:
            self.statements.append((query, params, True))
            return self._raw(cursor, query, params, **more)

        def plain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            self.statements.append((sql, params, False))
            return execute(sql, params, many, context)

        psycopg.RawCursor.execute = raw  # type: ignore[method-assign,assignment]
        self._wrapper = connection.execute_wrapper(plain)
        self._wrapper.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        import psycopg

        psycopg.RawCursor.execute = self._raw  # type: ignore[method-assign]
        self._wrapper.__exit__(*exc)


def explained(statements: list[tuple[str, Any, bool]]) -> tuple[list[str], int]:
    """Big tables that a statement reads from end to end, and how many rows are expected; pages that all touch."""
    import psycopg
    from django.db import connection

    found, touched = [], 0
    with connection.cursor() as cursor:  # months to come are empty, and read in no time however
        cursor.execute("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND reltuples > 1000")
        big = {name for (name,) in cursor.fetchall() if BIG.match(name)}
    for sql, params, raw in statements:
        if not sql.lstrip().upper().startswith(("SELECT", "WITH")) or "INSERT INTO" in sql:
            continue
        if raw:
            cursor: Any = psycopg.RawCursor(connection.connection)
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}", params)
            plan = cursor.fetchone()[0]
        else:
            with connection.cursor() as plain:
                plain.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}", params)
                plan = plain.fetchone()[0]
        plan = json.loads(plan) if isinstance(plan, str) else plan
        top = plan[0]["Plan"]
        touched += top["Shared Hit Blocks"] + top["Shared Read Blocks"]
        stack = [top]
        while stack:
            node = stack.pop()
            stack += node.get("Plans", [])
            if node["Node Type"] == "Seq Scan" and node.get("Relation Name") in big:
                found.append(f"{node['Relation Name']} ({node['Plan Rows']} rows): {' '.join(sql.split())[:150]}")
    return found, touched


def pages(owners: list[Owner]) -> dict[str, str]:
    """What is asked, by name."""
    from deliveries.models import Delivery, Message

    newest = Message.objects.filter(tenant=owners[0].row).order_by("-id")
    some = newest[500]
    bounced = Delivery.objects.filter(tenant=owners[0].row, status="bounced").order_by("-id")[3]
    to = Delivery.objects.filter(message=some).get().recipient
    base = "/admin/deliveries/message/"
    number = some.subject.split()[-1]
    return {
        "home, 24 hours": "/admin/",
        "home, 30 days": "/admin/?span=month",
        "list": base,
        "list, a page deep inside": f"{base}?after={newest[3000].id}",
        "list, bounced": f"{base}?status=bounced",
        "list, a category": f"{base}?category=greylisted&period=week",
        "search by recipient": f"{base}?q={to}",
        "search by the beginning of a recipient": f"{base}?q=user12@",
        "search by common subject words": f"{base}?q=invoice+reminder",
        "search by a rare subject word": f"{base}?q=subject:{number}",
        "search by tag": f"{base}?q=tag:c4990",
        "search by a common tag": f"{base}?q=tag:order",
        "search by sender": f"{base}?q=from:hello@",
        "search by a sender's domain and own recipient": f"{base}?q=from:@shop0+to:{to}",
        "search by a sender whom nobody knows": f"{base}?q=from:nobody@nowhere",
        "search by Message-ID": f"{base}?q={some.message_id}",
        "a message": f"{base}{bounced.message_id}/change/",
        "queue": "/admin/queue/",
    }


def postgres_ms() -> float:
    """Processor time of the sessions of this database so far; 0 where they are on another host."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        files = [Path(f"/proc/{pid}/schedstat") for (pid,) in cursor.fetchall()]
    return sum(int(f.read_text().split()[0]) for f in files if f.exists()) / 1e6


def measure(owners: list[Owner], only: str) -> dict[str, dict[str, Any]]:
    from django.test import Client

    from deliveries.models import User
    from tests.fakes import mail

    operator = User.objects.filter(username="seed-operator").first() or mail.person("seed-operator", operator=True)
    people = {"operator": operator, "member": owners[0].member}
    told: dict[str, dict[str, Any]] = {}
    for who, person in people.items():
        client = Client(HTTP_HOST="localhost")
        client.force_login(person)
        for name, address in pages(owners).items():
            if only not in name or (name == "queue" and who == "member"):
                continue
            took, worked, asked_of = [], [], []
            for n in range(ROUNDS + 1):
                before, began, busy = postgres_ms(), time.perf_counter(), time.process_time()
                answer = client.get(address)
                if n:  # the first one compiles templates
                    took.append((time.perf_counter() - began) * 1000)
                    worked.append((time.process_time() - busy) * 1000)
                    asked_of.append(postgres_ms() - before)
                assert answer.status_code == 200, (name, answer.status_code)
            with Asked() as asked:
                client.get(address)
            counts = [s for s, _, _ in asked.statements if re.search(r"SELECT COUNT\(\*\) AS", s)]
            found, touched = explained(asked.statements)
            told[f"{name} ({who})"] = {
                "median_ms": round(statistics.median(took), 1),
                "worst_ms": round(max(took), 1),
                "cpu_ms": round(statistics.median(worked), 1),
                "postgres_ms": round(statistics.median(asked_of), 1),
                "pages": touched,
                "statements": len(asked.statements),
                "scans": found,
                "unbounded_counts": [c for c in counts if "LIMIT" not in c],
            }
            line = told[f"{name} ({who})"]
            print(f"{line['median_ms']:8.1f} ms  {line['worst_ms']:8.1f} worst  {line['cpu_ms']:6.1f} cpu  "
                  f"{line['postgres_ms']:6.1f} Postgres  "
                  f"{line['pages']:6} pages  {line['statements']:3} statements  {name} ({who})",
                  *(f"\n    SCAN {s}" for s in found), flush=True)  # fmt: skip
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--only", default="", help="pages whose name holds this")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure what --keep left in DATABASE_URL")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    random.seed(7)
    stack = None
    if not (options.keep or options.again):
        from tests.fakes.stack import Stack

        stack = Stack()
        os.environ |= stack.environ()
        stack.start()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")
    try:
        import django
        from django.core.management import call_command

        django.setup()
        if stack:
            call_command("migrate", verbosity=0)
        owners = [Owner(n) for n in range(TENANTS)] if options.again else load(options.messages)
        if not options.keep:
            print(f"tally: {tally():.1f} s", file=sys.stderr)
            told = measure(owners, options.only)
            if options.json:
                options.json.write_text(json.dumps(told, indent=1))
    finally:
        if stack:
            stack.stop()


if __name__ == "__main__":
    main()
