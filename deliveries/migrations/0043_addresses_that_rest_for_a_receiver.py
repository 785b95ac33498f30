from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0042_rehearsed_erasures'),
    ]

    operations = [
        migrations.CreateModel(
            name='SourceRest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('address', models.CharField(max_length=45)),
                ('site', models.CharField(max_length=253)),
                ('why', models.CharField(help_text="The receiver's words.", max_length=300)),
                ('strikes', models.SmallIntegerField(help_text='How often in turn.')),
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField()),
            ],
            options={
                'db_table': 'source_rest',
                'constraints': [models.UniqueConstraint(fields=('address', 'site'), name='source_rest_once')],
            },
        ),
    ]
