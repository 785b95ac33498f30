"""The service's own settings, but webhooks may be posted to loopback: the benchmark's receiver of webhooks is there."""

from mailapi.settings import *  # noqa: F403

WEBHOOK_ALLOW_PRIVATE = True
