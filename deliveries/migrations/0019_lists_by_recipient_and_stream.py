from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY, so that a running service goes on accepting
    atomic = False

    dependencies = [
        ('deliveries', '0018_rates_and_quotas'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name='message',
            index=models.Index(condition=models.Q(('stream', 'transactional'), _negated=True), fields=['tenant', 'stream', '-id'], name='message_stream'),
        ),
        RemoveIndexConcurrently(
            model_name='delivery',
            name='delivery_recipient',
        ),
        AddIndexConcurrently(
            model_name='delivery',
            index=models.Index(fields=['recipient', 'message'], name='delivery_recipient', opclasses=('text_pattern_ops', 'uuid_ops')),
        ),
    ]
