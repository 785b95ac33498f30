"""Ours, and one app more."""

from mailapi.settings import *  # noqa: F403
from mailapi.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.fakes.growing"]
