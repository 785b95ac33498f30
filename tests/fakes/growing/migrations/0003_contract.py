from django.db import migrations


class Migration(migrations.Migration):
    """Nothing that runs names the column any more."""

    dependencies = [("growing", "0002_look_it_up")]
    operations = [
        migrations.RunSQL(f"ALTER TABLE {table} DROP COLUMN flavour", migrations.RunSQL.noop)
        for table in ("message", "delivery", "queued", "event", "attempt")
    ]
