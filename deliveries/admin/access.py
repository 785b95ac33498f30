"""Who sees and does what: the rights of each role in one table, and a person's memberships, read once per request.

Beyond the table, for every role alike: suspending and releasing, deciding brakes, and where received mail is handed on
to are the operator's; a person does not change the own membership; the last owner of a tenant stays one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import Model
from django.http import HttpRequest

from deliveries import models
from deliveries.models import Membership

Role = Membership.Role

#: each role has the weaker one's rights too
_RANK = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}


@dataclass(frozen=True, slots=True)
class Rights:
    """The weakest role that reads the rows of its tenant, and the one that adds and acts. None: the operator alone."""

    reads: Role | None = None
    acts: Role | None = None


#: the whole of it; a model that is missing here has no page
RIGHTS: dict[type[Model], Rights] = {
    models.Message: Rights(Role.VIEWER, Role.DEVELOPER),
    models.InboundMessage: Rights(Role.VIEWER, Role.DEVELOPER),
    models.Suppression: Rights(Role.VIEWER, Role.DEVELOPER),
    models.SendingDomain: Rights(Role.VIEWER, Role.DEVELOPER),
    models.Template: Rights(Role.VIEWER, Role.DEVELOPER),
    models.ApiKey: Rights(Role.VIEWER, Role.DEVELOPER),
    models.WebhookEndpoint: Rights(Role.VIEWER, Role.DEVELOPER),
    models.WebhookDelivery: Rights(Role.VIEWER, Role.DEVELOPER),
    models.InboundRoute: Rights(Role.VIEWER, Role.DEVELOPER),
    models.Handover: Rights(Role.VIEWER, Role.DEVELOPER),
    models.BounceMailbox: Rights(Role.VIEWER, Role.DEVELOPER),
    models.Membership: Rights(Role.VIEWER, Role.OWNER),
    models.Erasure: Rights(Role.VIEWER, Role.OWNER),
    models.AuditEntry: Rights(Role.VIEWER, None),
    models.Tenant: Rights(),
    models.User: Rights(),
    models.OperatorKey: Rights(),
    models.Site: Rights(),
    models.SourcePool: Rights(),
    models.SourceAddress: Rights(),
    models.PoolRule: Rights(),
    models.Destination: Rights(),
    models.Brake: Rights(),
}


@dataclass(frozen=True, slots=True)
class Access:
    """`operator` sees and does everything; others what their role in a tenant allows."""

    operator: bool
    roles: dict[UUID, str] = field(default_factory=dict)

    @property
    def tenants(self) -> list[UUID] | None:
        """The tenants that may be read; None = all of them."""
        return None if self.operator else list(self.roles)

    def may(self, role: str | None, tenant_id: UUID | None = None) -> bool:
        """Whether the person has at least `role` in that tenant; without one: in any. None is the operator's."""
        if self.operator:
            return True
        if role is None:
            return False
        if tenant_id is None:
            return any(_RANK[Role(r)] >= _RANK[Role(role)] for r in self.roles.values())
        own = self.roles.get(tenant_id)
        return own is not None and _RANK[Role(own)] >= _RANK[Role(role)]

    def tenants_with(self, role: str | None) -> list[UUID] | None:
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
