"""A mail knows that a test key sent it: the key's row may go before the mail does."""

from django.db import migrations, models

# what waits; the rest has left, or never will
WAITING = """
UPDATE message SET test = true WHERE id IN (
    SELECT d.message_id FROM queued q JOIN delivery d ON d.id = q.delivery_id
      JOIN message m ON m.id = d.message_id JOIN api_key k ON k.id = m.api_key_id WHERE k.test)
"""


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0036_one_form_of_addresses'),
    ]

    operations = [
        migrations.AddField(
            model_name='message',
            name='test',
            field=models.BooleanField(db_default=False, default=False, help_text='A test key sent it: to the receiver lab and nowhere else.'),
        ),
        migrations.RunSQL(WAITING, migrations.RunSQL.noop),
    ]
