"""Receivers that ask for a user name and a password, as those of Postmark's webhooks do."""

from django.db import migrations, models

from deliveries.models.fields import EncryptedField


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0024_search_by_tag_and_message_id")]
    operations = [
        migrations.AddField(
            model_name="webhookendpoint",
            name="credentials",
            field=EncryptedField(editable=False, help_text="`user:password` for Basic authentication.", null=True),
        ),
        migrations.AlterField(
            model_name="webhookendpoint",
            name="format",
            field=models.CharField(
                choices=[
                    ("native", "Native"),
                    ("postmark", "Postmark"),
                    ("sendgrid", "Sendgrid"),
                    ("mailgun", "Mailgun"),
                ],
                db_default="native",
                default="native",
                help_text="The service whose words and signature its receiver reads.",
                max_length=10,
            ),
        ),
    ]
