"""The panel's pages are named as its menu names them; nothing changes in the database."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0040_no_index_twice"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="apikey",
            options={"ordering": ("-created_at",), "verbose_name": "API key"},
        ),
        migrations.AlterModelOptions(
            name="auditentry",
            options={
                "ordering": ("-id",),
                "verbose_name": "entry of the audit log",
                "verbose_name_plural": "audit log",
            },
        ),
        migrations.AlterModelOptions(
            name="handover",
            options={"verbose_name": "mail handed on", "verbose_name_plural": "mails handed on"},
        ),
        migrations.AlterModelOptions(
            name="inboundmessage",
            options={"verbose_name": "inbound mail"},
        ),
        migrations.AlterModelOptions(
            name="inboundroute",
            options={"verbose_name": "receiving address", "verbose_name_plural": "receiving addresses"},
        ),
        migrations.AlterModelOptions(
            name="membership",
            options={"verbose_name": "member"},
        ),
        migrations.AlterModelOptions(
            name="sendingdomain",
            options={"ordering": ("name",), "verbose_name": "domain"},
        ),
        migrations.AlterModelOptions(
            name="user",
            options={"verbose_name": "login"},
        ),
        migrations.AlterModelOptions(
            name="webhookdelivery",
            options={"verbose_name": "webhook post"},
        ),
    ]
