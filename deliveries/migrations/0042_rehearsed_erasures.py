"""What an erasure would take can be told without taking it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0041_words_of_the_panel"),
    ]

    operations = [
        migrations.AddField(
            model_name="erasure",
            name="rehearsal",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Only what would go is told; nothing is changed."
            ),
        ),
    ]
