from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0021_request_log'),
    ]

    operations = [
        migrations.CreateModel(
            name='ReportRequest',
            fields=[
                ('delivery_id', models.UUIDField(primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('message_id', models.UUIDField()),
                ('return_to', models.TextField(help_text='MAIL FROM: where the report goes; never the null path.')),
                ('envid', models.TextField(blank=True, help_text='xtext')),
                ('whole', models.BooleanField(help_text='RET=FULL')),
                ('notify', models.SmallIntegerField(help_text='1 success, 2 failure, 4 delay')),
                ('orcpt', models.TextField(blank=True, help_text='type;xtext')),
                ('told', models.SmallIntegerField(default=0)),
                ('due_at', models.DateTimeField(help_text='When it is looked at again.')),
                ('created_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'report_request',
                'indexes': [models.Index(fields=['due_at'], name='report_request_due')],
            },
        ),
    ]
