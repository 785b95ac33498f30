"""The engine that carries work to workers. The broker holds nothing that Postgres cannot rebuild."""

from __future__ import annotations

import contextlib
import gc
import logging.config
import os
import time
from pathlib import Path
from typing import Any

import redis
from celery import Celery, bootsteps
from celery.signals import before_task_publish, setup_logging, worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")

from django.conf import settings

from deliveries import metrics
from mailapi import environment, logs

with environment.refusing():
    app = Celery("mailapi", broker=settings.BROKER_URL)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_default_queue="jobs",
    task_routes={"deliveries.deliver": {"queue": "deliver"}},
    task_acks_late=False,  # the queue rows remember what is to be done; a message is only a bell
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 1, "visibility_timeout": 3600},
    worker_cancel_long_running_tasks_on_connection_loss=False,
    beat_scheduler="mailapi.clocks:Scheduler",
    beat_schedule={
        # every bell expires before many pile up behind a stopped worker (forget_the_unheard)
        "deliver": {"task": "deliveries.deliver", "schedule": 1.0, "options": {"queue": "deliver", "expires": 5}},
        "sweep": {"task": "deliveries.sweep", "schedule": 5.0, "options": {"expires": 5}},
        "notify": {"task": "deliveries.notify", "schedule": 1.0, "options": {"expires": 5}},
        "feedback": {"task": "deliveries.feedback", "schedule": 1.0, "options": {"expires": 5}},
        # each mailbox once a minute, and within ten seconds where a person asks for it
        "mailboxes": {"task": "deliveries.mailboxes", "schedule": 10.0, "options": {"expires": 10}},
        "brakes": {"task": "deliveries.brakes", "schedule": 10.0, "options": {"expires": 10}},
        "watch": {"task": "deliveries.watch", "schedule": 60.0, "options": {"expires": 60}},
        # each domain has a due time of its own: minutes where a person waits, hours where all is well
        "domains": {"task": "deliveries.domains", "schedule": 20.0, "options": {"expires": 20}},
        "dsn": {"task": "deliveries.dsn", "schedule": 5.0, "options": {"expires": 5}},
        "tally": {"task": "deliveries.tally", "schedule": 10.0, "options": {"expires": 10}},
        "forward": {"task": "deliveries.forward", "schedule": 2.0, "options": {"expires": 2}},
        "alerts": {"task": "deliveries.alerts", "schedule": 15.0, "options": {"expires": 15}},
        "listings": {"task": "deliveries.listings", "schedule": 3600.0, "options": {"expires": 600}},
        # each domain's once a day, at a time of its own
        "tls_reports": {"task": "deliveries.tls_reports", "schedule": 600.0, "options": {"expires": 600}},
        "erase": {"task": "deliveries.erase", "schedule": 30.0, "options": {"expires": 30}},
        "archive": {"task": "deliveries.archive", "schedule": 30.0, "options": {"expires": 30}},
        "redact": {"task": "deliveries.redact", "schedule": 10.0, "options": {"expires": 10}},
        "housekeeping": {"task": "deliveries.housekeeping", "schedule": 3600.0, "options": {"expires": 600}},
    },
)
app.Task.Request = "mailapi.clocks:Bell"
#: bells that are kept, the newest; each stands for all before it, and 2,000 are rung in eight minutes
MOST_UNHEARD = {"deliver": 100, "jobs": 2_000}
FORGET_S = 5.0
#: how long beat waits for the broker with that
PATIENCE_S = 1.0
_forget_at = 0.0
# tasks see to their connections (tasks._fresh); Celery would end the pool and its threads before and after each
app.conf["CELERY_DB_REUSE_MAX"] = 10_000
app.autodiscover_tasks(["deliveries"])


def say_that_we_live() -> None:
    """To all others, and to whoever looks at this process alone."""
    metrics.alive(settings.ROLE)
    if settings.ALIVE_FILE:
        with contextlib.suppress(OSError):  # as above, nothing depends on it but the sign itself
            Path(settings.ALIVE_FILE).touch()


class Lives(bootsteps.StartStopStep):
    """A worker says that it lives as often as its consumer's timer goes round, whether anybody rings or not.

    What it does not tell, the watchdog (deliver) and Celery's time limits (jobs) end: work that stands still.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _saying: Any = None

    def start(self, c: Any) -> None:
        self._saying = c.timer.call_repeatedly(metrics.SIGN_S, say_that_we_live)
        say_that_we_live()

    def stop(self, c: Any) -> None:
        # the broker is lost, and the consumer starts anew once it is back
        if self._saying is not None:
            self._saying.cancel()


app.steps["consumer"].add(Lives)


@before_task_publish.connect
def say_that_beat_lives(**kwargs: object) -> None:
    """By its ringing, heard or not: it is not beat that is gone where no worker answers."""
    if settings.ROLE == "beat":
        say_that_we_live()
        forget_the_unheard()


def forget_the_unheard() -> None:
    """What expired is worth nothing, and yet a list of Valkey's keeps it until somebody takes it. RabbitMQ forgets.

    Nobody does while each pump has always something to do, or a worker stands: memory would run full, and mail that
    comes after that time would wait until the workers had thrown all of it away.
    """
    global _forget_at
    if time.monotonic() < _forget_at or not settings.BROKER_URL.startswith("redis"):
        return
    _forget_at = time.monotonic() + FORGET_S
    patience = {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
    # as everywhere, nothing depends on it
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(settings.BROKER_URL, **patience) as broker:
        for queue, most in MOST_UNHEARD.items():
            broker.ltrim(queue, 0, most - 1)


@setup_logging.connect
def log_as_everywhere(**kwargs: object) -> None:
    """By LOG_LEVEL, as the other parts do; left to itself, Celery would drop whatever is no warning."""
    logging.config.dictConfig(settings.LOGGING)


@worker_init.connect
def refuse_to_start(**kwargs: object) -> None:
    """A worker with bad settings, or on a database that forgets, ends with one line before it takes a bell."""
    import django
    from celery.apps import worker

    worker.safe_say = logs.say
    django.setup()
    from mailapi import checks, giving_way

    checks.refuse_to_start()
    if settings.ROLE == "jobs":
        giving_way.give_way(settings.JOBS_NICE)
    # what was loaded stays: the collector need not look at it for every few hundred objects of a mail
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
