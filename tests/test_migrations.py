"""Each migration runs beside the code of the version before: expand in one release, contract in a later one.

The code of before names its columns in every INSERT and reads what it always read, so nothing may go, be renamed or be
demanded in the release that stops to use it; and no big table is locked for longer than a moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED

#: up to here, nothing had been released that could run beside them
BEFORE_THE_FIRST_RELEASE = "0026"
#: grows with mail; an index on one of the others takes a moment
BIG = {
    "message", "messagecontent", "attachment", "delivery", "queued", "attempt", "event", "idempotencykey",
    "inboundmessage", "webhookdelivery", "webhooktry", "suppression", "requestlog", "figure", "reportrequest",
}  # fmt: skip
#: a later release takes away what this one has stopped to use: migration → why nothing that runs needs it any more
CONTRACTS: dict[str, str] = {}

_LOCKING_SQL = re.compile(
    r"\b(DROP\s+(TABLE|COLUMN)|RENAME\s+(TO|COLUMN)|SET\s+NOT\s+NULL|ALTER\s+COLUMN\s+\S+\s+(SET\s+DATA\s+)?TYPE"
    r"|CREATE\s+(UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)|VACUUM\s+FULL|CLUSTER)\b",
    re.IGNORECASE,
)


def flat(operations: list[object]) -> Iterator[object]:
    for operation in operations:
        if isinstance(operation, migrations.SeparateDatabaseAndState):
            yield from flat(operation.database_operations)
        else:
            yield operation


def wrongs(migration: migrations.Migration, before: ProjectState | None = None) -> list[str]:
    """Why this migration must not run beside the version before, by operation; `before` is the models then."""
    made = {op.name_lower for op in flat(migration.operations) if isinstance(op, migrations.CreateModel)}
    found = []
    for op in flat(migration.operations):
        model = getattr(op, "model_name_lower", "")
        match op:
            case migrations.RemoveField() | migrations.RenameField() | migrations.RenameModel():
                found.append(f"{op.describe()}: the version before still names it")
            case migrations.DeleteModel() | migrations.AlterModelTable():
                found.append(f"{op.describe()}: the version before still reads it")
            case migrations.AddField() if model not in made and not _optional(op.field):
                found.append(f"{op.describe()}: the version before writes rows without it; give it null or db_default")
            case migrations.AlterField() if model not in made and not op.field.null and _was_null(before, op):
                found.append(f"{op.describe()}: say in CONTRACTS why no row and no writer lacks it")
            case AddIndexConcurrently() | RemoveIndexConcurrently():
                if migration.atomic:
                    found.append(f"{op.describe()}: needs atomic = False")
            case migrations.AddIndex() | migrations.RemoveIndex() if model in BIG - made:
                found.append(f"{op.describe()}: writers wait for it; AddIndexConcurrently, RemoveIndexConcurrently")
            case migrations.AddConstraint() if model in BIG - made:
                found.append(f"{op.describe()}: reads the whole table under a lock; NOT VALID first, then VALIDATE")
            case migrations.RunSQL():
                sql = str(op.sql)
                if wrong := _LOCKING_SQL.search(sql):
                    found.append(f"RunSQL: {wrong.group(0)}")
                if "CONCURRENTLY" in sql.upper() and migration.atomic:
                    found.append("RunSQL: CONCURRENTLY needs atomic = False")
            case migrations.RunPython() if migration.atomic:
                found.append("RunPython: in batches, with atomic = False")
    return found


def _optional(field: models.Field) -> bool:
    """Whether an INSERT that does not know the field is taken: Django's own default lives in Python alone."""
    return field.null or field.many_to_many or field.db_default is not NOT_PROVIDED


def _was_null(before: ProjectState | None, op: migrations.AlterField) -> bool:
    return before is None or before.models["deliveries", op.model_name_lower].fields[op.name].null


def test_each_migration_may_run_beside_the_version_before() -> None:
    loader = MigrationLoader(None, ignore_no_migrations=True)
    found = {}
    for app, name in sorted(loader.disk_migrations):
        if app == "deliveries" and name[:4] > BEFORE_THE_FIRST_RELEASE and name not in CONTRACTS:
            before = loader.project_state((app, name), at_end=False)
            found[name] = wrongs(loader.disk_migrations[app, name], before)
    assert {name: why for name, why in found.items() if why} == {}


def migration(*operations: object, atomic: bool = True) -> migrations.Migration:
    made = migrations.Migration("x", "deliveries")
    made.operations, made.atomic = list(operations), atomic  # type: ignore[misc]
    return made


_INDEX = models.Index(fields=("status",), name="x")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (migration(migrations.RemoveField("Delivery", "status")), "still names"),
        (migration(migrations.RenameField("Delivery", "status", "state")), "still names"),
        (migration(migrations.DeleteModel("Delivery")), "still reads"),
        (migration(migrations.AddField("Tenant", "n", models.IntegerField(default=0))), "null or db_default"),
        (migration(migrations.AlterField("Tenant", "n", models.IntegerField())), "CONTRACTS"),
        (migration(migrations.AddIndex("Delivery", _INDEX)), "Concurrently"),
        (migration(AddIndexConcurrently("Delivery", _INDEX)), "atomic = False"),
        (migration(migrations.RunSQL("CREATE INDEX x ON delivery (status)")), "CREATE INDEX"),
        (migration(migrations.RunSQL("ALTER TABLE delivery ALTER COLUMN reply SET NOT NULL")), "SET NOT NULL"),
    ],
)
def test_what_would_break_or_stop_the_version_before_is_found(made: migrations.Migration, said: str) -> None:
    (wrong,) = wrongs(made)
    assert said in wrong


@pytest.mark.parametrize(
    "made",
    [
        migration(migrations.AddField("Delivery", "flavour", models.TextField(null=True))),
        migration(migrations.AddField("Delivery", "n", models.IntegerField(default=0, db_default=0))),
        migration(AddIndexConcurrently("Delivery", _INDEX), atomic=False),
        migration(migrations.AddIndex("Tenant", _INDEX)),
        migration(migrations.RunSQL("CREATE INDEX CONCURRENTLY x ON delivery (status)"), atomic=False),
    ],
)
def test_what_the_version_before_does_not_notice_is_let_through(made: migrations.Migration) -> None:
    assert wrongs(made) == []
