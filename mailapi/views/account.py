"""What the tenant has: domains."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from deliveries.read import account as read
from mailapi.schemas.openapi import describe_domains
from mailapi.views.base import View, listed, page_of


@describe_domains
class Domains(View):
    def get(self, request: Request) -> HttpResponse:
        return listed(*read.domains(self.caller().tenant_id, *page_of(request)))
