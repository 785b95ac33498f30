"""Tenants and their people: made, invited, given another role, let go. The operator's orders and an owner's alike.

A tenant that has an owner keeps one: the last can neither be removed nor become less, by whomever. What roles may do
stands in deliveries.admin.access.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from deliveries.errors import BadInput, Fault
from deliveries.models import AuditEntry, Membership, Tenant, User

Role = Membership.Role

_LAST = "this is the last owner; make another member an owner first."


def tenant_of(tenant_id: UUID) -> Tenant | None:
    return Tenant.objects.filter(id=tenant_id).first()


def create_tenant(name: str, actor: str, **settings: Any) -> Tenant:
    """`settings`: as change_tenant(). BadInput when the name is empty, too long or taken."""
    name = _one_line(name)
    with _one_of_its_name(name), transaction.atomic():
        tenant = Tenant.objects.create(name=name, **settings)
        AuditEntry.objects.create(tenant=tenant, actor=actor[:200], action="tenant.created", subject=name)
    return tenant


def change_tenant(tenant: Tenant, actor: str, **wishes: Any) -> None:
    """Those of name, daily_quota, monthly_quota (None: any number) and privacy that are there; BadInput as above.

    Quotas and privacy hold for what is accepted from now on: what was used before a quota was given is not counted, and
    nothing that was kept goes or comes back by privacy mode.
    """
    before = tenant.name
    if "name" in wishes:
        wishes["name"] = _one_line(wishes["name"])
    if not wishes:
        return
    with _one_of_its_name(wishes.get("name", before)), transaction.atomic():
        Tenant.objects.filter(id=tenant.id).update(**wishes)
        told = ", ".join(f"{name} {'any number' if value is None else value}" for name, value in wishes.items())
        AuditEntry.objects.create(
            tenant=tenant, actor=actor[:200], action="tenant.changed", subject=f"{before}: {told}"[:300]
        )
    tenant.refresh_from_db()


def _one_line(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 200 or not name.isprintable():
        raise BadInput([Fault("name", "invalid_parameter", "Must be one line of 1 to 200 characters.")])
    return name


@contextmanager
def _one_of_its_name(name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        words = f"There is a tenant named {name} already; take another name."
        raise BadInput([Fault("name", "already_exists", words)]) from None


def invite(tenant: Tenant, login: str, role: str, actor: str) -> tuple[Membership, str | None]:
    """A member by login or mail address; the second is the first password where the login is new, else None.

    A new login is best a mail address: it is kept as one too. BadInput when it cannot be a login, or is a member.
    """
    login = _normal(login)
    try:
        User.username_validator(login)
    except ValidationError as e:
        raise BadInput([Fault("login", "invalid_parameter", " ".join(e.messages))]) from None
    if not login or len(login) > 150:
        raise BadInput([Fault("login", "invalid_parameter", "Must have 1 to 150 characters.")])
    _check_role(role)
    with transaction.atomic():
        user = _user(login)
        password = None
        if user is None:
            password = secrets.token_urlsafe(12)
            mail = login if _is_address(login) else ""
            try:
                with transaction.atomic():
                    user = User.objects.create_user(login, email=mail, password=password, is_staff=True)
            except IntegrityError:  # somebody invites the same person at this moment
                user, password = User.objects.get(username=login), None
        member, new = Membership.objects.get_or_create(user=user, tenant=tenant, defaults={"role": role})
        if not new:
            raise BadInput([Fault("login", "already_exists", "This person is a member already.")])
        _audit(member, actor, "member.added")
    return member, password


def elsewhere(login: str, tenants: Collection[UUID]) -> bool:
    """Whether there is such a login, and none of `tenants` has it.

    Whoever made it chose its name and saw its first password: the name alone says nothing of who uses it.
    """
    user = _user(_normal(login))
    return user is not None and not Membership.objects.filter(user=user, tenant_id__in=tenants).exists()


def set_role(member_id: int, role: str, actor: str) -> Membership | None:
    """None where there is no such member; BadInput for the last owner."""
    _check_role(role)
    with transaction.atomic():
        member = _locked(member_id)
        if member is None or member.role == role:
            return member
        _keep_an_owner(member)
        member.role = role
        member.save(update_fields=["role"])
        _audit(member, actor, "member.changed")
    return member


def remove(member_id: int, actor: str) -> bool:
    """The login stays, for other tenants; False where there is no such member. BadInput for the last owner."""
    with transaction.atomic():
        member = _locked(member_id)
        if member is None:
            return False
        _keep_an_owner(member)
        _audit(member, actor, "member.removed")
        member.delete()
    return True


def remove_login(user_id: int, actor: str) -> bool:
    """The login with its memberships and second factor; False where there is none. BadInput for a last owner."""
    with transaction.atomic():
        members = Membership.objects.filter(user_id=user_id)
        # all at once, in order: two who take each other's away take turns
        list(Tenant.objects.select_for_update().filter(memberships__user_id=user_id).order_by("id"))
        for member in members.select_related("user", "tenant"):
            _keep_an_owner(member)
            _audit(member, actor, "member.removed")
        user = User.objects.filter(id=user_id).first()
        if user is None:
            return False
        AuditEntry.objects.create(tenant_id=None, actor=actor[:200], action="login.removed", subject=str(user)[:300])
        user.delete()
    return True


def member_of(tenant_id: UUID, login: str) -> Membership | None:
    if "\0" in login:  # no text of Postgres holds it
        return None
    return Membership.objects.select_related("user").filter(tenant_id=tenant_id, user=_user(_normal(login))).first()


def _normal(login: str) -> str:
    """As Django keeps it (NFKC)."""
    return User.normalize_username(login.strip())


def _user(login: str) -> User | None:
    """The same person in any case of letters; where two logins differ in it alone, the exact one."""
    same = User.objects.filter(username__iexact=login)
    return same.filter(username=login).first() or same.first()


def _locked(member_id: int) -> Membership | None:
    """The member, and the tenant locked: two owners who let each other go at once take turns."""
    tenant_id = Membership.objects.filter(id=member_id).values_list("tenant_id", flat=True).first()
    if tenant_id is None:
        return None
    Tenant.objects.select_for_update().get(id=tenant_id)
    return Membership.objects.select_related("user", "tenant").filter(id=member_id).first()


def _keep_an_owner(member: Membership) -> None:
    owners = Membership.objects.filter(tenant_id=member.tenant_id, role=Role.OWNER)
    if member.role == Role.OWNER and not owners.exclude(id=member.id).exists():
        raise BadInput([Fault("role", "last_owner", f"{member.user} at {member.tenant}: {_LAST}")])


def _check_role(role: str) -> None:
    if role not in Role.values:
        raise BadInput([Fault("role", "invalid_choice", f"Must be one of {', '.join(Role.values)}.")])


def _is_address(login: str) -> bool:
    try:
        validate_email(login)
    except ValidationError:
        return False
    return True


def _audit(member: Membership, actor: str, action: str) -> None:
    AuditEntry.objects.create(tenant_id=member.tenant_id, actor=actor[:200], action=action, subject=str(member)[:300])
