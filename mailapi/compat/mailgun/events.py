"""/v3/{domain}/events: what happened to mail of a domain, as the webhooks of this format tell it."""

from __future__ import annotations

import json
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.notify import foreign
from deliveries.notify.body import rows_of
from deliveries.read import outbound
from deliveries.read.outbound import Wanted
from mailapi.compat.mailgun.door import Mailgun
from mailapi.compat.query import Query

_MOST = 300
_WORDS = (
    "event", "severity", "recipient", "from", "subject", "tags", "message-id", "begin", "end", "ascending", "limit",
)  # fmt: skip


class Events(Mailgun):
    """Newest first, or oldest first with `ascending` or where `begin` is before `end`."""

    def get(self, request: Request, domain: str, page: str = "") -> HttpResponse:
        name, query = self.own(domain), Query(request.query_params, _WORDS)
        begin, end = query.moment("begin"), query.moment("end")
        ascending, beyond = _cursor(page)
        if not page:
            said = query.text("ascending").lower()
            ascending = said in ("yes", "true") if said else bool(begin and end and begin < end)
        wanted = [word.strip() for word in query.text("event").split(" OR ") if word.strip()]
        if unknown := [word for word in wanted if word not in foreign.MAILGUN_EVENTS.values()]:
            raise BadInput([Fault("event", "invalid_parameter", f"There is no such event: {unknown[0][:50]}.")])
        kinds = [k for k, word in foreign.MAILGUN_EVENTS.items() if not wanted or word in wanted]
        if severity := query.text("severity").lower():
            if severity not in ("temporary", "permanent"):
                raise BadInput([Fault("severity", "invalid_parameter", "Must be temporary or permanent.")])
            kinds = [kind for kind in kinds if foreign.mailgun_severity(kind) == severity]
        if begin and end and begin > end:
            begin, end = end, begin
        ids = outbound.events(
            self.caller().tenant_id,
            name,
            kinds,
            Wanted(
                recipient=query.text("recipient"),
                sender=query.text("from"),
                subject=query.text("subject"),
                label=query.text("tags"),
            ),
            message_id=query.text("message-id").strip("<>"),
            since=begin,
            until=end,
            beyond=beyond,
            ascending=ascending,
            count=query.number("limit", 100, 1, _MOST),
        )
        rows = {row["id"]: row for row in rows_of(ids)}
        items = [foreign.mailgun(rows[i], json.loads(rows[i]["data"])) for i in ids if i in rows]
        base, last = f"{settings.BASE_URL}/compat/mailgun/v3/{name}/events", ids[-1] if ids else beyond
        # clients follow the links as they are: a page without the filters would hold everything
        asked = f"?{words}" if (words := urlencode(dict(request.query_params.items()))) else ""
        ahead = f"{base}/{'a' if ascending else 'd'}{last.hex if last else ''}{asked}"
        first = base + asked
        return JsonResponse(
            {"items": items, "paging": {"next": ahead, "previous": first, "first": first, "last": ahead}}
        )


def _cursor(page: str) -> tuple[bool, UUID | None]:
    """`a` or `d` and the id of the last event seen."""
    try:
        return page[:1] == "a", UUID(page[1:]) if page[1:] else None
    except ValueError:
        raise NotFound("There is no such page.") from None
