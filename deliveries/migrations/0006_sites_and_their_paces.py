"""What is known of a receiver stands once per site, not once per lane; the due index tells apart who answers.

Small tables everywhere: a row per lane and destination, so that no build runs beside traffic for long.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0005_mta_sts_policies"),
    ]

    operations = [
        migrations.CreateModel(
            name="MxSite",
            fields=[
                ("domain", models.TextField(primary_key=True, serialize=False)),
                ("site", models.TextField()),
                ("learned_at", models.DateTimeField()),
            ],
            options={
                "db_table": "mx_site",
            },
        ),
        migrations.CreateModel(
            name="Site",
            fields=[
                ("name", models.TextField(primary_key=True, serialize=False)),
                ("places", models.IntegerField(help_text="Transactions at a time, over all worker processes.")),
                ("most_places", models.IntegerField(help_text="An operator's bound; empty: the profile's.", null=True)),
                ("proven", models.BooleanField(help_text="It answered, and within seconds, when it was last asked.")),
                ("misses", models.IntegerField(help_text="Rounds in a row in which none of its hosts was reached.")),
                (
                    "strikes",
                    models.IntegerField(
                        help_text="Requests to slow down, or refusals of our route, since it was calm."
                    ),
                ),
                ("slowed_at", models.DateTimeField(null=True)),
                ("suspended_until", models.DateTimeField(null=True)),
                ("reason", models.TextField(blank=True, help_text="Why it is suspended or slowed, in words.")),
                ("last_reply", models.TextField(blank=True)),
                (
                    "paused_by",
                    models.TextField(blank=True, help_text="The person who paused it; only a person resumes it then."),
                ),
                ("changed_at", models.DateTimeField()),
            ],
            options={
                "db_table": "site",
            },
        ),
        migrations.RemoveIndex(
            model_name="destination",
            name="destination_due",
        ),
        migrations.RemoveField(
            model_name="destination",
            name="last_reply",
        ),
        migrations.RemoveField(
            model_name="destination",
            name="places",
        ),
        migrations.RemoveField(
            model_name="destination",
            name="suspended_reason",
        ),
        migrations.RemoveField(
            model_name="destination",
            name="suspended_until",
        ),
        migrations.AddField(
            model_name="destination",
            name="proven",
            field=models.BooleanField(default=False),
        ),
        migrations.AddIndex(
            model_name="destination",
            index=models.Index(fields=["lane", "proven", "next_due"], name="destination_ready"),
        ),
        migrations.AddIndex(
            model_name="site",
            index=models.Index(
                condition=models.Q(("suspended_until__isnull", False)), fields=["suspended_until"], name="site_resting"
            ),
        ),
    ]
