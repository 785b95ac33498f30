import deliveries.models.fields
import deliveries.states
import django.contrib.auth.models
import django.contrib.auth.validators
import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.contrib.postgres.search
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from deliveries.migrations._partitioned import CreatePartitionedModel


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
    ]

    operations = [
        migrations.CreateModel(
            name='Attachment',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('message_id', models.UUIDField(db_index=True)),
                ('position', models.SmallIntegerField()),
                ('filename', models.TextField()),
                ('content_type', models.TextField()),
                ('content_id', models.TextField(null=True)),
                ('content', models.BinaryField()),
            ],
            options={
                'db_table': 'attachment',
            },
        ),
        CreatePartitionedModel(
            name='MessageContent',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('html', models.TextField(null=True)),
                ('text', models.TextField(null=True)),
                ('headers', models.JSONField(default=list, help_text="[[name, value]] in the sender's order.")),
            ],
            options={
                'db_table': 'message_content',
            },
        ),
        migrations.CreateModel(
            name='Tenant',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200, unique=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('suspended_at', models.DateTimeField(blank=True, help_text='No mail is accepted or sent from then on.', null=True)),
                ('suspended_reason', models.CharField(blank=True, max_length=300)),
            ],
            options={
                'db_table': 'tenant',
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='User',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('password', models.CharField(max_length=128, verbose_name='password')),
                ('last_login', models.DateTimeField(blank=True, null=True, verbose_name='last login')),
                ('is_superuser', models.BooleanField(default=False, help_text='Designates that this user has all permissions without explicitly assigning them.', verbose_name='superuser status')),
                ('username', models.CharField(error_messages={'unique': 'A user with that username already exists.'}, help_text='Required. 150 characters or fewer. Letters, digits and @/./+/-/_ only.', max_length=150, unique=True, validators=[django.contrib.auth.validators.UnicodeUsernameValidator()], verbose_name='username')),
                ('first_name', models.CharField(blank=True, max_length=150, verbose_name='first name')),
                ('last_name', models.CharField(blank=True, max_length=150, verbose_name='last name')),
                ('email', models.EmailField(blank=True, max_length=254, verbose_name='email address')),
                ('is_staff', models.BooleanField(default=False, help_text='Designates whether the user can log into this admin site.', verbose_name='staff status')),
                ('is_active', models.BooleanField(default=True, help_text='Designates whether this user should be treated as active. Unselect this instead of deleting accounts.', verbose_name='active')),
                ('date_joined', models.DateTimeField(default=django.utils.timezone.now, verbose_name='date joined')),
                ('groups', models.ManyToManyField(blank=True, help_text='The groups this user belongs to. A user will get all permissions granted to each of their groups.', related_name='user_set', related_query_name='user', to='auth.group', verbose_name='groups')),
                ('user_permissions', models.ManyToManyField(blank=True, help_text='Specific permissions for this user.', related_name='user_set', related_query_name='user', to='auth.permission', verbose_name='user permissions')),
            ],
            options={
                'verbose_name': 'user',
                'db_table': 'account',
            },
            managers=[
                ('objects', django.contrib.auth.models.UserManager()),
            ],
        ),
        migrations.CreateModel(
            name='Destination',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('lane', models.SmallIntegerField()),
                ('name', models.TextField()),
                ('next_due', models.DateTimeField()),
                ('places', models.IntegerField(default=20, help_text='Transactions at a time, per worker process.')),
                ('suspended_until', models.DateTimeField(blank=True, null=True)),
                ('suspended_reason', models.TextField(blank=True)),
                ('last_reply', models.TextField(blank=True)),
            ],
            options={
                'db_table': 'destination',
                'indexes': [models.Index(fields=['lane', 'next_due'], name='destination_due')],
                'constraints': [models.UniqueConstraint(fields=('lane', 'name'), name='destination_once')],
            },
        ),
        migrations.CreateModel(
            name='IdempotencyKey',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('endpoint', models.CharField(max_length=60)),
                ('key', models.CharField(max_length=256)),
                ('body_hash', models.BinaryField(max_length=32)),
                ('answer', models.JSONField()),
                ('created_at', models.DateTimeField(db_index=True)),
            ],
            options={
                'db_table': 'idempotency_key',
                'constraints': [models.UniqueConstraint(fields=('tenant_id', 'endpoint', 'key'), name='idempotency_key_once')],
            },
        ),
        migrations.CreateModel(
            name='Queued',
            fields=[
                ('delivery_id', models.UUIDField(primary_key=True, serialize=False)),
                ('lane', models.SmallIntegerField()),
                ('destination', models.TextField()),
                ('tenant_id', models.UUIDField()),
                ('due_at', models.DateTimeField()),
                ('size', models.IntegerField()),
                ('lease_id', models.UUIDField(null=True)),
                ('leased_until', models.DateTimeField(null=True)),
                ('started_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'queued',
                'indexes': [models.Index(condition=models.Q(('lease_id__isnull', True)), fields=['lane', 'destination', 'tenant_id', 'due_at'], name='queued_claim'), models.Index(condition=models.Q(('lease_id__isnull', False)), fields=['lease_id'], name='queued_leased')],
            },
        ),
        migrations.CreateModel(
            name='SendingDomain',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(help_text='A-label, lower case, no trailing dot.', max_length=253)),
                ('verified_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='domains', to='deliveries.tenant')),
            ],
            options={
                'db_table': 'sending_domain',
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='Message',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('api_key_id', models.UUIDField(null=True)),
                ('message_id', models.CharField(help_text='The Message-ID field without angle brackets.', max_length=320)),
                ('from_header', models.TextField(help_text='`Name <a@b>` or `a@b`.')),
                ('to', models.JSONField(default=list)),
                ('cc', models.JSONField(default=list)),
                ('bcc', models.JSONField(default=list)),
                ('reply_to', models.JSONField(default=list)),
                ('subject', models.TextField(blank=True)),
                ('tags', models.JSONField(default=list, help_text='[{"name", "value"}]')),
                ('stream', models.CharField(default='transactional', max_length=64)),
                ('lane', models.SmallIntegerField(default=deliveries.states.Lane['NORMAL'])),
                ('size', models.IntegerField(help_text='Octets of content before encoding.')),
                ('attachment_count', models.SmallIntegerField(default=0)),
                ('created_at', models.DateTimeField(help_text="When it was accepted, by the database's clock.")),
                ('scheduled_at', models.DateTimeField(null=True)),
                ('deliver_before', models.DateTimeField(null=True)),
                ('domain', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='deliveries.sendingdomain')),
                ('tenant', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='deliveries.tenant')),
            ],
            options={
                'db_table': 'message',
            },
        ),
        migrations.CreateModel(
            name='Membership',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('role', models.CharField(choices=[('owner', 'Owner'), ('developer', 'Developer'), ('viewer', 'Viewer')], default='viewer', max_length=12)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to='deliveries.tenant')),
            ],
            options={
                'db_table': 'membership',
            },
        ),
        migrations.CreateModel(
            name='InboundMessage',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('received_at', models.DateTimeField()),
                ('peer', models.TextField()),
                ('helo', models.TextField(blank=True)),
                ('reverse_path', models.TextField(blank=True)),
                ('forward_path', models.TextField()),
                ('octets', models.BinaryField()),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('acted', 'Acted'), ('read', 'Read'), ('unmatched', 'Unmatched'), ('unreadable', 'Unreadable'), ('kept', 'Kept')], default='waiting', max_length=12)),
                ('tries', models.SmallIntegerField(default=0)),
                ('kind', models.CharField(blank=True, max_length=20)),
                ('note', models.TextField(blank=True)),
                ('delivery_id', models.UUIDField(null=True)),
                ('tenant', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='deliveries.tenant')),
            ],
            options={
                'db_table': 'inbound_message',
            },
        ),
        migrations.CreateModel(
            name='Delivery',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('position', models.SmallIntegerField(default=0)),
                ('field', models.CharField(help_text='to, cc or bcc: where the address stood.', max_length=3)),
                ('recipient', models.TextField(help_text='The forward-path: local part as given, domain as A-label.')),
                ('status', models.CharField(max_length=12)),
                ('reason', models.TextField(blank=True, help_text='Why it stands there, in words.')),
                ('category', models.CharField(blank=True, max_length=20)),
                ('rule', models.CharField(blank=True, max_length=80)),
                ('enhanced', models.CharField(blank=True, max_length=12)),
                ('reply', models.TextField(blank=True, help_text="The peer's last words.")),
                ('host', models.TextField(blank=True, help_text='Who said so.')),
                ('attempts', models.IntegerField(default=0)),
                ('unknowns', models.SmallIntegerField(default=0, help_text='How often the final reply was lost; two are final.')),
                ('late', models.BooleanField(default=False, help_text='Bounced by a report after it was delivered.')),
                ('duplicate_possible', models.BooleanField(default=False)),
                ('complained_at', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField(help_text='Given up from then on.')),
                ('next_attempt_at', models.DateTimeField(null=True)),
                ('settled_at', models.DateTimeField(null=True)),
                ('message', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='deliveries', to='deliveries.message')),
                ('tenant', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='deliveries.tenant')),
            ],
            options={
                'verbose_name_plural': 'deliveries',
                'db_table': 'delivery',
            },
        ),
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('actor', models.CharField(help_text="A person's login, or key:<prefix>.", max_length=200)),
                ('action', models.CharField(max_length=60)),
                ('subject', models.CharField(max_length=300)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('tenant', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='deliveries.tenant')),
            ],
            options={
                'verbose_name_plural': 'audit entries',
                'db_table': 'audit_entry',
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='ApiKey',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=100)),
                ('prefix', models.CharField(help_text='The first characters, to tell keys apart.', max_length=12)),
                ('secret_hash', models.BinaryField(max_length=32, unique=True)),
                ('scope', models.CharField(choices=[('full_access', 'Full access'), ('sending_access', 'Sending only')], default='full_access', max_length=20)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('last_used_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='api_keys', to='deliveries.tenant')),
            ],
            options={
                'db_table': 'api_key',
                'ordering': ('-created_at',),
            },
        ),
        migrations.CreateModel(
            name='WebhookEndpoint',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('url', models.URLField(max_length=2000)),
                ('events', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), blank=True, default=list, size=None)),
                ('secret', deliveries.models.fields.EncryptedField(help_text='`whsec_` and base64, as the verifiers of Standard Webhooks take it.')),
                ('enabled', models.BooleanField(default=True)),
                ('disabled_reason', models.CharField(blank=True, max_length=300)),
                ('failing_since', models.DateTimeField(blank=True, help_text='The first failure since the last 2xx.', null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='endpoints', to='deliveries.tenant')),
            ],
            options={
                'db_table': 'webhook_endpoint',
                'ordering': ('-created_at',),
            },
        ),
        CreatePartitionedModel(
            name='WebhookDelivery',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('event_id', models.UUIDField(db_index=True)),
                ('type', models.CharField(max_length=40)),
                ('body', models.TextField(help_text='The JSON octets as they are signed, the same at every try.')),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('delivered', 'Delivered'), ('failed', 'Failed')], default='pending', max_length=10)),
                ('tries', models.SmallIntegerField(default=0)),
                ('next_try_at', models.DateTimeField()),
                ('created_at', models.DateTimeField()),
                ('endpoint', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='deliveries', to='deliveries.webhookendpoint')),
            ],
            options={
                'verbose_name_plural': 'webhook deliveries',
                'db_table': 'webhook_delivery',
            },
        ),
        CreatePartitionedModel(
            name='WebhookTry',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
                ('address', models.TextField(blank=True, help_text='The address that the URL was pinned to.')),
                ('status_code', models.SmallIntegerField(null=True)),
                ('elapsed_ms', models.IntegerField()),
                ('response', models.TextField(blank=True, help_text='The first 2 KB.')),
                ('error', models.TextField(blank=True)),
                ('delivery', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='log', to='deliveries.webhookdelivery')),
            ],
            options={
                'verbose_name_plural': 'webhook tries',
                'db_table': 'webhook_try',
            },
        ),
        CreatePartitionedModel(
            name='Attempt',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('number', models.IntegerField(help_text='The round it belongs to, from 1.')),
                ('host', models.TextField()),
                ('address', models.TextField()),
                ('port', models.IntegerField()),
                ('tls', models.CharField(blank=True, help_text='`TLSv1.3 TLS_AES_256_GCM_SHA384, verified`.', max_length=80)),
                ('started_at', models.DateTimeField()),
                ('finished_at', models.DateTimeField()),
                ('stage', models.CharField(max_length=10)),
                ('status', models.CharField(help_text='The verdict: delivered, deferred, bounced or unknown.', max_length=12)),
                ('category', models.CharField(blank=True, max_length=20)),
                ('rule', models.CharField(blank=True, max_length=80)),
                ('code', models.SmallIntegerField(null=True)),
                ('enhanced', models.CharField(blank=True, max_length=12)),
                ('reply', models.TextField(blank=True)),
                ('transcript', models.TextField(blank=True)),
                ('delivery', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='tries', to='deliveries.delivery')),
            ],
            options={
                'db_table': 'attempt',
                'indexes': [models.Index(fields=['delivery', 'id'], name='attempt_delivery')],
            },
        ),
        CreatePartitionedModel(
            name='Event',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.UUIDField()),
                ('type', models.CharField(max_length=40)),
                ('delivery_id', models.UUIDField(null=True)),
                ('recipient', models.TextField(blank=True)),
                ('data', models.JSONField(default=dict)),
                ('created_at', models.DateTimeField()),
                ('message', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='events', to='deliveries.message')),
            ],
            options={
                'db_table': 'event',
                'indexes': [models.Index(fields=['message', 'id'], name='event_message'), models.Index(fields=['tenant_id', '-id'], name='event_tenant')],
            },
        ),
        migrations.CreateModel(
            name='DkimKey',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('selector', models.CharField(max_length=63)),
                ('private_key', deliveries.models.fields.EncryptedField()),
                ('public_key', models.TextField(help_text='Base64, as it stands in p= of the DNS record.')),
                ('active', models.BooleanField(default=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('domain', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='dkim_keys', to='deliveries.sendingdomain')),
            ],
            options={
                'db_table': 'dkim_key',
                'constraints': [models.UniqueConstraint(fields=('domain', 'selector'), name='dkim_selector_once')],
            },
        ),
        migrations.CreateModel(
            name='Suppression',
            fields=[
                ('id', models.UUIDField(default=deliveries.models.fields.uuid7, editable=False, primary_key=True, serialize=False)),
                ('stream', models.CharField(default='*', max_length=64)),
                ('address', models.TextField(help_text='Lower case.')),
                ('reason', models.CharField(help_text='bounce, complaint, unsubscribe, manual or import.', max_length=12)),
                ('detail', models.TextField(blank=True, help_text='The reply or report that led here.')),
                ('source_event', models.UUIDField(null=True)),
                ('created_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='suppressions', to='deliveries.tenant')),
            ],
            options={
                'db_table': 'suppression',
                'indexes': [models.Index(fields=['tenant', '-id'], name='suppression_newest')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'stream', 'address'), name='suppression_once')],
            },
        ),
        migrations.AddConstraint(
            model_name='sendingdomain',
            constraint=models.UniqueConstraint(fields=('tenant', 'name'), name='sending_domain_once'),
        ),
        migrations.AddIndex(
            model_name='message',
            index=models.Index(fields=['tenant', '-id'], name='message_tenant'),
        ),
        migrations.AddIndex(
            model_name='message',
            index=django.contrib.postgres.indexes.GinIndex(django.contrib.postgres.search.SearchVector('subject', config='simple'), fastupdate=True, name='message_subject'),
        ),
        migrations.AddConstraint(
            model_name='membership',
            constraint=models.UniqueConstraint(fields=('user', 'tenant'), name='membership_once'),
        ),
        migrations.AddIndex(
            model_name='inboundmessage',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['id'], name='inbound_waiting'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(fields=['tenant', 'status', '-id'], name='delivery_status'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(fields=['recipient'], name='delivery_recipient', opclasses=('text_pattern_ops',)),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(condition=models.Q(('state', 'pending')), fields=['next_try_at'], name='webhook_due'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(fields=['endpoint', '-id'], name='webhook_endpoint_log'),
        ),
    ]
