"""One entry of the audit log is told by its name, and many by theirs."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0043_addresses_that_rest_for_a_receiver"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="auditentry",
            options={
                "ordering": ("-id",),
                "verbose_name": "audit log entry",
                "verbose_name_plural": "audit log entries",
            },
        ),
    ]
