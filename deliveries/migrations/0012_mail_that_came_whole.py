from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0011_message_metadata'),
    ]

    operations = [
        migrations.AddField(
            model_name='messagecontent',
            name='raw',
            field=models.BinaryField(null=True, help_text='A mail that came whole: its octets, without Bcc.'),
        ),
    ]
