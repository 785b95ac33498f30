"""The service's own settings, but webhooks may be posted to loopback: the benchmark's receiver of webhooks is there."""

import os

from mailapi.settings import *  # noqa: F403

WEBHOOK_ALLOW_PRIVATE = True

if os.environ.get("BENCH_STAMPS"):
    INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.stamps.Stamps"]  # noqa: F405
