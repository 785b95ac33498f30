"""Sending domains: added, with the records to publish; verified, changed, given new keys, removed."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries import domains
from deliveries.domains import claims
from deliveries.read import domains as read
from mailapi.schemas.body import json_body
from mailapi.schemas.domains import (
    CreateDomain,
    UpdateDomain,
    describe_claim,
    describe_claim_verify,
    describe_claims,
    describe_domain,
    describe_domain_rotate,
    describe_domain_verify,
    describe_domains,
)
from mailapi.schemas.faults import Shape, read_shape
from mailapi.views.base import View, found, listed, page_of, path_id, shape_of


@describe_domains
class Domains(View):
    def get(self, request: Request) -> HttpResponse:
        return listed(*read.page(self.caller().tenant_id, *page_of(request)))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            wanted = read_shape(body, CreateDomain)
        caller = self.caller()
        made = domains.create(caller.tenant_id, wanted.name, f"key:{caller.key_id}", **wanted.wishes())
        return JsonResponse(read.one(caller.tenant_id, made), status=201)


@describe_domain
class Domain(View):
    def get(self, request: Request, domain_id: str) -> HttpResponse:
        return found(read.one(self.caller().tenant_id, path_id(domain_id)))

    def patch(self, request: Request, domain_id: str) -> HttpResponse:
        caller, ident = self.caller(), path_id(domain_id)
        with json_body(request._request) as body:
            # the SDK repeats the path's id in the body
            if isinstance(body.value, dict):
                body.value.pop("id", None)
            wanted = read_shape(body, UpdateDomain)
        domains.update(caller.tenant_id, ident, f"key:{caller.key_id}", **wanted.wishes())
        return _now(caller.tenant_id, ident)

    def delete(self, request: Request, domain_id: str) -> HttpResponse:
        caller, ident = self.caller(), path_id(domain_id)
        gone = domains.remove(caller.tenant_id, ident, f"key:{caller.key_id}")
        return found({"object": "domain", "id": str(ident), "deleted": True} if gone else None)


@describe_domain_verify
class Verify(View):
    def post(self, request: Request, domain_id: str) -> HttpResponse:
        caller, ident = self.caller(), path_id(domain_id)
        shape_of(request, Shape)
        domains.verify(caller.tenant_id, ident, f"key:{caller.key_id}")
        return _now(caller.tenant_id, ident)


@describe_domain_rotate
class Rotate(View):
    def post(self, request: Request, domain_id: str) -> HttpResponse:
        caller, ident = self.caller(), path_id(domain_id)
        shape_of(request, Shape)
        domains.rotate(caller.tenant_id, ident, f"key:{caller.key_id}")
        return _now(caller.tenant_id, ident)


@describe_claims
class Claims(View):
    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            wanted = read_shape(body, CreateDomain)
        caller = self.caller()
        made = claims.claim(caller.tenant_id, wanted.name, f"key:{caller.key_id}", **wanted.wishes())
        return JsonResponse(read.claim(caller.tenant_id, made), status=201)


@describe_claim
class Claim(View):
    def get(self, request: Request, domain_id: str) -> HttpResponse:
        return found(read.claim(self.caller().tenant_id, path_id(domain_id)))


@describe_claim_verify
class ClaimVerify(View):
    def post(self, request: Request, domain_id: str) -> HttpResponse:
        caller, ident = self.caller(), path_id(domain_id)
        shape_of(request, Shape)
        claims.verify(caller.tenant_id, ident, f"key:{caller.key_id}")
        return found(read.claim(caller.tenant_id, ident))


def _now(tenant_id: UUID, ident: UUID) -> HttpResponse:
    """The domain after an order; 404 where there was none to give it to."""
    return found(read.one(tenant_id, ident))
