"""The OpenAPI 3.1 description: which shapes each endpoint takes and answers (drf-spectacular draws it)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from drf_spectacular.contrib.pydantic import PydanticExtension
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from pydantic.json_schema import model_json_schema

from deliveries.states import Status
from mailapi.schemas import answers
from mailapi.schemas.emails import MAX_BATCH, SendEmail, UpdateEmail
from mailapi.schemas.suppressions import AddSuppression, AddSuppressions, RemoveSuppressions
from mailapi.schemas.templates import CreateTemplate, PreviewTemplate, UpdateTemplate
from mailapi.schemas.webhooks import KNOWN, CreateWebhook, ReplayWebhook, RotateSecret, UpdateWebhook


class Shapes(PydanticExtension):
    """Requests are described as they are validated, answers as they are serialized."""

    priority = 1

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        mode = "validation" if direction == "request" else "serialization"
        schema = model_json_schema(self.target, ref_template="#/components/schemas/{model}", mode=mode)  # type: ignore[arg-type]
        for name, part in schema.pop("$defs", {}).items():
            component = ResolvedComponent(name=name, type=ResolvedComponent.SCHEMA, object=name, schema=part)
            auto_schema.registry.register_on_missing(component)
        return schema


class Bearer(OpenApiAuthenticationExtension):
    target_class = "mailapi.auth.KeyAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer re_…`."}


class OperatorBearer(OpenApiAuthenticationExtension):
    target_class = "mailapi.auth.OperatorAuthentication"
    name = "operator_key"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An operator key: `Authorization: Bearer op_…`."}


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole description; the same for every caller and request."""
    return SchemaGenerator().get_schema(request=None, public=True)


def _answers(good: Any, *errors: int, status: int = 200) -> dict[Any, Any]:
    """What is written of a body (413) is written of its coding and length too; every key has its rate (429)."""
    body = (411, 415) if 413 in errors else ()
    return {status: good, **dict.fromkeys((401, 403, *errors, *body, 429, 503), answers.Error)}


_IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 256},
    OpenApiParameter.HEADER,
    description="The same key and body within 24 hours get the first answer again, and no second mail.",
)
_PAGE = [
    OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, description="Rows."),
    OpenApiParameter("after", OpenApiTypes.UUID, description="An id: older rows follow."),
    OpenApiParameter("before", OpenApiTypes.UUID, description="An id: the next newer rows."),
]
_EXAMPLE = OpenApiExample(
    "A mail",
    value={
        "from": "Shop <hello@sandbox.test>",
        "to": ["delivered@simulator.test"],
        "subject": "Your order",
        "text": "It is on its way.",
    },
    request_only=True,
)
_FROM_TEMPLATE = OpenApiExample(
    "A mail from a template",
    value={
        "from": "Shop <hello@sandbox.test>",
        "to": ["delivered@simulator.test"],
        "template": {"id": "receipt", "variables": {"ORDER": 17, "ITEMS": [{"name": "Tea"}]}},
    },
    request_only=True,
)
_TEMPLATE = OpenApiExample(
    "A receipt",
    value={
        "name": "Receipt",
        "alias": "receipt",
        "subject": "Order {{{ORDER}}}",
        "html": "<p>Hi {{{NAME}}}</p><ul>{% for item in ITEMS %}<li>{{ item.name }}</li>{% endfor %}</ul>",
        "variables": [
            {"key": "NAME", "type": "string", "fallback_value": "there"},
            {"key": "ORDER", "type": "number"},
            {"key": "ITEMS", "type": "list", "fallback_value": []},
        ],
    },
    request_only=True,
)
_PREVIEW = OpenApiExample("Some values", value={"variables": {"NAME": "Ada", "ORDER": 17}}, request_only=True)


def _list(what: str, name: str, shape: Any, tag: str) -> Any:
    return extend_schema(
        operation_id=name, summary=f"List {what}, newest first", tags=[tag], parameters=_PAGE, request=None,
        responses=_answers(shape, 422),
    )  # fmt: skip


describe_emails = extend_schema_view(
    get=extend_schema(
        operation_id="listEmails", summary="List mails, newest first", tags=["emails"], request=None,
        parameters=[
            *_PAGE,
            OpenApiParameter("recipient", {"type": "string"}, description="An address, as it was given."),
            OpenApiParameter("status", {"type": "string", "enum": [s.value for s in Status]},
                             description="Of any recipient."),
            OpenApiParameter("tag", {"type": "string"}, description="`name` or `name:value`."),
            OpenApiParameter("stream", {"type": "string"}),
            OpenApiParameter("created_after", {"type": "string", "format": "date-time"}),
            OpenApiParameter("created_before", {"type": "string", "format": "date-time"}),
        ],
        responses=_answers(answers.EmailList, 422),
        description="Filters hold together. One page looks at some 10,000 mails at most: follow `next`.",
    ),
    post=extend_schema(
        operation_id="sendEmail", summary="Send a mail", tags=["emails"], parameters=[_IDEMPOTENCY], request=SendEmail,
        responses=_answers(answers.EmailAccepted, 400, 409, 413, 422), examples=[_EXAMPLE, _FROM_TEMPLATE],
        description="Answered only after the mail is on disk. Any other answer means that nothing was stored.",
    ),
)  # fmt: skip
_EMAIL_ID = OpenApiParameter("email_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
describe_email = extend_schema_view(
    get=extend_schema(
        operation_id="getEmail", summary="Where is this mail?", tags=["emails"], request=None,
        parameters=[_EMAIL_ID], responses=_answers(answers.Email, 404),
    ),
    patch=extend_schema(
        operation_id="updateEmail", summary="Let a scheduled mail leave at another time", tags=["emails"],
        request=UpdateEmail, parameters=[_EMAIL_ID], responses=_answers(answers.EmailChanged, 400, 404, 409, 413, 422),
        description="409 `not_scheduled` once it is leaving: then nothing was changed.",
    ),
)  # fmt: skip
describe_email_cancel = extend_schema_view(
    post=extend_schema(
        operation_id="cancelEmail", summary="Never send a scheduled mail", tags=["emails"], request=None,
        parameters=[_EMAIL_ID], responses=_answers(answers.EmailChanged, 400, 404, 409, 413, 422),
        description="All its recipients or none. 409 `not_scheduled` once it is leaving.",
    ),
)  # fmt: skip
describe_batch = extend_schema_view(
    post=extend_schema(
        operation_id="sendBatch", summary=f"Send up to {MAX_BATCH} mails", tags=["emails"],
        parameters=[
            _IDEMPOTENCY,
            OpenApiParameter(
                "x-batch-validation", {"type": "string", "enum": ["strict", "permissive"], "default": "strict"},
                OpenApiParameter.HEADER,
                description="strict: all or none. permissive: what can be sent is sent, `errors` names the others.",
            ),
        ],
        request={"application/json": {
            "type": "array", "items": {"$ref": "#/components/schemas/SendEmail"}, "minItems": 1, "maxItems": MAX_BATCH,
        }},
        responses=_answers(answers.BatchAccepted, 400, 409, 413, 422),
    ),
)  # fmt: skip
describe_webhooks = extend_schema_view(
    get=_list("webhooks", "listWebhooks", answers.WebhookList, "webhooks"),
    post=extend_schema(
        operation_id="createWebhook", summary="Add a webhook", tags=["webhooks"], request=CreateWebhook,
        responses=_answers(answers.WebhookCreated, 400, 413, 422, status=201),
        description="The signing secret stands in the answer.",
    ),
)  # fmt: skip
_WEBHOOK_ID = OpenApiParameter("webhook_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
describe_webhook = extend_schema_view(
    get=extend_schema(
        operation_id="getWebhook", summary="A webhook", tags=["webhooks"], request=None, parameters=[_WEBHOOK_ID],
        responses=_answers(answers.Webhook, 404),
    ),
    patch=extend_schema(
        operation_id="updateWebhook", summary="Change a webhook, or switch it off or on", tags=["webhooks"],
        request=UpdateWebhook, parameters=[_WEBHOOK_ID],
        responses=_answers(answers.WebhookChanged, 400, 404, 413, 422),
    ),
    delete=extend_schema(
        operation_id="deleteWebhook", summary="Remove a webhook", tags=["webhooks"], request=None,
        parameters=[_WEBHOOK_ID], responses=_answers(answers.WebhookDeleted, 404),
    ),
)  # fmt: skip
_EVENT_ID = OpenApiParameter("event_id", OpenApiTypes.UUID, OpenApiParameter.PATH)


def _webhook_verb(name: str, summary: str, shape: Any, request: Any = None, path: Any = (), **more: Any) -> Any:
    return extend_schema_view(
        post=extend_schema(
            operation_id=name, summary=summary, tags=["webhooks"], request=request, parameters=[_WEBHOOK_ID, *path],
            responses=_answers(shape, 400, 404, 413, 422), **more,
        )
    )  # fmt: skip


describe_webhook_rotate = _webhook_verb(
    "rotateSigningSecret", "A new signing secret; the one before signs too for a while", answers.WebhookCreated,
    RotateSecret,
)  # fmt: skip
describe_webhook_test = _webhook_verb("testWebhook", "Tell this webhook alone a webhook.test", answers.WebhookTested)
describe_webhook_replay = _webhook_verb(
    "replayWebhook", "Tell one event, a window or all that failed again", answers.WebhookReplayed, ReplayWebhook,
    description="At most 10,000 events at a time, with their first ids and bodies.",
)  # fmt: skip
describe_webhook_event_replay = _webhook_verb(
    "replayWebhookEvent", "Tell one event again", answers.WebhookTested, path=[_EVENT_ID]
)
describe_webhook_events = extend_schema_view(
    get=extend_schema(
        operation_id="listWebhookEvents", summary="What this webhook was told, newest first", tags=["webhooks"],
        request=None, parameters=[_WEBHOOK_ID, *_PAGE], responses=_answers(answers.WebhookEventList, 404, 422),
    ),
)  # fmt: skip
describe_webhook_event = extend_schema_view(
    get=extend_schema(
        operation_id="getWebhookEvent", summary="One of these events, with its body", tags=["webhooks"], request=None,
        parameters=[_WEBHOOK_ID, _EVENT_ID], responses=_answers(answers.WebhookEvent, 404),
    ),
)  # fmt: skip
describe_webhook_attempts = extend_schema_view(
    get=extend_schema(
        operation_id="listWebhookAttempts", summary="Every POST of an event, newest first", tags=["webhooks"],
        request=None, parameters=[_WEBHOOK_ID, _EVENT_ID, *_PAGE],
        responses=_answers(answers.WebhookAttemptList, 404, 422),
    ),
)  # fmt: skip
describe_events = extend_schema_view(
    get=extend_schema(
        operation_id="listEvents", summary="Events in order, oldest first, by cursor", tags=["events"], request=None,
        parameters=[
            _PAGE[0],
            OpenApiParameter("after", OpenApiTypes.UUID, description="`next` of the page before."),
            OpenApiParameter(
                "types", {"type": "array", "items": {"type": "string", "enum": KNOWN}}, explode=False,
                description="With commas between; without it all but the opt-in ones.",
            ),
        ],
        responses=_answers(answers.EventPage, 422),
        description="For those who cannot take webhooks. An event is here some two seconds after it happened, in an "
        "order that no later one disturbs: a cursor passes nothing over.",
    ),
)  # fmt: skip
describe_event = extend_schema_view(
    get=extend_schema(
        operation_id="getEvent", summary="An event", tags=["events"], request=None, parameters=[_EVENT_ID],
        responses=_answers(answers.EventTold, 404),
    ),
)  # fmt: skip
describe_suppressions = extend_schema_view(
    get=extend_schema(
        operation_id="listSuppressions", summary="List suppressed addresses, newest first", tags=["suppressions"],
        parameters=[
            *_PAGE,
            OpenApiParameter("origin", {"type": "string", "enum": ["bounce", "complaint", "manual"]},
                             description="Only those; manual are also unsubscribes and imports."),
        ],
        request=None, responses=_answers(answers.SuppressionList, 422),
    ),
    post=extend_schema(
        operation_id="addSuppression", summary="Suppress an address", tags=["suppressions"], request=AddSuppression,
        responses=_answers(answers.SuppressionAdded, 400, 413, 422, status=201),
        description="One that is on the list already stays as it is, and its id is answered.",
    ),
)  # fmt: skip
_SUPPRESSION_ID = OpenApiParameter(
    "suppression_id", OpenApiTypes.STR, OpenApiParameter.PATH, description="The id, or the address."
)
describe_suppression = extend_schema_view(
    get=extend_schema(
        operation_id="getSuppression", summary="Is this address suppressed?", tags=["suppressions"], request=None,
        parameters=[_SUPPRESSION_ID], responses=_answers(answers.Suppression, 404),
    ),
    delete=extend_schema(
        operation_id="removeSuppression", summary="Take an address off the list", tags=["suppressions"], request=None,
        parameters=[_SUPPRESSION_ID], responses=_answers(answers.SuppressionRemoved, 404),
        description="By address: for every stream.",
    ),
)  # fmt: skip
describe_suppressions_add = extend_schema_view(
    post=extend_schema(
        operation_id="addSuppressions", summary="Suppress up to 100 addresses", tags=["suppressions"],
        request=AddSuppressions, responses=_answers(answers.SuppressionsAdded, 400, 413, 422, status=201),
    )
)  # fmt: skip
describe_suppressions_remove = extend_schema_view(
    post=extend_schema(
        operation_id="removeSuppressions", summary="Take up to 100 addresses off the list", tags=["suppressions"],
        request=RemoveSuppressions, responses=_answers(answers.SuppressionsRemoved, 400, 413, 422),
    )
)  # fmt: skip
_TEMPLATE_ID = OpenApiParameter(
    "template_id", OpenApiTypes.STR, OpenApiParameter.PATH, description="The id, or the alias."
)
describe_templates = extend_schema_view(
    get=_list("templates", "listTemplates", answers.TemplateList, "templates"),
    post=extend_schema(
        operation_id="createTemplate", summary="Make a template; a draft at first", tags=["templates"],
        request=CreateTemplate, responses=_answers(answers.TemplateChanged, 400, 413, 422, status=201),
        examples=[_TEMPLATE],
    ),
)  # fmt: skip
describe_template = extend_schema_view(
    get=extend_schema(
        operation_id="getTemplate", summary="A template: its draft, and whether it is published", tags=["templates"],
        request=None, parameters=[_TEMPLATE_ID], responses=_answers(answers.Template, 404, 422),
    ),
    patch=extend_schema(
        operation_id="updateTemplate", summary="Change the draft", tags=["templates"], request=UpdateTemplate,
        parameters=[_TEMPLATE_ID], responses=_answers(answers.TemplateChanged, 400, 404, 413, 422),
        description="Mails are sent from the published version until the draft is published again.",
    ),
    delete=extend_schema(
        operation_id="deleteTemplate", summary="Remove a template", tags=["templates"], request=None,
        parameters=[_TEMPLATE_ID], responses=_answers(answers.TemplateDeleted, 404),
        description="Mails that were accepted before are sent: their content was rendered then.",
    ),
)  # fmt: skip


def _template_verb(name: str, summary: str, *errors: int, status: int = 200, **more: Any) -> Any:
    shape = more.pop("shape", answers.TemplateChanged)
    return extend_schema_view(
        post=extend_schema(
            operation_id=name, summary=summary, tags=["templates"], parameters=[_TEMPLATE_ID],
            responses=_answers(shape, 404, *errors, status=status), **{"request": None, **more},
        )
    )  # fmt: skip


describe_template_publish = _template_verb(
    "publishTemplate", "Send from the draft as it is now", 422,
    description="Its CSS is inlined and a text part made, unless it has one.",
)  # fmt: skip
describe_template_duplicate = _template_verb("duplicateTemplate", "A copy of the draft", 422, status=201)
describe_template_preview = _template_verb(
    "previewTemplate", "The draft with values, as a mail would have it", 400, 413, 422,
    shape=answers.TemplatePreview, request=PreviewTemplate, examples=[_PREVIEW],
)  # fmt: skip
describe_logs = extend_schema_view(get=_list("requests of this account's keys", "listLogs", answers.LogList, "logs"))
describe_log = extend_schema_view(
    get=extend_schema(
        operation_id="getLog", summary="A request, and its answer", tags=["logs"], request=None,
        parameters=[
            OpenApiParameter("log_id", OpenApiTypes.UUID, OpenApiParameter.PATH, description="Its `X-Request-Id`.")
        ],
        responses=_answers(answers.Log, 404, 422),
        description="Bodies are outlines, without secrets and files.",
    ),
)  # fmt: skip
describe_live = extend_schema_view(
    get=extend_schema(
        operation_id="live", summary="Is the process there?", tags=["health"], request=None, auth=[],
        responses={200: answers.Live, 503: answers.Live},
    )
)  # fmt: skip
describe_ready = extend_schema_view(
    get=extend_schema(
        operation_id="ready", summary="Does every part answer?", tags=["health"], request=None, auth=[],
        responses={200: answers.Ready, 503: answers.Ready},
    )
)  # fmt: skip
