"""A domain may have an Ed25519 key beside its RSA key (RFC 8463)."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0047_tls_sessions"),
    ]

    operations = [
        migrations.AddField(
            model_name="dkimkey",
            name="key_type",
            field=models.CharField(
                db_default="rsa", default="rsa", help_text="As it stands in k= of the DNS record.", max_length=10
            ),
        ),
    ]
