"""How a line of the log looks: text for people, or with LOG_FORMAT=json one object a line, which any collector reads.

Every process uses it, granian's and Celery's own lines included (granian.json, settings.LOGGING). An object has

    time (RFC 3339, UTC), level, role, host, pid, event, message, and the ids that are known:
    tenant, key, message_id, recipients, delivery_id, inbound_id, endpoint_id, request_id; exception

`event` is stable: what the caller named with `extra={"event": …}`, else the function that wrote the line. Ids come by
`extra` too; a line that is written while a request is answered has that request's id, tenant and key (its first
characters) by itself.

From INFO up no line tells what is secret or personal: addresses lose their local part, keys of ours everything. No
Django here, since granian's first process has none.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

#: the request that this thread answers (mailapi.errors.RequestId); asked for its ids only where a line is written
request: ContextVar[Any] = ContextVar("request", default=None)

IDS = ("tenant", "key", "message_id", "recipients", "delivery_id", "inbound_id", "endpoint_id", "request_id")
_HOST = socket.gethostname()
#: a local part, also a quoted one or the user of a URL; a key of the API
_ADDRESS = re.compile(r'(?:"[^"\n]*"|[^\s<>()\[\]",;:@]+)@(?=[\w\[])')
_KEY = re.compile(r"\bre_[A-Za-z0-9_-]{8,}")
#: between two lines about what strangers bring about, and how much of its text
_SELDOM_S = 60.0
_SELDOM_CHARS = 300


def masked(text: str) -> str:
    return _KEY.sub("re_…", _ADDRESS.sub("…@", text))


class Line(logging.Formatter):
    """For people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.INFO:
            text = masked(text)
        found = _ids(record)
        return f"{text} [request {found['request_id']}]" if "request_id" in found else text


class Json(logging.Formatter):
    """For programs; ASCII, so that no collector cuts a line at a strange character."""

    def format(self, record: logging.LogRecord) -> str:
        clean = masked if record.levelno >= logging.INFO else str
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "role": os.environ.get("MAILAPI_ROLE") or "command",
            "host": _HOST,
            "pid": record.process,
            "event": getattr(record, "event", None) or f"{record.name}.{record.funcName}",
            "message": clean(record.getMessage()),
            **_ids(record),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = clean(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = clean(record.stack_info)
        return json.dumps(line, default=str)


class Seldom(logging.Filter):
    """What any stranger can bring about, a foreign Host for one: a line a minute of each kind, without the traceback
    that Django adds, and with how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = record.name, time.monotonic()
        if now - self._said.get(kind, -_SELDOM_S) < _SELDOM_S:
            self._unsaid[kind] += 1
            return False
        self._said[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        more = f" (and {unsaid} others since the line before)" if unsaid else ""
        record.msg, record.args = record.getMessage()[:_SELDOM_CHARS] + more, ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def _ids(record: logging.LogRecord) -> dict[str, str]:
    found = {name: str(value) for name in IDS if (value := getattr(record, name, None)) is not None}
    if (asked := request.get()) is not None:
        found.setdefault("request_id", asked.request_id)
        # the caller of a key; the panel's user is looked up when it is asked for, which a line of the log must not do
        if _is_caller(asked):
            caller = vars(asked)["user"]
            found.setdefault("tenant", str(caller.tenant_id))
            found.setdefault("key", caller.prefix)
    return found


def _is_caller(asked: Any) -> bool:
    return type(vars(asked).get("user")).__name__ == "Caller"


def formatter() -> logging.Formatter:
    """By LOG_FORMAT; the settings refuse what it cannot be."""
    return Json() if os.environ.get("LOG_FORMAT") == "json" else Line()


def say(message: str, f: Any = None) -> None:
    """What Celery says in a signal handler (celery.apps.worker.safe_say); a stream may not be entered twice."""
    record = logging.getLogger("celery").makeRecord("celery", logging.INFO, "", 0, message.strip(), (), None, "worker")
    os.write(2, f"{formatter().format(record)}\n".encode())


def tell_all() -> None:
    """What Python itself would print, as lines of the log: warnings, and exceptions that nobody took."""
    logging.captureWarnings(True)
    sys.excepthook = _unhandled
    threading.excepthook = lambda hook: _unhandled(hook.exc_type, hook.exc_value, hook.exc_traceback)


def _unhandled(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit) or error is None:
        return
    logging.getLogger("mailapi").critical("nobody took this exception", exc_info=(kind, error, trace))
