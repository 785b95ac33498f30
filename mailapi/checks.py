"""What must be right before the service starts: Django system checks, each with an id and a hint.

    manage.py check --database default        tells all of them
    refuse_to_start()                         for servers and workers: one line and exit code 1 on an error
    python -m mailapi.checks [--database]     the same, of the settings alone where no more is said: `up` asks before it
                                              starts anything, `serve web` before a server of several processes

E001–E009 are about settings alone; E010 and W011 ask the database, and are tagged so.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.db import DatabaseError, connections

from deliveries.mime import verp
from deliveries.routing import static
from mailapi.environment import refusing

#: each off switch turns a 2xx into a promise that a power cut breaks
_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
#: connections that Postgres keeps for itself and that people use beside us (psql, backups)
_SPARE = 5


@checks.register()
def field_keys(**kwargs: Any) -> list[CheckMessage]:
    hint = "Fernet keys, comma-separated; make one with `Fernet.generate_key()` of the package cryptography."
    keys = [k.strip() for k in settings.FIELD_KEYS.split(",") if k.strip()]
    if not keys:
        return [Error("FIELD_KEYS is empty.", hint=hint, id="mailapi.E001")]
    wrong = [i for i, key in enumerate(keys, 1) if not _is_fernet(key)]
    if wrong:
        places = ", ".join(map(str, wrong))
        return [
            Error(f"FIELD_KEYS: key {places} is no Fernet key (32 octets in base64).", hint=hint, id="mailapi.E001")
        ]
    return []


def _is_fernet(key: str) -> bool:
    try:
        Fernet(key)
    except ValueError:
        return False
    return True


@checks.register()
def verp_keys(**kwargs: Any) -> list[CheckMessage]:
    try:
        verp.Keys.parse(settings.VERP_KEYS)
    except ValueError as error:
        return [Error(str(error), hint="VERP_KEYS is 1:<base64 of 32 random octets>.", id="mailapi.E002")]
    return []


@checks.register()
def mail_routes(**kwargs: Any) -> list[CheckMessage]:
    try:
        static.parse(settings.MAIL_ROUTES)
    except ValueError as error:
        return [Error(str(error), hint="docs/operations.md shows MAIL_ROUTES by example.", id="mailapi.E003")]
    return []


@checks.register()
def sandbox(**kwargs: Any) -> list[CheckMessage]:
    if settings.SANDBOX and settings.SANDBOX_SMTP is None:
        hint = "`manage.py up` starts the receiver lab and sets SANDBOX_SMTP; MAIL_ROUTE=mx sends to the Internet."
        return [Error("MAIL_ROUTE=sandbox, but SANDBOX_SMTP names no receiver lab.", hint=hint, id="mailapi.E004")]
    if not settings.SANDBOX and settings.HELO_NAME.endswith(("localhost", "localdomain")):
        # RFC 5321 §4.1.4: a name that resolves; many hosts refuse all others
        hint = "HELO_NAME is the public name of this host, the one its address resolves back to."
        return [Error("MAIL_ROUTE=mx, but HELO_NAME is not a public name.", hint=hint, id="mailapi.E005")]
    return []


@checks.register(Tags.database)
def durable(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """What was answered 2xx is on disk: only with these on."""
    if not databases or "default" not in databases:
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT name FROM pg_settings WHERE name = ANY (%s) AND setting = 'off'", [list(_DURABLE)])
        off = [name for (name,) in cursor.fetchall()]
    return [
        Error(
            f"Postgres runs with {name} = off: accepted mail would be lost in a crash.",
            hint=f"Set {name} = on in postgresql.conf (and for the role and database) and reload.",
            id="mailapi.E010",
        )
        for name in off
    ]


@checks.register(Tags.database)
def enough_connections(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """One host with the processes that `up` starts; more hosts need more."""
    if not databases or "default" not in databases:
        return []
    needed = needed_connections()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT current_setting('max_connections')::int")
        (allowed,) = cursor.fetchone()
    if needed + _SPARE <= allowed:
        return []
    return [
        Warning(
            f"The processes of one host may open {needed} connections; Postgres allows {allowed}.",
            hint="Raise max_connections, or lower WEB_THREADS.",
            id="mailapi.W011",
        )
    ]


def needed_connections() -> int:
    """Web 2 × its threads, deliver 2 × 4, jobs 2 × 2, smtpd 6, beat 1: docs/operations.md has the sum."""
    return 2 * settings.WEB_THREADS + 2 * 4 + 2 * 2 + 6 + 1


def refuse_to_start(database: bool = True) -> None:
    """SystemExit with one line when a setting, or the database, would break a promise; warnings are no reason."""
    found = [message for check in _SETTINGS for message in check()]
    if database and not found:
        tries = _Tries()
        pool = logging.getLogger("psycopg.pool")
        pool.addFilter(tries)
        try:
            found = durable(databases=["default"])
        except DatabaseError as error:
            why = (tries.last or str(error)).strip().partition("\n")[0]
            raise SystemExit(f"mailapi does not start: the database does not answer: {why}") from None
        finally:
            connections["default"].close()
            # its threads would not live on in the children of a prefork worker
            connections["default"].close_pool()  # type: ignore[attr-defined]
            pool.removeFilter(tries)
    if found:
        more = f" (and {len(found) - 1} more; see `manage.py check --database default`)" if len(found) > 1 else ""
        raise SystemExit(f"mailapi does not start: {found[0].msg} {found[0].hint}{more} [{found[0].id}]")


class _Tries(logging.Filter):
    """The pool tells of each of its tries and then only that none went well: the last reason is the answer."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage().partition(": ")[2]
        return False


_SETTINGS = (field_keys, verp_keys, mail_routes, sandbox)


if __name__ == "__main__":
    with refusing():
        refuse_to_start(database=sys.argv[1:] == ["--database"])
