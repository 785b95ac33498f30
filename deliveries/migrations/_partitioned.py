"""CreateModel for a table partitioned by the range of its UUIDv7 id, so that `id` stays the primary key."""

from typing import Any

from django.db import migrations


class CreatePartitionedModel(migrations.CreateModel):
    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        plain = schema_editor.sql_create_table
        schema_editor.sql_create_table = f"{plain} PARTITION BY RANGE (id)"
        try:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        finally:
            schema_editor.sql_create_table = plain
