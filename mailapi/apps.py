from django.apps import AppConfig


class MailapiConfig(AppConfig):
    name = "mailapi"

    def ready(self) -> None:
        from mailapi import celery  # noqa: F401  so that every process can ring the bell through the right broker
