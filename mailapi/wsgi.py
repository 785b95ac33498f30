"""The web process, as granian loads it."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")
application = get_wsgi_application()

from mailapi.checks import refuse_to_start  # noqa: E402  needs Django

refuse_to_start()

# what was loaded stays: the collector need not look at it for every few requests
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 50)
