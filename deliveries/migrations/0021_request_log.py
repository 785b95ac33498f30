"""The log of API requests, partitioned by month; partitions are made for whatever table is partitioned."""

import deliveries.models.fields
from django.db import migrations, models

from deliveries.migrations._partitioned import CreatePartitionedModel

# as in 0002, for every partitioned table that there is
MAKE = """
CREATE OR REPLACE FUNCTION make_partitions(months_ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    month timestamptz;
    made int := 0;
    low uuid;
    high uuid;
    held boolean;
BEGIN
    FOR parent IN SELECT c.relname FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
                   WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1 LOOP
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
# partitions of a table that hold only ids below a bound
DROP = """
CREATE FUNCTION drop_months(parent text, floor uuid) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    child text;
    dropped int := 0;
    past text;
BEGIN
    -- the month before that of the bound, and all before it
    past := to_char(to_timestamp(('x' || substr(replace(floor::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
                    AT TIME ZONE 'UTC', 'YYYY_MM');
    FOR child IN SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
                  WHERE h.inhparent = parent::regclass AND c.relname ~ '_[0-9]{4}_[0-9]{2}$'
                    AND right(c.relname, 7) < past LOOP
        EXECUTE format('DROP TABLE %I', child);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$
"""


class Migration(migrations.Migration):

    dependencies = [
        ("deliveries", "0020_webhook_formats"),
    ]

    operations = [
        CreatePartitionedModel(
            name='RequestLog',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('key_id', models.UUIDField()),
                ('method', models.CharField(max_length=7)),
                ('endpoint', models.TextField(help_text='The path, without the query.')),
                ('status', models.IntegerField()),
                ('took_ms', models.IntegerField()),
                ('user_agent', models.TextField()),
                ('request_body', models.TextField(help_text='JSON: an outline, without secrets and files.', null=True)),
                ('response_body', models.TextField(help_text='JSON: an outline, without secrets.', null=True)),
                ('created_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'request_log',
                'indexes': [models.Index(fields=['tenant_id', 'id'], name='request_log_tenant')],
            },
        ),
        migrations.RunSQL(
            "CREATE TABLE request_log_default PARTITION OF request_log DEFAULT", "DROP TABLE request_log_default"
        ),
        migrations.RunSQL(MAKE, migrations.RunSQL.noop),
        migrations.RunSQL(DROP, "DROP FUNCTION drop_months"),
        migrations.RunSQL("SELECT make_partitions(2)", migrations.RunSQL.noop),
    ]
