from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0038_search_by_category'),
    ]

    operations = [
        migrations.AddField(
            model_name='sourcepool',
            name='waits_at',
            field=models.DateTimeField(editable=False, help_text='Mail was put off for want of an address.', null=True),
        ),
        migrations.AlterField(
            model_name='sourceaddress',
            name='rests_why',
            field=models.CharField(blank=True, help_text='In words, for the operator.', max_length=300),
        ),
    ]
