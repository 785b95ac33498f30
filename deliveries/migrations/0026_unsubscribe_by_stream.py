"""Streams of a domain whose mails can be left with one click by default."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models
from django.db.models import Value


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0025_webhook_credentials")]
    operations = [
        migrations.AddField(
            model_name="sendingdomain",
            name="unsubscribe_streams",
            field=ArrayField(
                base_field=models.CharField(max_length=64),
                blank=True,
                db_default=Value([], ArrayField(models.CharField(max_length=64))),
                default=list,
                help_text="Streams whose mails can be left with one click unless a mail says otherwise.",
                size=None,
            ),
        ),
    ]
