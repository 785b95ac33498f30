"""A setting with nonsense in it: one line that names it, an exit code, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READ = """
import sys
from django.core.exceptions import ImproperlyConfigured
try:
    import mailapi.settings
except ImproperlyConfigured as e:
    sys.exit(str(e))
"""
GOOD = {
    "DATABASE_URL": "postgres://u:p@127.0.0.1:5432/n",
    "BROKER_URL": "redis://127.0.0.1:6379/0",
    "SECRET_KEY": "s",
    "FIELD_KEYS": "f",
    "VERP_KEYS": "v",
}


def read(**settings):
    """Reads the settings in a process of its own; the process that has ended."""
    env = {"PATH": os.environ["PATH"], **GOOD, **settings}
    return subprocess.run([sys.executable, "-c", READ], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_settings_of_the_usual_kinds_are_read():
    usual = read(
        BROKER_URL="amqp://u:p@mq.example.net//",
        REDIS_URL="rediss://:p@[::1]:6380/1",
        BASE_URL="https://mail.example.com/",
        DNS_NAMESERVERS="127.0.0.1:53,[::1]:5353",
        SOURCE_IPS="192.0.2.1, 2001:db8::1",
        HELO_NAME="mail.example.com",
        RETRY_SCHEDULE="60, 300.5",
        MAX_AGE="86400",
        SMTP_PORT="2525",
        LOG_LEVEL="debug",
    )
    assert (usual.returncode, usual.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://u:p@host:port/name"),
        ("DATABASE_URL", "postgres://[::1/name"),
        ("BROKER_URL", "nonsense://host"),
        ("REDIS_URL", "http://host"),
        ("BASE_URL", "mail.example.com"),
        ("BASE_URL", "http://host:port"),
        ("BASE_URL", "http://[x"),
        ("BASE_URL", "https://"),
        ("SANDBOX_SMTP", "127.0.0.1:99999"),
        ("SANDBOX_DOMAIN", "not a domain"),
        ("DNS_NAMESERVERS", "ns.example.com:53"),
        ("SOURCE_IPS", "1.2.3"),
        ("WARM_UP", "50,many"),
        ("WARM_UP", "50,0"),
        ("SMTP_PORT", "99999"),
        ("SMTP_PORT", "nan"),
        ("MTA_STS_PORT", "0"),
        ("SMTP_CA_FILE", "/nowhere/ca.pem"),
        ("SMTP_CA_FILE", str(Path(__file__))),
        ("HELO_NAME", "-"),
        ("HELO_NAME", "a.example\r\nMAIL FROM:<>"),
        ("BOUNCE_DOMAIN", "a b"),
        ("RETRY_SCHEDULE", "soon"),
        ("RETRY_SCHEDULE", "60,nan"),
        ("RETRY_SCHEDULE", "0"),
        ("MAX_AGE", "1e300"),
        ("UNKNOWN_WAIT_S", "inf"),
        ("LEASE_S", "nan"),
        ("IN_FLIGHT", "inf"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_nonsense_in_a_setting_is_one_line_that_names_it(name, value):
    told = read(**{name: value})
    assert told.returncode == 1
    assert told.stderr.startswith(name)
    assert len(told.stderr.splitlines()) == 1


def test_an_empty_variable_counts_as_unset():
    left_out = read(MAX_AGE="", HELO_NAME="", RETRY_SCHEDULE="", REDIS_URL="", SMTP_PORT="", DNS_TRUST_AD="")
    assert (left_out.returncode, left_out.stderr) == (0, "")
    assert read(SECRET_KEY="").stderr.startswith("SECRET_KEY is not set")


def test_an_address_with_a_password_in_it_is_not_repeated():
    assert "hush" not in read(BROKER_URL="http://u:hush@host").stderr
