from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0016_figures_of_the_first_page'),
    ]

    operations = [
        migrations.AddField(
            model_name='message',
            name='tracking',
            field=models.SmallIntegerField(db_default=0, default=0, help_text='1: opens, 2: clicks; as its domain had it at accept.'),
        ),
        migrations.AddField(
            model_name='message',
            name='unsubscribe',
            field=models.BooleanField(db_default=False, default=False, help_text='It can be left with one click (RFC 8058).'),
        ),
        migrations.AddField(
            model_name='delivery',
            name='opened_at',
            field=models.DateTimeField(null=True, help_text='First by a person, as far as one can tell.'),
        ),
        migrations.AddField(
            model_name='delivery',
            name='clicked_at',
            field=models.DateTimeField(null=True, help_text='First by a person, as far as one can tell.'),
        ),
    ]
