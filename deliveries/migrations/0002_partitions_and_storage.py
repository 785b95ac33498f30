"""Monthly partitions by UUIDv7 range, and storage settings for the hot rows."""

from django.db import migrations

# A month's bound is its first millisecond in the top 48 bits of the id (RFC 9562 §5.7). The default partition
# takes what lies outside; a month that the default already holds rows of is left to it.
FUNCTION = """
CREATE FUNCTION make_partitions(months_ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    month timestamptz;
    made int := 0;
    low uuid;
    high uuid;
    held boolean;
BEGIN
    FOREACH parent IN ARRAY ARRAY['event', 'attempt', 'message_content', 'webhook_delivery', 'webhook_try'] LOOP
        FOR i IN 0..months_ahead LOOP
            month := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + make_interval(months => i);
            CONTINUE WHEN to_regclass(format('%s_%s', parent, to_char(month AT TIME ZONE 'UTC', 'YYYY_MM'))) IS NOT NULL;
            low := (lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
            high := (lpad(to_hex((extract(epoch FROM month + interval '1 month') * 1000)::bigint), 12, '0')
                     || repeat('0', 20))::uuid;
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id >= %L AND id < %L)', parent || '_default', low, high)
                INTO held;
            CONTINUE WHEN held;
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                           format('%s_%s', parent, to_char(month AT TIME ZONE 'UTC', 'YYYY_MM')), parent, low, high);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$
"""

PARENTS = ("event", "attempt", "message_content", "webhook_delivery", "webhook_try")


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0001_foundations")]

    operations = [
        *(
            migrations.RunSQL(
                f"CREATE TABLE {parent}_default PARTITION OF {parent} DEFAULT", f"DROP TABLE {parent}_default"
            )
            for parent in PARENTS
        ),
        migrations.RunSQL(FUNCTION, "DROP FUNCTION make_partitions"),
        migrations.RunSQL("SELECT make_partitions(2)", migrations.RunSQL.noop),
        # room for the ledger's in-page (HOT) updates; vacuum by number of dead rows, not by share of the table
        migrations.RunSQL(
            "ALTER TABLE queued SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            "ALTER TABLE destination SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 500)",
            migrations.RunSQL.noop,
        ),
    ]
