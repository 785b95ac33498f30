"""Orders to erase one person's data."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models.functions import Now

import deliveries.models.fields


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0032_redaction_and_privacy")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="erased",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Some of its suppressions are hashes: of people who were erased.",
            ),
        ),
        migrations.CreateModel(
            name="Erasure",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("address", deliveries.models.fields.EncryptedField(help_text="Until it is done.", null=True)),
                (
                    "keep_suppressions",
                    models.BooleanField(
                        default=True,
                        help_text="Suppressions of the address stay as hashes, so that no mail goes there again.",
                    ),
                ),
                ("asked_by", models.CharField(max_length=200)),
                ("asked_at", models.DateTimeField(auto_now_add=True)),
                ("due_at", models.DateTimeField(db_default=Now(), help_text="It is worked on from then on.")),
                ("step", models.SmallIntegerField(default=0)),
                (
                    "after",
                    models.UUIDField(help_text="The last row of the step's table that was looked at.", null=True),
                ),
                (
                    "found",
                    models.JSONField(default=dict, help_text="By kind: how many rows went or lost the address."),
                ),
                (
                    "waiting",
                    models.IntegerField(
                        default=0, help_text="Mails that still wait for somebody else, or to be read."
                    ),
                ),
                ("done_at", models.DateTimeField(null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="deliveries.tenant",
                    ),
                ),
            ],
            options={
                "db_table": "erasure",
                "ordering": ("-id",),
                "indexes": [
                    models.Index(condition=models.Q(("done_at", None)), fields=["due_at"], name="erasure_due")
                ],
            },
        ),
    ]
