"""Due webhooks are looked for endpoint by endpoint; empty tables everywhere, so that no build runs beside traffic."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0003_uuid7_function")]

    operations = [
        migrations.RemoveIndex(model_name="webhookdelivery", name="webhook_due"),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(
                fields=["endpoint", "next_try_at"], condition=models.Q(state="pending"), name="webhook_due"
            ),
        ),
    ]
