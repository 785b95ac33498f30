"""Who sees and does what: a person's memberships, read once per request."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from django.http import HttpRequest

from deliveries.models import Membership

Role = Membership.Role

#: what each role may do, the weaker one's rights included
_RANK = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}


@dataclass(frozen=True, slots=True)
class Access:
    """`operator` sees and does everything; others what their role in a tenant allows."""

    operator: bool
    roles: dict[UUID, str] = field(default_factory=dict)

    @property
    def tenants(self) -> list[UUID] | None:
        """The tenants that may be read; None = all of them."""
        return None if self.operator else list(self.roles)

    def may(self, role: str, tenant_id: UUID | None = None) -> bool:
        """Whether the person has at least `role` in that tenant; without one: in any."""
        if self.operator:
            return True
        if tenant_id is None:
            return any(_RANK[Role(r)] >= _RANK[Role(role)] for r in self.roles.values())
        own = self.roles.get(tenant_id)
        return own is not None and _RANK[Role(own)] >= _RANK[Role(role)]

    def tenants_with(self, role: str) -> list[UUID] | None:
        """The tenants in which the person has at least `role`; None = all of them."""
        return None if self.operator else [t for t in self.roles if self.may(role, t)]

    @property
    def several(self) -> bool:
        """Whether a list must say whose a row is."""
        return self.operator or len(self.roles) > 1


def access(request: HttpRequest) -> Access:
    """The access of the person behind `request`; nobody's is empty."""
    known: Access | None = getattr(request, "_panel_access", None)
    if known is None:
        user = request.user
        if not user.is_active or not user.is_authenticated:
            known = Access(False)
        elif user.is_superuser:
            known = Access(True)
        else:
            known = Access(False, dict(Membership.objects.filter(user_id=user.pk).values_list("tenant_id", "role")))
        request._panel_access = known  # type: ignore[attr-defined]
    return known
