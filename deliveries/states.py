"""The words of the house: delivery statuses and their transitions, events, bounce categories.

Every status change goes through `check_transition`; the tables here are the only place that knows
which change is lawful and which word of Resend's API a status answers to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum, IntFlag, StrEnum


class Status(StrEnum):
    """Where one delivery (one forward-path of a message) stands. In flight is a live lease, not a status."""

    #: set by accept: due later at the sender's wish; becomes queued when first claimed
    SCHEDULED = "scheduled"
    #: set by accept, or by the operator's release: due now, not yet attempted
    QUEUED = "queued"
    #: set by an outcome: tried, to be tried again at next_attempt_at
    DEFERRED = "deferred"
    #: set by a 2xx to the final dot; final, but for a late DSN
    DELIVERED = "delivered"
    #: set by a 5xx, a permanent routing answer or a DSN: the other side said no; final
    BOUNCED = "bounced"
    #: set where we could not: content that cannot be sent, a route that is gone; final
    FAILED = "failed"
    #: set when the age limit or deliver_before passed without a 2xx; final
    EXPIRED = "expired"
    #: set by accept or at claim: the address is on the suppression list; never attempted; final
    SUPPRESSED = "suppressed"
    #: set by the sender before it left; final
    CANCELED = "canceled"
    #: set by the operator or a brake: waits for a person
    HELD = "held"
    #: set when no reply to the final dot is known: may have been delivered; retried at most once
    UNKNOWN = "unknown"


FINAL = frozenset({Status.DELIVERED, Status.BOUNCED, Status.FAILED, Status.EXPIRED, Status.SUPPRESSED, Status.CANCELED})

_ENDS = frozenset({
    Status.DELIVERED, Status.DEFERRED, Status.BOUNCED, Status.FAILED, Status.EXPIRED, Status.SUPPRESSED,
    Status.CANCELED, Status.HELD, Status.UNKNOWN,
})  # fmt: skip

#: from → to. A 2xx is truth: every status may become delivered when a reply says so (record.outcomes),
#: and delivered or unknown become bounced by a late DSN.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.SCHEDULED: _ENDS | {Status.QUEUED},
    Status.QUEUED: _ENDS,
    Status.DEFERRED: _ENDS | {Status.QUEUED},
    Status.UNKNOWN: _ENDS | {Status.QUEUED},
    Status.HELD: _ENDS | {Status.QUEUED},
    Status.DELIVERED: frozenset({Status.BOUNCED}),
    Status.BOUNCED: frozenset({Status.DELIVERED}),
    Status.FAILED: frozenset({Status.DELIVERED}),
    Status.EXPIRED: frozenset({Status.DELIVERED, Status.BOUNCED}),
    Status.SUPPRESSED: frozenset({Status.DELIVERED}),
    Status.CANCELED: frozenset({Status.DELIVERED}),
}


def may_become(old: Status, new: Status) -> bool:
    """Whether `old → new` is lawful; staying (deferred → deferred, unknown → unknown) is."""
    return new in TRANSITIONS[old] or (old == new and old not in FINAL)


class Category(StrEnum):
    """Why a delivery did not go through, as events, figures and the panel name it."""

    BAD_MAILBOX = "bad_mailbox"  #: no such user; suppresses
    BAD_DOMAIN = "bad_domain"  #: no such domain or it takes no mail; suppresses when seen twice ≥ 24 h apart
    INACTIVE = "inactive"  #: mailbox disabled or abandoned; suppresses
    MAILBOX_FULL = "mailbox_full"  #: over quota
    MESSAGE_TOO_LARGE = "message_too_large"  #: above the receiver's size limit
    CONTENT_SPAM = "content_spam"  #: refused for what it says
    POLICY_AUTH = "policy_auth"  #: SPF, DKIM, DMARC, PTR or another rule about us
    IP_REPUTATION = "ip_reputation"  #: our address is on a block list or distrusted
    RATE_LIMITED = "rate_limited"  #: asked to slow down
    GREYLISTED = "greylisted"  #: asked to come back
    RELAY_DENIED = "relay_denied"  #: the host does not take mail for that domain
    DNS_ERROR = "dns_error"  #: no usable answer about the route
    NETWORK = "network"  #: connect, timeout, reset
    TLS = "tls"  #: the required protection could not be had
    EXPIRED = "expired"  #: given up for age
    PROTOCOL = "protocol"  #: the peer broke SMTP, or refused our commands
    AUTO_REPLY = "auto_reply"  #: not a bounce: vacation note and the like
    UNKNOWN = "unknown"  #: none of the rules knows the text


#: the only categories that may put an address on the suppression list (bad_domain: on the second, ≥ 24 h later)
SUPPRESSING = frozenset({Category.BAD_MAILBOX, Category.INACTIVE, Category.BAD_DOMAIN})


class Lane(IntEnum):
    """Priority of a mail; a lower number overtakes."""

    HIGH = 0  #: one-time passwords and the like
    NORMAL = 1  #: transactional mail
    BULK = 2  #: newsletters, announcements


class Tracking(IntFlag):
    """Bits of message.tracking: what is counted."""

    NOTHING = 0
    OPENS = 1
    CLICKS = 2


class Redact(IntFlag):
    """What of a mail is taken away once the last of its deliveries is final (record.redaction)."""

    NOTHING = 0
    CONTENT = 1  #: html, text, header fields, attachments, raw
    SUBJECT = 2  #: and its subject and metadata
    ADDRESSES = 4  #: and addresses in replies and conversations; privacy mode


#: as people say it, in the API, of a stream and of a template
REDACT_WORDS = {"content": Redact.CONTENT, "everything": Redact.CONTENT | Redact.SUBJECT}
#: of every mail in privacy mode
PRIVATE = Redact.CONTENT | Redact.SUBJECT | Redact.ADDRESSES

#: the kind of mail, where none is said
ORDINARY_STREAM = "transactional"
#: what the name of a stream looks like
STREAM = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class EventType(StrEnum):
    """Facts told by webhook and shown in timelines; append-only."""

    SCHEDULED = "email.scheduled"
    SENT = "email.sent"  #: accepted by us
    DELIVERY_DELAYED = "email.delivery_delayed"
    DELIVERED = "email.delivered"
    BOUNCED = "email.bounced"
    FAILED = "email.failed"
    SUPPRESSED = "email.suppressed"
    COMPLAINED = "email.complained"
    OPENED = "email.opened"
    CLICKED = "email.clicked"
    RECEIVED = "email.received"
    SUPPRESSION_ADDED = "suppression.added"
    SUPPRESSION_REMOVED = "suppression.removed"
    DOMAIN_UPDATED = "domain.updated"
    # opt-in: told only to endpoints that name them
    QUEUED = "email.queued"
    EXPIRED = "email.expired"
    CANCELED = "email.canceled"
    UNSUBSCRIBED = "email.unsubscribed"
    SITE_HELD = "site.held"  #: a receiver refuses so much that nothing is sent there, and its refusals are in doubt
    TENANT_HELD = "tenant.held"  #: the account's mail is held: too many bounces or complaints
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_TEST = "webhook.test"


OPT_IN = frozenset({
    EventType.QUEUED, EventType.EXPIRED, EventType.CANCELED, EventType.UNSUBSCRIBED, EventType.SITE_HELD,
    EventType.TENANT_HELD, EventType.WEBHOOK_DISABLED, EventType.WEBHOOK_TEST,
})  # fmt: skip

_OUTCOMES_TOLD = frozenset({
    EventType.DELIVERED, EventType.BOUNCED, EventType.DELIVERY_DELAYED, EventType.FAILED, EventType.EXPIRED,
    EventType.SUPPRESSED, EventType.COMPLAINED, EventType.OPENED, EventType.CLICKED, EventType.UNSUBSCRIBED,
})  # fmt: skip
#: webhooks in the format of another service: the events that it has words for, told where an endpoint names none
FORMAT_EVENTS: dict[str, frozenset[EventType]] = {
    "postmark": _OUTCOMES_TOLD | {EventType.SUPPRESSION_ADDED, EventType.SUPPRESSION_REMOVED},
    "sendgrid": _OUTCOMES_TOLD | {EventType.SENT},
    "mailgun": _OUTCOMES_TOLD | {EventType.SENT},
}

#: the event that an outcome of that status appends
OUTCOME_EVENT: dict[Status, EventType] = {
    Status.SCHEDULED: EventType.SCHEDULED,
    Status.QUEUED: EventType.QUEUED,
    Status.DEFERRED: EventType.DELIVERY_DELAYED,
    Status.UNKNOWN: EventType.DELIVERY_DELAYED,
    Status.HELD: EventType.DELIVERY_DELAYED,
    Status.DELIVERED: EventType.DELIVERED,
    Status.BOUNCED: EventType.BOUNCED,
    Status.FAILED: EventType.FAILED,
    Status.EXPIRED: EventType.EXPIRED,
    Status.SUPPRESSED: EventType.SUPPRESSED,
    Status.CANCELED: EventType.CANCELED,
}

#: Resend's last_event of one delivery
LAST_EVENT: dict[Status, str] = {
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "queued",
    Status.HELD: "queued",
    Status.DEFERRED: "delivery_delayed",
    Status.UNKNOWN: "delivery_delayed",
    Status.DELIVERED: "delivered",
    Status.FAILED: "failed",
    Status.EXPIRED: "failed",
    Status.SUPPRESSED: "suppressed",
    Status.CANCELED: "canceled",
    Status.BOUNCED: "bounced",
}

#: worst first; open states before final ones, so that a message is final only when all of it is
_WORST = (
    Status.UNKNOWN, Status.HELD, Status.DEFERRED, Status.QUEUED, Status.SCHEDULED,
    Status.BOUNCED, Status.FAILED, Status.EXPIRED, Status.SUPPRESSED, Status.CANCELED, Status.DELIVERED,
)  # fmt: skip


def worst(statuses: Iterable[Status]) -> Status:
    """The one status that stands for a message with several recipients: worst open, else worst final."""
    return min(statuses, key=_WORST.index)
