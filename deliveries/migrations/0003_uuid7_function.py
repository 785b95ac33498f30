"""uuid7() for rows whose number only the database knows (outbox rows); Postgres 15 to 17 have none of their own."""

from django.db import migrations

# RFC 9562 §5.7: 48 bits of Unix milliseconds, version 7, variant 2, the rest random
FUNCTION = """
CREATE FUNCTION make_uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$
"""


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0002_partitions_and_storage")]
    operations = [migrations.RunSQL(FUNCTION, "DROP FUNCTION make_uuid7")]
