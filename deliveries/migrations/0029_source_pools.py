"""Addresses of worker hosts, pools of them, and whose mail goes by which."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0028_search_by_sender'),
    ]

    operations = [
        migrations.CreateModel(
            name='SourcePool',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=60, unique=True)),
                ('overflow', models.ForeignKey(blank=True, help_text='Takes over while its addresses rest or have sent what they may on a day; empty: mail waits.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='deliveries.sourcepool')),
            ],
            options={
                'verbose_name': 'IP pool',
                'verbose_name_plural': 'IP pools',
                'db_table': 'source_pool',
            },
        ),
        migrations.CreateModel(
            name='SourceAddress',
            fields=[
                ('address', models.CharField(max_length=45, primary_key=True, serialize=False, validators=[django.core.validators.validate_ipv46_address])),
                ('helo', models.CharField(blank=True, help_text='Its name in EHLO, which must lead to it and back; empty: HELO_NAME.', max_length=253)),
                ('warm_from', models.DateField(blank=True, help_text='First day of its warm-up (WARM_UP); empty: it sends as much as there is.', null=True)),
                ('rests_until', models.DateTimeField(blank=True, help_text='Nothing is begun from it until then.', null=True)),
                ('rests_why', models.CharField(blank=True, help_text='In words, for those whose mail waits.', max_length=300)),
                ('used_on', models.DateField(null=True)),
                ('used', models.IntegerField(default=0)),
                ('seen_at', models.DateTimeField(null=True)),
                ('seen_on', models.CharField(blank=True, help_text='The host that has it.', max_length=253)),
                ('pool', models.ForeignKey(blank=True, help_text='Without one it serves whatever has no pool.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='addresses', to='deliveries.sourcepool')),
            ],
            options={
                'verbose_name': 'IP address',
                'verbose_name_plural': 'IP addresses',
                'db_table': 'source_address',
            },
        ),
        migrations.CreateModel(
            name='PoolRule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(blank=True, choices=[('', 'all mail'), ('transactional', 'transactional (priority high and normal)'), ('bulk', 'bulk (priority bulk)')], default='', max_length=20)),
                ('tenant', models.ForeignKey(blank=True, help_text='Empty: every tenant.', null=True, on_delete=django.db.models.deletion.CASCADE, to='deliveries.tenant')),
                ('pool', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to='deliveries.sourcepool')),
            ],
            options={
                'verbose_name': 'IP pool rule',
                'db_table': 'pool_rule',
                'constraints': [models.UniqueConstraint(fields=('tenant', 'kind'), name='pool_rule_once', nulls_distinct=False, violation_error_message='There is a rule for this tenant and kind already.'), models.CheckConstraint(condition=models.Q(('kind__in', ('', 'transactional', 'bulk'))), name='pool_rule_kind')],
            },
        ),
    ]
