"""The web process, as granian loads it."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")
application = get_wsgi_application()

from mailapi.checks import refuse_to_start  # noqa: E402  needs Django

refuse_to_start()
