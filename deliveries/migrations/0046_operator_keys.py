"""Programs of an operator see to tenants over HTTP, with keys that no tenant has."""

import django.contrib.postgres.fields
from django.db import migrations, models

import deliveries.models.fields


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0045_keys_of_owners"),
    ]

    operations = [
        migrations.CreateModel(
            name="OperatorKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("prefix", models.CharField(help_text="The first characters, to tell keys apart.", max_length=12)),
                ("secret_hash", models.BinaryField(max_length=32, unique=True)),
                (
                    "networks",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=43),
                        blank=True,
                        default=list,
                        help_text="Used from these addresses only (CIDR).",
                        size=None,
                    ),
                ),
                ("expires_at", models.DateTimeField(blank=True, help_text="Refused from then on.", null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("full_access", "Tenants, and hands out API keys and first passwords"),
                            ("tenants_access", "Tenants, their members and keys; hands out none"),
                            ("read_access", "Reading only"),
                        ],
                        default="tenants_access",
                        max_length=20,
                    ),
                ),
            ],
            options={
                "verbose_name": "operator key",
                "db_table": "operator_key",
                "ordering": ("-created_at",),
            },
        ),
    ]
