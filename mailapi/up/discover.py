"""Where the parts of a running `up` are, for every other command; standard library only, read by settings.

Order of use: `environ_from_up(var)` when DATABASE_URL is not set; its values stand in for variables that are unset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .files import SECRETS, UP, is_running, read_json
from .words import Refusal


def environ_from_up(var: Path) -> dict[str, str]:
    """The settings of the `up` that runs on this var folder, as environment variables.

    Empty when none runs, or when its files are not ours to read: settings then says in one line that DATABASE_URL is
    not set and what would set it.
    """
    if not is_running(var):
        return {}
    try:
        up, secrets = read_json(var / UP), read_json(var / SECRETS)
    except Refusal:
        return {}
    return {name: value for name, value in environ_from(up, secrets).items() if value}


def environ_from(up: dict[str, Any], secrets: dict[str, Any]) -> dict[str, str]:
    """up.json and secrets.json as environment variables; empty text for a part that does not exist."""
    smtp, sandbox = up.get("smtp") or {}, up.get("sandbox") or {}
    values = {
        "DATABASE_URL": up.get("database_url"),
        "BROKER_URL": up.get("broker_url"),
        "REDIS_URL": up.get("redis_url"),
        "BASE_URL": up.get("url"),
        "MAIL_ROUTE": up.get("mail_route"),
        "SMTPD_INBOUND": smtp.get("inbound"),
        "SANDBOX_SMTP": sandbox.get("smtp"),
        "SANDBOX_DOMAIN": sandbox.get("domain"),
        "SANDBOX_SPOOL": sandbox.get("spool"),
        "SECRET_KEY": secrets.get("SECRET_KEY"),
        "FIELD_KEYS": secrets.get("FIELD_KEYS"),
        "VERP_KEYS": secrets.get("VERP_KEYS"),
    }
    return {name: str(value) if value else "" for name, value in values.items()}
