"""What of a mail is taken away once it is finished: by mail, template, stream, or all of a tenant's."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import JSONField, Q, Value


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0031_operator_alerts")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="redact",
            field=models.SmallIntegerField(
                db_default=0,
                default=0,
                help_text="states.Redact: what goes once it is finished; as it was asked at accept.",
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="redacted_at",
            field=models.DateTimeField(help_text="It went then.", null=True),
        ),
        migrations.AddField(
            model_name="sendingdomain",
            name="redact_streams",
            field=models.JSONField(
                blank=True,
                db_default=Value({}, JSONField()),
                default=dict,
                help_text='By stream: "content" or "everything" of its mails goes once they are finished.',
            ),
        ),
        migrations.AddField(
            model_name="template",
            name="redact",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="content or everything: goes once a mail is finished.",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="tenant",
            name="privacy",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Nothing is tracked, and finished mail keeps no content."
            ),
        ),
        AddIndexConcurrently(
            model_name="message",
            index=models.Index(
                condition=Q(redact__gt=0, redacted_at__isnull=True), fields=["id"], name="message_to_redact"
            ),
        ),
    ]
