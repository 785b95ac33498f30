"""Secrets that overlap, the place of an event in its delivery's story, and events in the order of one clock.

The columns are added without a rewrite; the indexes on `event` and `webhook_delivery` are built while writers wait.
"""

from django.db import migrations, models

import deliveries.models.fields


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0007_mailboxes_and_received_mail")]

    operations = [
        migrations.AddField(
            model_name="delivery",
            name="events",
            field=models.IntegerField(
                db_default=1, help_text="Events of this delivery so far; accept writes the first."
            ),
        ),
        migrations.AddField(
            model_name="event",
            name="place",
            field=models.IntegerField(
                help_text="Which event of its delivery, from 1 (delivery.events then).", null=True
            ),
        ),
        migrations.AlterField(
            model_name="event",
            name="created_at",
            field=models.DateTimeField(help_text="When its transaction began, by the database's clock."),
        ),
        migrations.RemoveIndex(model_name="event", name="event_tenant"),
        migrations.AddIndex(
            model_name="event", index=models.Index(fields=["tenant_id", "created_at", "id"], name="event_feed")
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="previous_secret",
            field=deliveries.models.fields.EncryptedField(
                help_text="Signs beside the new one until previous_until.", null=True
            ),
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="previous_until",
            field=models.DateTimeField(blank=True, null=True, verbose_name="the secret before signs until"),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(condition=models.Q(state="failed"), fields=["endpoint", "id"], name="webhook_failed"),
        ),
        migrations.AddField(
            model_name="webhooktry",
            name="url",
            field=models.TextField(db_default="", help_text="Where it went: an endpoint's URL may be changed."),
        ),
    ]
