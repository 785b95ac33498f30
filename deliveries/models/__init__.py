"""Fields, constraints and derived facts; changes go through the named verbs above this layer."""

from deliveries.models.accounts import (
    ApiKey,
    AuditEntry,
    DkimKey,
    DomainClaim,
    Membership,
    OperatorKey,
    QuotaUse,
    SendingDomain,
    Tenant,
    User,
)
from deliveries.models.alerts import OperatorAlert
from deliveries.models.asked import ReportRequest
from deliveries.models.brakes import Brake, Refusals
from deliveries.models.erasure import Erasure
from deliveries.models.factors import Authenticator, RecoveryCode
from deliveries.models.figures import HourTally, SiteWeather, TallyMark
from deliveries.models.incoming import BounceMailbox, FetchedMail, Handover, InboundRoute
from deliveries.models.installation import Installation
from deliveries.models.logs import RequestLog
from deliveries.models.messages import (
    Attachment,
    Attempt,
    DeadObject,
    Delivery,
    Event,
    IdempotencyKey,
    InboundMessage,
    Message,
    MessageContent,
    Suppression,
)
from deliveries.models.outbox import WebhookDelivery, WebhookEndpoint, WebhookTry
from deliveries.models.policies import MtaStsPolicy, TlsSessions
from deliveries.models.queue import Destination, MxSite, Queued, Site
from deliveries.models.sources import PoolRule, SourceAddress, SourcePool, SourceRest
from deliveries.models.templates import Template, TemplateVersion

__all__ = [
    "ApiKey",
    "Attachment",
    "Attempt",
    "AuditEntry",
    "Authenticator",
    "BounceMailbox",
    "Brake",
    "DeadObject",
    "Delivery",
    "Destination",
    "DkimKey",
    "DomainClaim",
    "Erasure",
    "Event",
    "FetchedMail",
    "Handover",
    "HourTally",
    "IdempotencyKey",
    "InboundMessage",
    "InboundRoute",
    "Installation",
    "Membership",
    "Message",
    "MessageContent",
    "MtaStsPolicy",
    "MxSite",
    "OperatorAlert",
    "OperatorKey",
    "PoolRule",
    "Queued",
    "QuotaUse",
    "RecoveryCode",
    "Refusals",
    "ReportRequest",
    "RequestLog",
    "SendingDomain",
    "Site",
    "SiteWeather",
    "SourceAddress",
    "SourcePool",
    "SourceRest",
    "Suppression",
    "TallyMark",
    "Template",
    "TemplateVersion",
    "Tenant",
    "TlsSessions",
    "User",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookTry",
]
