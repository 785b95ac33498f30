"""Troubles that the operator is told of, once each."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0030_request_ids_of_clients")]
    operations = [
        migrations.CreateModel(
            name="OperatorAlert",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=20)),
                ("subject", models.TextField(blank=True, help_text="What tells troubles of a kind apart.")),
                ("words", models.TextField()),
                ("since", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                ("open", models.BooleanField()),
                ("told_at", models.DateTimeField(help_text="When somebody was last told of it, or of its end.", null=True)),
                ("told_open", models.BooleanField(default=False, help_text="It was told, and its end was not yet.")),
            ],
            options={
                "db_table": "operator_alert",
                "constraints": [models.UniqueConstraint(fields=("kind", "subject"), name="operator_alert_once")],
            },
        ),
    ]
