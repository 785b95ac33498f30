from django.apps import AppConfig


class MailapiConfig(AppConfig):
    name = "mailapi"

    def ready(self) -> None:
        # celery: so that every process can ring the bell through the right broker; checks: registered by being imported
        from mailapi import celery, checks  # noqa: F401
