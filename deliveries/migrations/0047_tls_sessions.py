"""How well sessions were protected, for the domains that ask for TLS reports."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0046_operator_keys"),
    ]

    operations = [
        migrations.CreateModel(
            name="TlsSessions",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                ("domain", models.CharField(max_length=253)),
                ("digest", models.CharField(help_text="SHA-256 of the facts.", max_length=64)),
                ("facts", models.JSONField(help_text="Policy, hosts, addresses, and what went wrong.")),
                ("count", models.BigIntegerField()),
            ],
            options={
                "db_table": "tls_sessions",
                "constraints": [
                    models.UniqueConstraint(fields=("day", "domain", "digest"), name="tls_sessions_once")
                ],
            },
        ),
    ]
