"""The X-Request-Id that a client gave, beside our own id of the logged request."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0029_source_pools")]
    operations = [
        migrations.AddField(
            model_name="requestlog",
            name="request_id",
            field=models.TextField(help_text="The client's own X-Request-Id.", null=True),
        ),
    ]
