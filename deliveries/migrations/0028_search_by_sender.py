"""Search by the address in From, the newest of each first; made beside the running service."""

from django.contrib.postgres.indexes import OpClass
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models.functions import Left, Lower


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("deliveries", "0027_months_table_by_table"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="message",
            index=models.Index(
                models.F("tenant"),
                OpClass(
                    Lower(
                        Left(
                            models.Func(
                                models.Func(
                                    models.F("from_header"), models.Value("<"), models.Value(-1),
                                    function="split_part", output_field=models.TextField(),
                                ),
                                models.Value("> "),
                                function="rtrim",
                            ),
                            254,
                        )
                    ),
                    name="text_pattern_ops",
                ),
                models.F("id").desc(),
                name="message_sender",
            ),
        ),
    ]
