"""Search by a tag, and by a Message-ID that the sender gave; made beside the running service."""

import django.contrib.postgres.indexes
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("deliveries", "0023_domain_claims"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="message",
            index=django.contrib.postgres.indexes.GinIndex(
                condition=models.Q(("tags", []), _negated=True), fastupdate=True, fields=["tags"],
                name="message_tags", opclasses=("jsonb_path_ops",),
            ),
        ),
        AddIndexConcurrently(
            model_name="message", index=models.Index(fields=["message_id"], name="message_msgid"),
        ),
    ]
