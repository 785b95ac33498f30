"""Templates: drafts, and versions that mails are sent from."""

import deliveries.models.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0014_domains_checked_keys_limited"),
    ]

    operations = [
        migrations.CreateModel(
            name="Template",
            fields=[
                (
                    "sender",
                    models.CharField(help_text="The From header; a mail may bring its own.", max_length=700, null=True),
                ),
                ("subject", models.TextField(null=True)),
                ("reply_to", models.JSONField(default=list)),
                ("html", models.TextField(null=True)),
                ("text", models.TextField(help_text="Null: made of the html at publish. Empty: none.", null=True)),
                ("variables", models.JSONField(default=list)),
                ("language", models.CharField(default="native", max_length=12)),
                (
                    "id",
                    models.UUIDField(
                        default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("alias", models.CharField(help_text="A name of the application's for it.", max_length=100, null=True)),
                ("published_at", models.DateTimeField(null=True)),
                (
                    "changed",
                    models.BooleanField(default=True, help_text="Whether the draft differs from what is published."),
                ),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="templates", to="deliveries.tenant"
                    ),
                ),
            ],
            options={
                "db_table": "template",
            },
        ),
        migrations.CreateModel(
            name="TemplateVersion",
            fields=[
                (
                    "sender",
                    models.CharField(help_text="The From header; a mail may bring its own.", max_length=700, null=True),
                ),
                ("subject", models.TextField(null=True)),
                ("reply_to", models.JSONField(default=list)),
                ("html", models.TextField(null=True)),
                ("text", models.TextField(help_text="Null: made of the html at publish. Empty: none.", null=True)),
                ("variables", models.JSONField(default=list)),
                ("language", models.CharField(default="native", max_length=12)),
                (
                    "id",
                    models.UUIDField(
                        default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("number", models.IntegerField(help_text="From 1.")),
                (
                    "text_at_render",
                    models.BooleanField(default=False, help_text="The text part is made of each mail's html."),
                ),
                ("created_at", models.DateTimeField()),
                (
                    "template",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="versions", to="deliveries.template"
                    ),
                ),
            ],
            options={
                "db_table": "template_version",
            },
        ),
        migrations.AddField(
            model_name="template",
            name="published",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="deliveries.templateversion",
            ),
        ),
        migrations.AddConstraint(
            model_name="templateversion",
            constraint=models.UniqueConstraint(fields=("template", "number"), name="template_version_once"),
        ),
        migrations.AddIndex(
            model_name="template",
            index=models.Index(fields=["tenant", "id"], name="template_tenant"),
        ),
        migrations.AddConstraint(
            model_name="template",
            constraint=models.UniqueConstraint(fields=("tenant", "alias"), name="template_alias_once"),
        ),
    ]
