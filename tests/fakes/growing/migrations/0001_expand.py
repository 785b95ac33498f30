from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0001_foundations")]
    operations = [
        migrations.RunSQL(f"ALTER TABLE {table} ADD COLUMN flavour text", f"ALTER TABLE {table} DROP COLUMN flavour")
        for table in ("message", "delivery", "queued", "event", "attempt")
    ]
