"""Shapes of /tenants: what an operator's program asks, what is answered, and their description."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from pydantic import AfterValidator, Field, PlainValidator, StrictBool, WithJsonSchema

from mailapi.schemas.answers import Answer
from mailapi.schemas.api_keys import ApiKeyCreated, ApiKeyDeleted, ApiKeyList, CreateApiKey
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.openapi import _PAGE as PAGE
from mailapi.schemas.openapi import _answers as answers

#: a column of Postgres' integer
MOST_RECIPIENTS = 2**31 - 1
MAX_LOGIN = 150
Role = Literal["owner", "developer", "viewer"]


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise fault("invalid_parameter", "Must be one line of text.")
    return value.strip()


def _name(value: str) -> str:
    if not (value := _one_line(value)):
        raise fault("invalid_parameter", "Must be one line of text that names the tenant.")
    return value


def _quota(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MOST_RECIPIENTS:
        raise fault("invalid_parameter", f"Must be a whole number from 0 to {MOST_RECIPIENTS}, or null for any number.")
    return value


_Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_name)]
_Quota = Annotated[
    int | None,
    PlainValidator(_quota),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": MOST_RECIPIENTS}, {"type": "null"}]}),
]


class _Settings(Shape):
    resets: ClassVar[frozenset[str]] = frozenset({"daily_quota", "monthly_quota"})

    daily_quota: _Quota = Field(default=None, description="Recipients a day (UTC); null: any number.")
    monthly_quota: _Quota = Field(default=None, description="Recipients a month (UTC); null: any number.")
    privacy: StrictBool = Field(default=False, description="Nothing is tracked, and finished mail keeps no content.")

    def wishes(self) -> dict[str, Any]:
        """By column; what was not asked for is missing."""
        return self.model_dump(include=self.model_fields_set)


class CreateTenant(_Settings):
    """A customer of the installation, by a name that no other has."""

    name: _Name


class UpdateTenant(_Settings):
    """What is not there stays as it is."""

    name: _Name = Field(default="", description="One line that no other tenant is named by.")


class FindTenant(Shape):
    name: _Name = Field(default="", description="Of that very name.")


class SuspendTenant(Shape):
    reason: Annotated[str, Field(max_length=300), AfterValidator(_one_line)] = Field(
        default="", description="Why, in words; the tenant's webhooks are told (`tenant.held`)."
    )


class InviteMember(Shape):
    """A person, who may have a login already."""

    login: Annotated[str, Field(min_length=1, max_length=MAX_LOGIN)] = Field(
        description="Best a mail address. A new login gets a first password."
    )
    role: Role


class UpdateMember(Shape):
    role: Role


class TenantLine(Answer):
    id: str
    name: str
    created_at: str
    status: Literal["active", "suspended"]
    suspended_at: str | None
    suspended_reason: str
    daily_quota: int | None
    daily_used: int | None = Field(description="Recipients whose mail is due today (UTC); null without a quota.")
    monthly_quota: int | None
    monthly_used: int | None
    privacy: bool


class Tenant(TenantLine):
    object: Literal["tenant"]


class TenantList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[TenantLine]


class MemberLine(Answer):
    login: str
    email: str
    role: Role
    last_login_at: str | None


class Member(MemberLine):
    object: Literal["member"]


class MemberInvited(Member):
    first_password: str | None = Field(description="Of a new login: shown this once, to be handed over; else null.")


class MemberRemoved(Answer):
    object: Literal["member"]
    login: str
    deleted: Literal[True]


class MemberList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[MemberLine]


_TAG = ["tenants"]
_TENANT_ID = OpenApiParameter("tenant_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_KEY_ID = OpenApiParameter("key_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_LOGIN = OpenApiParameter("login", OpenApiTypes.STR, OpenApiParameter.PATH, description="In any case of letters.")


def _operation(name: str, summary: str, answer: Any, *errors: int, path: Any = (), **more: Any) -> Any:
    status = more.pop("status", 200)
    return extend_schema(
        operation_id=name, summary=summary, tags=_TAG, parameters=[_TENANT_ID, *path, *more.pop("query", ())],
        responses=answers(answer, 404, *errors, status=status), **{"request": None, **more},
    )  # fmt: skip


describe_tenants = extend_schema_view(
    get=extend_schema(
        operation_id="listTenants", summary="List tenants, newest first", tags=_TAG, request=None,
        parameters=[*PAGE, OpenApiParameter("name", {"type": "string"}, description="Of that very name.")],
        responses=answers(TenantList, 422),
    ),
    post=extend_schema(
        operation_id="createTenant", summary="Make a tenant", tags=_TAG, request=CreateTenant,
        responses=answers(Tenant, 400, 413, 422, status=201),
        description="422 `already_exists` where one has this name: `GET /tenants?name=` finds it.",
    ),
)  # fmt: skip
describe_tenant = extend_schema_view(
    get=_operation("getTenant", "A tenant, and what it has used of its quotas", Tenant),
    patch=_operation("updateTenant", "Another name, quotas, privacy mode", Tenant, 400, 413, 422, request=UpdateTenant),
)
describe_suspend = extend_schema_view(
    post=_operation(
        "suspendTenant", "Neither accept nor send its mail", Tenant, 400, 413, 422, request=SuspendTenant,
        description="What is queued is held. One that is suspended already stays as it is.",
    )
)  # fmt: skip
describe_resume = extend_schema_view(
    post=_operation("resumeTenant", "Accept and send again; what was held is due at once", Tenant, 400, 413, 422)
)
describe_keys = extend_schema_view(
    get=_operation("listTenantApiKeys", "List its API keys, newest first", ApiKeyList, 422, query=PAGE),
    post=_operation(
        "createTenantApiKey", "Make an API key of it", ApiKeyCreated, 400, 413, 422, status=201, request=CreateApiKey,
        description="Whoever has it reads the tenant's mail as far as its permission goes; takes an operator key with "
        "full_access.",
    ),
)  # fmt: skip
describe_key = extend_schema_view(
    delete=_operation("deleteTenantApiKey", "Revoke one of its API keys", ApiKeyDeleted, path=[_KEY_ID])
)
_BY_LOGIN = [
    PAGE[0],
    OpenApiParameter("after", {"type": "string"}, description="A login: those that follow."),
    OpenApiParameter("before", {"type": "string"}, description="A login: those before it."),
]
describe_members = extend_schema_view(
    get=_operation("listMembers", "List its people, by login", MemberList, 422, query=_BY_LOGIN),
    post=_operation(
        "inviteMember", "Give a person a role in it", MemberInvited, 400, 413, 422, status=201, request=InviteMember,
        description="Takes an operator key with full_access.",
    ),
)  # fmt: skip
describe_member = extend_schema_view(
    get=_operation("getMember", "A person of it", Member, path=[_LOGIN]),
    patch=_operation(
        "updateMember", "Give a person another role", Member, 400, 413, 422, path=[_LOGIN], request=UpdateMember,
        description="422 `last_owner` where it would leave the tenant without an owner.",
    ),
    delete=_operation(
        "removeMember", "Take a person out of it", MemberRemoved, 422, path=[_LOGIN],
        description="The login stays, for other tenants. 422 `last_owner` as above.",
    ),
)  # fmt: skip
