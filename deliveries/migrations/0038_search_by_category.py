"""Deliveries of one category are found among all that bounced or wait."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0037_mail_of_test_keys")]

    operations = [
        AddIndexConcurrently(
            model_name="delivery",
            index=models.Index(
                condition=~Q(category=""), fields=["tenant", "category", "-id"], name="delivery_category"
            ),
        ),
    ]
