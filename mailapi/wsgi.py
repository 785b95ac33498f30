"""The web process, as granian loads it."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")
django = get_wsgi_application()

from django.conf import settings  # noqa: E402

from mailapi.bodies import Gate  # noqa: E402
from mailapi.checks import refuse_to_start  # noqa: E402  needs Django

refuse_to_start()
application = Gate(django, settings.WEB_THREADS, settings.BODY_S, settings.MAX_BODY_OCTETS)

# what was loaded stays: the collector need not look at it for every few requests
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 50)

from deliveries import alerts  # noqa: E402

# when beat, jobs or deliver is what is gone, this process says so
alerts.stand_watch("web")
