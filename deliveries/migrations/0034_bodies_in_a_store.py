"""Bodies of finished mails may lie in an S3-compatible store."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import Q

import deliveries.models.fields


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0033_erasures")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="archived_at",
            field=models.DateTimeField(help_text="Its bodies were moved to the S3 store then.", null=True),
        ),
        migrations.CreateModel(
            name="DeadObject",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("key", models.TextField()),
            ],
            options={"db_table": "dead_object"},
        ),
        AddIndexConcurrently(
            model_name="message",
            index=models.Index(condition=Q(archived_at__isnull=False), fields=["id"], name="message_archived"),
        ),
    ]
