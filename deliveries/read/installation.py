"""What Postgres says of itself where it concerns the promise: whether a confirmed commit outlives a crash."""

from __future__ import annotations

from dataclasses import dataclass

from deliveries.models.sql import execute

#: each of them off makes a 2xx a promise that a power cut breaks
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
_TOLD = (*DURABLE, "wal_sync_method", "data_checksums", "archive_mode", "synchronous_standby_names", "max_connections")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of pg_settings, as this process' session has it. `source` is Postgres' word: default, configuration file …"""

    name: str
    value: str
    source: str
    breaks: bool  #: it breaks the promise


def postgres() -> tuple[str, list[Parameter]]:
    """(version, parameters in the order of the list above)."""
    rows = {
        row["name"]: row
        for row in execute(
            "SELECT name, setting, source FROM pg_settings WHERE name = ANY (%(names)s::text[])",
            {"names": ["server_version", *_TOLD]},
        )
    }
    found = [
        Parameter(name, row["setting"] or "none", row["source"], name in DURABLE and row["setting"] == "off")
        for name in _TOLD
        if (row := rows.get(name))
    ]
    return rows["server_version"]["setting"], found
