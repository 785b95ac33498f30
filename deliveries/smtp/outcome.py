"""What a session gives back: how one transaction ended, and the conversation that led there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from deliveries.smtp.hop import Hop
from deliveries.smtp.reply import EnhancedCode, Reply
from deliveries.states import Category, Status


class Stage(StrEnum):
    """The command a transaction had reached."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"  #: between 354 and the final dot
    DOT = "dot"  #: the final dot was written


@dataclass(frozen=True, slots=True)
class Replied:
    """The peer decided: `reply` answers `stage`. Delivered when positive at DOT."""

    stage: Stage
    reply: Reply


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection or the protocol failed before the final dot was written: nothing was accepted."""

    stage: Stage
    cause: Category  #: NETWORK, TLS or PROTOCOL
    text: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The final dot was written and no reply came: it may have been accepted (RFC 5321 §4.5.4.1, RFC 1047)."""

    text: str


@dataclass(frozen=True, slots=True)
class Unable:
    """The peer cannot take this mail, known before anything was sent (SIZE, SMTPUTF8 missing): permanent."""

    stage: Stage
    enhanced: EnhancedCode
    category: Category
    text: str


Outcome = Replied | Broken | Unanswered | Unable


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What was negotiated: `version` as `TLSv1.3`, whether the certificate was `verified` for the host."""

    version: str
    cipher: str
    verified: bool


class TlsResult(StrEnum):
    """What went wrong with a session's protection, as TLS reports name it (RFC 8460 §4.3)."""

    NOT_OFFERED = "starttls-not-supported"
    OTHER_NAME = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    FAILED = "validation-failure"  #: none of the others
    NO_POLICY = "sts-policy-fetch-error"
    BAD_POLICY = "sts-policy-invalid"
    POLICY_HOST = "sts-webpki-invalid"  #: the certificate of the policy's host


@dataclass(frozen=True, slots=True)
class TlsFailure:
    """Why a connection was not protected, or not as its domain had promised; `text` in one cleaned line."""

    result: TlsResult
    text: str


@dataclass(frozen=True, slots=True)
class Attempted:
    """One SMTP transaction with one hop, as it will stand in the Attempt table.

    `transcript` is the conversation, ≤ 8 KB, without body octets and credentials; where the connection was
    reused, greeting, EHLO and TLS stand in it once more in short. Times are UTC.
    """

    hop: Hop
    outcome: Outcome
    started_at: datetime
    finished_at: datetime
    transcript: str
    tls: TlsFacts | None = None
    reused: bool = False
    tls_failure: TlsFailure | None = None  #: also of a connection that went on without, or was made anew


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an outcome means for the delivery, and the rule that said so.

    `status` of a transaction is DELIVERED, DEFERRED, BOUNCED or UNKNOWN; where none was held it may also be HELD,
    FAILED, EXPIRED or SUPPRESSED. `text` is the reply in one cleaned line.
    """

    status: Status
    rule: str
    category: Category | None = None
    suppress: bool = False
    enhanced: str = ""  #: "5.1.1", empty when the peer sent none
    code: int | None = None
    text: str = ""
    slow_down: bool = False  #: the provider asks for less mail, not this mail's fault
    our_route: bool = False  #: the refusal is about us at our own smarthost (AUTH, relay, MAIL)
