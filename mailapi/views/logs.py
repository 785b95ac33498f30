"""What was asked of the API, and answered."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from deliveries.read import logs as read
from mailapi.schemas.openapi import describe_log, describe_logs
from mailapi.views.base import View, found, listed, page_of, path_id, refuse_unknown


@describe_logs
class Logs(View):
    noted = False

    def get(self, request: Request) -> HttpResponse:
        return listed(*read.page(self.caller().tenant_id, *page_of(request)))


@describe_log
class Log(View):
    noted = False

    def get(self, request: Request, log_id: str) -> HttpResponse:
        refuse_unknown(request)
        return found(read.one(self.caller().tenant_id, path_id(log_id)))
