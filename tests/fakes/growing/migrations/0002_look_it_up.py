from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("growing", "0001_expand")]
    operations = [
        migrations.RunSQL(
            f"CREATE INDEX CONCURRENTLY {table}_flavour ON {table} (flavour)",
            f"DROP INDEX CONCURRENTLY {table}_flavour",
        )
        for table in ("message", "delivery", "queued")
    ]
