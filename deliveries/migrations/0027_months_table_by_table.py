"""Months of one table at a time: whoever locks several tables at once waits for accept, which waits for the next one."""

from django.db import migrations

# as in 0002, for one table; its lock is held for the making of the months alone
MAKE_ONE = """
CREATE FUNCTION make_months(parent text, months_ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    month timestamptz;
    made int := 0;
    low uuid;
    high uuid;
    held boolean;
BEGIN
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
    RETURN made;
END $$
"""


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0026_unsubscribe_by_stream")]
    operations = [migrations.RunSQL(MAKE_ONE, "DROP FUNCTION make_months")]
