"""The form in which addresses are compared, in SQL as in deliveries.mime.address: the collation of a database, which
may know ASCII alone, decided whether a suppressed address was mailed."""

from django.db import migrations

_CASED = [
    chr(c)
    for letters in (range(0xC0, 0x590), range(0x1E00, 0x2000))
    for c in letters
    if len(chr(c).lower()) == 1 and chr(c).lower() != chr(c)
]
_SMALL = "".join(c.lower() for c in _CASED)

FUNCTION = f"""
CREATE FUNCTION folded_address(address text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(address) = length(address) THEN lower(address COLLATE "C")
                ELSE translate(lower(address COLLATE "C"), '{"".join(_CASED)}', '{_SMALL}') END
$$
"""

# few rows: those whose local part has letters beyond ASCII
SAME = """
DELETE FROM suppression s USING suppression t
 WHERE octet_length(s.address) <> length(s.address) AND s.address <> folded_address(s.address)
   AND t.tenant_id = s.tenant_id AND t.stream = s.stream AND t.id <> s.id
   AND octet_length(t.address) <> length(t.address) AND folded_address(t.address) = folded_address(s.address)
   AND (t.address = folded_address(t.address) OR t.id < s.id)
"""
FOLD = """
UPDATE suppression SET address = folded_address(address)
 WHERE octet_length(address) <> length(address) AND address <> folded_address(address)
"""


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0035_installation'),
    ]

    operations = [
        migrations.RunSQL(FUNCTION, "DROP FUNCTION folded_address"),
        migrations.RunSQL(SAME, migrations.RunSQL.noop),
        migrations.RunSQL(FOLD, migrations.RunSQL.noop),
        # retention drops a month by its name (record/retention.py)
        migrations.RunSQL(
            "DROP FUNCTION drop_months(text, uuid)",
            "CREATE FUNCTION drop_months(parent text, floor uuid) RETURNS int LANGUAGE sql AS 'SELECT 0'",
        ),
    ]
