"""A rate for each API key, and quotas of a tenant, counted by day and month."""

from django.db import migrations, models

# within accept's statement: raising there is what keeps the whole of it from being stored
FUNCTION = """
CREATE FUNCTION quota_kept(kind text, used int, most int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF used > most THEN
        RAISE EXCEPTION '%: % of %', kind, used, most USING ERRCODE = 'MQ001';
    END IF;
    RETURN used;
END $$
"""


class Migration(migrations.Migration):

    dependencies = [
        ("deliveries", "0017_opens_clicks_and_leaving"),
    ]

    operations = [
        migrations.AddField(
            model_name='apikey',
            name='rate_limit',
            field=models.PositiveIntegerField(blank=True, help_text='Requests a second; empty: RATE_LIMIT.', null=True),
        ),
        migrations.AddField(
            model_name='tenant',
            name='daily_quota',
            field=models.PositiveIntegerField(blank=True, help_text='Recipients a day (UTC); empty: any number.', null=True),
        ),
        migrations.AddField(
            model_name='tenant',
            name='monthly_quota',
            field=models.PositiveIntegerField(blank=True, help_text='Recipients a month; empty: any number.', null=True),
        ),
        migrations.CreateModel(
            name='QuotaUse',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('kind', models.CharField(help_text='day or month.', max_length=5)),
                ('starts', models.DateField()),
                ('used', models.IntegerField()),
            ],
            options={
                'db_table': 'quota_use',
                'constraints': [models.UniqueConstraint(fields=('tenant_id', 'kind', 'starts'), name='quota_use_once')],
            },
        ),
        migrations.RunSQL(FUNCTION, "DROP FUNCTION quota_kept"),
    ]
