"""Tenants, their API keys and members, for the programs of an operator: the panel's orders by HTTP.

Nothing here takes a tenant's key, and no other view an operator's. There is no DELETE of a tenant, as in the panel: a
suspended one sends nothing, and what it kept goes with retention.
"""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from django.utils import timezone
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries import keys, people
from deliveries.models import Membership
from deliveries.models import Tenant as TenantRow
from deliveries.operators import Operator
from deliveries.read import account
from deliveries.read import tenants as read
from deliveries.record import brakes
from mailapi.auth import HasOperatorKey, OperatorAuthentication
from mailapi.schemas.api_keys import CreateApiKey, across_fields
from mailapi.schemas.body import json_body
from mailapi.schemas.faults import Shape, read_shape
from mailapi.schemas.tenants import (
    MAX_LOGIN,
    CreateTenant,
    FindTenant,
    InviteMember,
    SuspendTenant,
    UpdateMember,
    UpdateTenant,
    describe_key,
    describe_keys,
    describe_member,
    describe_members,
    describe_resume,
    describe_suspend,
    describe_tenant,
    describe_tenants,
)
from mailapi.views.base import View, found, listed, page_by, page_of, path_id, read_query, shape_of


class _ForOperators(View):
    authentication_classes = (OperatorAuthentication,)
    permission_classes = (HasOperatorKey,)
    #: methods that give somebody a way to the tenant's mail
    hands_out: tuple[str, ...] = ()

    def actor(self) -> str:
        operator: Operator = self.request.user  # type: ignore[assignment]
        return operator.actor

    def tenant(self, text: str) -> TenantRow:
        row = people.tenant_of(path_id(text))
        if row is None:
            raise NotFound("There is no tenant with this id.")
        return row

    def member(self, tenant: TenantRow, login: str) -> Membership:
        row = people.member_of(tenant.id, login)
        if row is None:
            raise NotFound("The tenant has no member with this login.")
        return row


@describe_tenants
class Tenants(_ForOperators):
    def get(self, request: Request) -> HttpResponse:
        page = page_of(request, "name")
        return listed(*read.page(read_query(request, FindTenant).name, *page))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            wanted = read_shape(body, CreateTenant)
        made = people.create_tenant(actor=self.actor(), **wanted.wishes())
        return JsonResponse(read.one(made), status=201)


@describe_tenant
class Tenant(_ForOperators):
    def get(self, request: Request, tenant_id: str) -> HttpResponse:
        return found(read.one(self.tenant(tenant_id)))

    def patch(self, request: Request, tenant_id: str) -> HttpResponse:
        tenant = self.tenant(tenant_id)
        with json_body(request._request) as body:
            wanted = read_shape(body, UpdateTenant)
        people.change_tenant(tenant, self.actor(), **wanted.wishes())
        return found(read.one(tenant))


@describe_suspend
class Suspend(_ForOperators):
    def post(self, request: Request, tenant_id: str) -> HttpResponse:
        tenant = self.tenant(tenant_id)
        reason = shape_of(request, SuspendTenant).reason or "Suspended by the operator."
        brakes.hold_tenant(tenant.id, reason, self.actor(), timezone.now())
        return found(read.one(self.tenant(tenant_id)))


@describe_resume
class Resume(_ForOperators):
    def post(self, request: Request, tenant_id: str) -> HttpResponse:
        tenant = self.tenant(tenant_id)
        shape_of(request, Shape)
        brakes.release_tenant(tenant.id, self.actor())
        return found(read.one(self.tenant(tenant_id)))


@describe_keys
class ApiKeys(_ForOperators):
    hands_out = ("POST",)

    def get(self, request: Request, tenant_id: str) -> HttpResponse:
        return listed(*account.api_keys(self.tenant(tenant_id).id, *page_of(request)))

    def post(self, request: Request, tenant_id: str) -> HttpResponse:
        tenant = self.tenant(tenant_id)
        with json_body(request._request) as body:
            wanted = read_shape(body, CreateApiKey, across_fields)
        made, secret = keys.grant(tenant.id, wanted.name, wanted.permission, self.actor(), **wanted.limits())
        return JsonResponse({"id": str(made.id), "token": secret}, status=201)


@describe_key
class ApiKey(_ForOperators):
    def delete(self, request: Request, tenant_id: str, key_id: str) -> HttpResponse:
        tenant, ident = self.tenant(tenant_id), path_id(key_id)
        gone = keys.revoke([ident], self.actor(), tenant.id)
        return found({"object": "api_key", "id": str(ident), "deleted": True} if gone else None)


def _login(text: str) -> str:
    if "\0" in text or len(text) > MAX_LOGIN:
        raise ValueError
    return text


@describe_members
class Members(_ForOperators):
    hands_out = ("POST",)

    def get(self, request: Request, tenant_id: str) -> HttpResponse:
        return listed(*read.members(self.tenant(tenant_id).id, *page_by(_login, request)))

    def post(self, request: Request, tenant_id: str) -> HttpResponse:
        tenant = self.tenant(tenant_id)
        with json_body(request._request) as body:
            wanted = read_shape(body, InviteMember)
        made, password = people.invite(tenant, wanted.login, wanted.role, self.actor())
        return JsonResponse({**read.member(made), "first_password": password}, status=201)


@describe_member
class Member(_ForOperators):
    def get(self, request: Request, tenant_id: str, login: str) -> HttpResponse:
        return found(read.member(self.member(self.tenant(tenant_id), login)))

    def patch(self, request: Request, tenant_id: str, login: str) -> HttpResponse:
        row = self.member(self.tenant(tenant_id), login)
        with json_body(request._request) as body:
            wanted = read_shape(body, UpdateMember)
        changed = people.set_role(row.id, wanted.role, self.actor())
        return found(changed and read.member(changed))

    def delete(self, request: Request, tenant_id: str, login: str) -> HttpResponse:
        row = self.member(self.tenant(tenant_id), login)
        gone = people.remove(row.id, self.actor())
        return found({"object": "member", "login": row.user.username, "deleted": True} if gone else None)
