"""Looking at mail that was sent: the filters of its list, its files, its numbers."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from deliveries.mime.address import Address
from deliveries.read.listing import HAPPENED, Filters
from deliveries.states import Status
from mailapi.schemas.addresses import read_address
from mailapi.schemas.answers import Answer, Error
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.openapi import _PAGE as PAGE
from mailapi.schemas.openapi import _answers as answers
from mailapi.schemas.options import Stream
from mailapi.schemas.receiving import FileList, FileOut
from mailapi.schemas.times import moment

# --- the list -----------------------------------------------------------------------------------------------


def _status(value: str) -> str:
    if value not in _KNOWN:
        raise fault("invalid_parameter", f"Must be one of {', '.join(_KNOWN)}.")
    return value


_LONGEST_TAG = 2 * 256 + 1  # name:value


def _tag_filter(value: str) -> str:
    """A face's tag is a text of any characters, and has to be found by it too."""
    if not value.partition(":")[0] or len(value) > _LONGEST_TAG or "\0" in value:
        raise fault("invalid_parameter", "Write a tag as name or name:value.")
    return value


_KNOWN = (*(s.value for s in Status), *HAPPENED)
_STATUSES = {"type": "string", "enum": list(_KNOWN)}
_TIME = {"type": "string", "format": "date-time"}


class ListEmails(Shape):
    """The filters of GET /emails; those that are given hold together."""

    recipient: Annotated[Address, PlainValidator(read_address), WithJsonSchema({"type": "string"})] | None = None
    status: Annotated[str, PlainValidator(_status), WithJsonSchema(_STATUSES)] | None = None
    tag: Annotated[str, AfterValidator(_tag_filter)] | None = None
    stream: Stream | None = None
    created_after: Annotated[datetime, PlainValidator(moment), WithJsonSchema(_TIME)] | None = None
    created_before: Annotated[datetime, PlainValidator(moment), WithJsonSchema(_TIME)] | None = None

    def filters(self) -> Filters:
        return Filters(
            recipient=self.recipient.addr_spec if self.recipient else None,
            status=Status(self.status) if self.status and self.status not in HAPPENED else None,
            happened=self.status if self.status in HAPPENED else None,
            tag=self.tag,
            stream=self.stream,
            since=self.created_after,
            until=self.created_before,
        )


# --- the numbers --------------------------------------------------------------------------------------------

#: metric → the events that it counts, and of bounces their kind
EVENTS: dict[str, tuple[str, str | None]] = {
    "received": ("email.received", None), "sent": ("email.sent", None), "delivered": ("email.delivered", None),
    "delivery_delayed": ("email.delivery_delayed", None), "bounced": ("email.bounced", None),
    "bounced_permanent": ("email.bounced", "Permanent"), "bounced_transient": ("email.bounced", "Transient"),
    "bounced_undetermined": ("email.bounced", "Undetermined"), "complained": ("email.complained", None),
    "suppressed": ("email.suppressed", None), "failed": ("email.failed", None), "expired": ("email.expired", None),
    "canceled": ("email.canceled", None), "opened": ("email.opened", None), "clicked": ("email.clicked", None),
    "unsubscribed": ("email.unsubscribed", None),
}  # fmt: skip
#: mails with at least one such event
UNIQUE = {"unique_opened": "email.opened", "unique_clicked": "email.clicked"}
#: (part, whole): in per cent; null where the whole is nothing
RATES = {
    "delivery_rate": ("delivered", "sent"), "bounce_rate": ("bounced", "sent"),
    "complaint_rate": ("complained", "delivered"), "unsubscribe_rate": ("unsubscribed", "delivered"),
    "open_rate": ("unique_opened", "delivered"), "click_rate": ("unique_clicked", "delivered"),
}  # fmt: skip
METRICS = (*EVENTS, *UNIQUE, *RATES)
DIMENSIONS = ("period", "domain", "email")
UNITS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
#: that a range may hold: 31 days by the hour
MOST_PERIODS = 750
_LENGTHS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=28),
}
_MOST_IDS = 100
_YEARS = range(1970, 3000)


def _day_or_moment(value: Any) -> datetime:
    """A date is the beginning of its day, in UTC. At the ends of the calendar, six days more are no date."""
    try:
        found = (
            datetime.combine(datetime.fromisoformat(value).date(), time(), UTC) if len(value) == 10 else moment(value)
        )
        if found.year not in _YEARS:
            raise ValueError(value)
    except ValueError:
        raise fault(
            "invalid_time",
            "Write a date such as 2030-01-31, or a time such as 2030-01-31T09:00:00Z, of the years 1970 to 2999.",
        ) from None
    return found


def _words(known: tuple[str, ...]) -> Any:
    def read(value: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(value.split(",", len(known) + 1)))
        if unknown := [word for word in words if word not in known]:
            raise fault("invalid_parameter", f"There is no `{unknown[0][:50]}`; known are {', '.join(known)}.")
        return words

    return PlainValidator(read)


def _ids(value: str) -> tuple[UUID, ...]:
    parts = value.split(",", _MOST_IDS + 1)
    if len(parts) > _MOST_IDS:
        raise fault("too_many", f"Name at most {_MOST_IDS} ids.")
    try:
        return tuple(UUID(part) for part in parts)
    except ValueError:
        raise fault("invalid_parameter", "Write ids (UUIDs) with commas between.") from None


def _zone(value: str) -> str:
    if value not in _zones():
        raise fault("invalid_parameter", "Write a zone by its IANA name, such as Europe/Berlin.")
    return value


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


Ids = Annotated[tuple[UUID, ...], PlainValidator(_ids)]


class AskMetrics(Shape):
    """The query of GET /emails/metrics; lists with commas between, as Resend's clients send them."""

    not_here = {
        "broadcast_id": "There are no broadcasts here; leave it out.",
    }

    start_date: Annotated[datetime, PlainValidator(_day_or_moment)] | None = None
    end_date: Annotated[datetime, PlainValidator(_day_or_moment)] | None = None
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    granularity: Literal["hourly", "daily", "weekly", "monthly"] = "daily"
    metrics: Annotated[tuple[str, ...], _words(METRICS)] = METRICS
    dimensions: Annotated[tuple[str, ...], _words(DIMENSIONS)] = ()
    domain_id: Ids = ()
    email_id: Ids = ()

    def span(self) -> tuple[datetime, datetime]:
        end = self.end_date or datetime.now(UTC)
        return self.start_date or end - timedelta(days=6), end

    def too_long(self) -> str | None:
        """Why the range cannot be asked for; None where it can."""
        start, end = self.span()
        if start >= end:
            return "Must be before `end_date`."
        if end - start > _LENGTHS[UNITS[self.granularity]] * MOST_PERIODS:
            return (
                f"The range has more than {MOST_PERIODS} periods of this granularity; ask for less, or more coarsely."
            )
        return None


class Metrics(Answer):
    object: Literal["metrics"]
    start_date: str
    end_date: str
    metrics: list[str]
    dimensions: list[str]
    granularity: str
    totals: dict[str, float | None]
    data: list[dict[str, Any]] | None = Field(None, description="Only with `dimensions`: a row for each combination.")
    counted_since: str = Field(
        description="Later than `start_date` where the range had too many events: only the newest were counted."
    )


# --- the description ----------------------------------------------------------------------------------------

_TAG = ["emails"]
_EMAIL_ID = OpenApiParameter("email_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
describe_sent_files = extend_schema_view(
    get=extend_schema(
        operation_id="listAttachments", summary="The files of a mail", tags=_TAG, request=None,
        parameters=[_EMAIL_ID, *PAGE], responses=answers(FileList, 404, 422),
    )
)  # fmt: skip
describe_sent_file = extend_schema_view(
    get=extend_schema(
        operation_id="getAttachment", summary="A file of a mail", tags=_TAG, request=None,
        parameters=[_EMAIL_ID, OpenApiParameter("attachment_id", OpenApiTypes.UUID, OpenApiParameter.PATH)],
        responses=answers(FileOut, 404),
    )
)  # fmt: skip
describe_sent_download = extend_schema_view(
    get=extend_schema(
        operation_id="downloadAttachment", summary="The octets of a file", tags=_TAG, request=None, auth=[],
        parameters=[
            _EMAIL_ID,
            OpenApiParameter("file_id", OpenApiTypes.UUID, OpenApiParameter.PATH),
            OpenApiParameter("signature", {"type": "string"}, required=True),
        ],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, 404: Error, 503: Error},
    )
)  # fmt: skip
describe_metrics = extend_schema_view(
    get=extend_schema(
        operation_id="getMetrics", summary="What became of the mail, in numbers", tags=_TAG, request=None,
        parameters=[
            OpenApiParameter("start_date", {"type": "string"}, description="A date or a time; 6 days before the end."),
            OpenApiParameter("end_date", {"type": "string"}, description="Now, unless said."),
            OpenApiParameter("timezone", {"type": "string", "default": "UTC"}, description="Where a day begins."),
            OpenApiParameter("granularity", {"type": "string", "enum": [*UNITS], "default": "daily"}),
            OpenApiParameter(
                "metrics", {"type": "array", "items": {"type": "string", "enum": [*METRICS]}}, explode=False
            ),
            OpenApiParameter(
                "dimensions", {"type": "array", "items": {"type": "string", "enum": [*DIMENSIONS]}}, explode=False
            ),
            OpenApiParameter("domain_id", {"type": "array", "items": {"type": "string"}}, explode=False),
            OpenApiParameter("email_id", {"type": "array", "items": {"type": "string"}}, explode=False),
        ],
        responses=answers(Metrics, 422),
        description="Events are counted by when they happened, one for each recipient. Rates are per cent: of what was "
        "sent (delivery, bounce) or delivered (open, click, complaint, unsubscribe); null where that is nothing.",
    )
)  # fmt: skip
