"""Reports to senders who asked for them over SMTP (RFC 3461): an ordinary mail of ours with the null reverse-path.

    what is due (report_request) → what became of the delivery → a report (mime.notification) → accept()

The mail and the note that it was told are one commit, so that each report is sent once. We hand mail to hosts without
asking them for reports, so that success is told as "relayed" (RFC 3461 §5.2.2). Nobody is told of a mail that the
sender canceled, or of one of which nobody knows whether it arrived.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction

from deliveries.accept import accept, of_raw
from deliveries.errors import BadInput, KeyRefused, MailapiError
from deliveries.mime import raw
from deliveries.mime.address import parse_address
from deliveries.mime.notification import Notification, notification
from deliveries.models import ApiKey
from deliveries.models.asked import Notify
from deliveries.models.sql import execute
from deliveries.states import Status

log = logging.getLogger(__name__)

STREAM = "reports"
#: of one run; the next comes a few seconds later
_RUN_S = 40.0
#: a late bounce may still come for so long after a 2xx
_LATE = timedelta(days=5)

_FAILED = frozenset({Status.BOUNCED, Status.FAILED, Status.EXPIRED, Status.SUPPRESSED})
#: RFC 3463, where the receiver gave no code of its own
_STATUS = {Status.EXPIRED: "5.4.7", Status.SUPPRESSED: "5.7.1"}


def run() -> int:
    """Look at what is due; how many reports were sent."""
    sent = 0
    end = time.monotonic() + _RUN_S
    while time.monotonic() < end:
        with transaction.atomic():
            row = execute(_DUE).fetchone()
            if row is None:
                break
            sent += _look(row)
    return sent


def _look(row: dict[str, Any]) -> bool:
    """Tell what is to be told of one delivery, and decide when it is looked at again; whether a report was sent."""
    bit = _wanted(row)
    told = row["told"]
    if bit is not None:
        try:
            with transaction.atomic():  # what Postgres refuses must not take the row's lock along
                _send(row, bit)
        except KeyRefused as error:
            log.warning("no report, as no key of the account may send: %s", error, extra=_ids(row))
        except MailapiError as error:  # over its quota, suspended, or a domain that was given up
            log.warning("no report yet: %s", error, extra=_ids(row))
            return _not_yet(row)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            # a bug of ours with one mail: what is due after it is told all the same
            log.exception("no report, an internal error came up", extra=_ids(row))
            return _not_yet(row)
        told |= bit
    if _over(row, told):
        execute("DELETE FROM report_request WHERE delivery_id = %(id)s", {"id": row["delivery_id"]})
    else:
        execute(_LATER, {"id": row["delivery_id"], "told": told})
    return bit is not None


def _not_yet(row: dict[str, Any]) -> bool:
    """Asked again, but not for ever."""
    if row["settled_at"] is not None and row["now"] - row["settled_at"] > _LATE:
        log.warning("a report is given up", extra=_ids(row))
        execute("DELETE FROM report_request WHERE delivery_id = %(id)s", {"id": row["delivery_id"]})
    else:
        execute(_LATER, {"id": row["delivery_id"], "told": row["told"]})
    return False


def _ids(row: dict[str, Any]) -> dict[str, Any]:
    return {"event": "report.not_sent", "delivery_id": row["delivery_id"]}


def _wanted(row: dict[str, Any]) -> Notify | None:
    """What is asked for, has happened, and was not told yet."""
    open_ = row["notify"] & ~row["told"]
    status = row["status"]
    if open_ & Notify.FAILURE and status in _FAILED:
        return Notify.FAILURE
    if open_ & Notify.SUCCESS and status == Status.DELIVERED:
        return Notify.SUCCESS
    late = row["now"] - row["created_at"] >= timedelta(seconds=settings.DSN_DELAY_S)
    if open_ & Notify.DELAY and status == Status.DEFERRED and late:
        return Notify.DELAY
    return None


def _over(row: dict[str, Any], told: int) -> bool:
    if row["status"] is None:  # retention took the delivery
        return True
    if row["settled_at"] is None:
        return False
    waits_for_a_late_bounce = row["status"] == Status.DELIVERED and row["notify"] & ~told & Notify.FAILURE
    return not waits_for_a_late_bounce or row["now"] - row["settled_at"] > _LATE


def _send(row: dict[str, Any], bit: Notify) -> None:
    if row["domain"] is None:
        raise KeyRefused("domain_removed", "The domain that sent the mail was removed.", 403)
    action = {Notify.FAILURE: "failed", Notify.SUCCESS: "relayed", Notify.DELAY: "delayed"}[bit]
    usual = {"failed": _STATUS.get(row["status"], "5.0.0"), "relayed": "2.0.0", "delayed": "4.0.0"}[action]
    # the code is the receiver's only where it says the same as the action
    status = row["enhanced"] if row["enhanced"][:1] == usual[:1] else usual
    told = Notification(
        delivery_id=row["delivery_id"],
        sender=f"mailer-daemon@{row['domain']}",
        to=row["return_to"],
        reporting_host=settings.HELO_NAME,
        at=datetime.now(UTC),
        arrived=row["created_at"],
        recipient=row["recipient"],
        action=action,
        status=status,
        reply=row["reply"] or (row["reason"] if action == "failed" else ""),
        remote_host=row["host"],
        until=row["expires_at"] if action == "delayed" else None,
        envid=row["envid"],
        orcpt=row["orcpt"],
        original=bytes(row["raw"] or b""),
        whole=row["whole"] and action == "failed",
    )
    draft = of_raw(_readable(told), [parse_address(row["return_to"])], stream=STREAM)
    accept(_key(row), [draft])


def _readable(told: Notification) -> raw.Raw:
    """With as much of the mail as was asked for, and as a mail of ours may hold: a report around one that is nested as
    deep as is let in would be nested deeper. RFC 3464 §2: what is returned of it is optional."""
    for less in (told, replace(told, whole=False)):
        try:
            return raw.read(notification(less))
        except BadInput as error:
            log.info("a report with less of its mail: %s", error)
    return raw.read(notification(replace(told, original=b"")))


def _key(row: dict[str, Any]) -> bytes:
    """The hash of the key that sent the mail, or of another of the account where that one is over."""
    hashes = execute(_KEYS, {"tenant": row["tenant_id"], "key": row["api_key_id"]}).fetchone()
    if hashes is None:
        raise KeyRefused("invalid_api_key", "The account has no key that may send.", 403)
    return bytes(hashes["secret_hash"])


_DUE = """
SELECT r.*, now() AS now, d.status, d.recipient, d.enhanced, d.reply, d.reason, d.host, d.expires_at, d.settled_at,
       m.api_key_id, o.name AS domain, c.raw
  FROM report_request r
  LEFT JOIN delivery d ON d.id = r.delivery_id
  LEFT JOIN message m ON m.id = r.message_id
  LEFT JOIN sending_domain o ON o.id = m.domain_id
  LEFT JOIN message_content c ON c.id = r.message_id
 WHERE r.due_at <= now()
 ORDER BY r.due_at LIMIT 1
   FOR UPDATE OF r SKIP LOCKED
"""

# soon at first, then less and less often: a delivery that waits for days is not asked about every second
_LATER = """
UPDATE report_request
   SET told = %(told)s::smallint,
       due_at = now() + least(greatest((now() - created_at) / 4, interval '2 seconds'), interval '10 minutes')
 WHERE delivery_id = %(id)s
"""

_KEYS = f"""
SELECT secret_hash FROM api_key
 WHERE tenant_id = %(tenant)s AND revoked_at IS NULL AND suspended_at IS NULL AND scope <> '{ApiKey.Scope.READING}'
   AND (expires_at IS NULL OR expires_at > now())
 ORDER BY id = %(key)s::uuid DESC, id LIMIT 1
"""
