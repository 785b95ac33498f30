"""Erasing a person takes a key that an owner made; those that were made before stay without."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0044_audit_log_entries"),
    ]

    operations = [
        migrations.AlterField(
            model_name="apikey",
            name="scope",
            field=models.CharField(
                choices=[
                    ("owner_access", "Full access, and erasing people"),
                    ("full_access", "Full access"),
                    ("sending_access", "Sending only"),
                    ("read_access", "Reading only"),
                ],
                default="full_access",
                max_length=20,
            ),
        ),
    ]
