"""Templates: made, changed, published, copied, removed; and the published one found for a mail that names it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from deliveries.errors import BadInput, BadTemplate, Fault
from deliveries.mime.template import Compiled, Dialect, Rendered, compile_template
from deliveries.mime.template.publishing import Publication, publication, text_of
from deliveries.mime.template.variables import RESERVED, Variable, filled
from deliveries.models import AuditEntry, Template, TemplateVersion, Tenant
from deliveries.states import REDACT_WORDS, Redact

#: templates of one tenant
MOST = 1_000
#: versions of a template that are kept; the published one always
MOST_VERSIONS = 20
#: compiled versions that one process remembers
_MOST_COMPILED = 256
_PARTS = ("sender", "subject", "reply_to", "html", "text", "variables", "language")


@dataclass(frozen=True, slots=True)
class Published:
    """A version ready to be rendered: `sender`, `subject` and `reply_to` are what a mail may bring itself."""

    version_id: UUID
    sender: str | None
    reply_to: Sequence[str]
    variables: tuple[Variable, ...]
    compiled: Compiled
    text_at_render: bool
    #: whether any values are taken: other languages than ours need no declarations
    free: bool
    redact: Redact = Redact.NOTHING

    def render(self, given: Mapping[str, Any], field: str = "template.variables") -> Rendered:
        """BadInput names each value that does not fit as `field`.KEY."""
        data, faults = (dict(given), []) if self.free else filled(self.variables, given, field)
        if faults:
            raise BadInput(faults)
        try:
            made = rendered(self.compiled, data, self.text_at_render)
            return replace(made, redact=self.redact)
        except BadTemplate as bad:
            message = f"The template's {bad.part or 'content'} cannot be rendered with these values: {bad.message}"
            raise BadInput([Fault(field, "template_failed", message)]) from None


def create(tenant_id: UUID, name: str, alias: str | None, parts: Mapping[str, Any], actor: str) -> Template:
    """A new draft. BadInput where the alias is taken or a part cannot be understood."""
    now = timezone.now()
    row = Template(tenant_id=tenant_id, name=name, alias=alias, created_at=now, updated_at=now, **parts)
    _check(row)
    with transaction.atomic():
        # two requests count one after the other
        Tenant.objects.select_for_update().filter(id=tenant_id).first()
        if Template.objects.filter(tenant_id=tenant_id).count() >= MOST:
            raise BadInput([Fault("", "too_many", f"There are {MOST} templates already; remove one first.")])
        _save(row)
        _told(row, actor, "template.created")
    return row


def update(tenant_id: UUID, ref: str, actor: str, changes: Mapping[str, Any]) -> Template | None:
    """Change the draft; None when the tenant has no such template. BadInput as create()."""
    with transaction.atomic():
        row = _own(tenant_id, ref).select_for_update().first()
        if row is None:
            return None
        for name, value in changes.items():
            setattr(row, name, value)
        _check(row)
        row.changed = row.changed or any(name in _PARTS for name in changes)
        row.updated_at = timezone.now()
        _save(row)
        _told(row, actor, "template.changed")
    return row


def publish(tenant_id: UUID, ref: str, actor: str) -> Template | None:
    """The draft becomes a version that mails are sent from; BadInput where it cannot be one."""
    with transaction.atomic():
        row = _own(tenant_id, ref).select_for_update().first()
        if row is None:
            return None
        made = _publication(row)
        now = timezone.now()
        number = (row.versions.order_by("-number").values_list("number", flat=True).first() or 0) + 1
        parts = {name: getattr(row, name) for name in _PARTS} | {"html": made.html, "text": made.text}
        row.published = TemplateVersion.objects.create(
            template=row, number=number, text_at_render=made.text_at_render, created_at=now, **parts
        )
        row.published_at, row.updated_at, row.changed = now, now, False
        row.save(update_fields=["published", "published_at", "updated_at", "changed"])
        row.versions.filter(number__lte=number - MOST_VERSIONS).delete()
        _told(row, actor, "template.published")
    return row


def duplicate(tenant_id: UUID, ref: str, actor: str) -> Template | None:
    """A draft with the same parts under another name and without an alias."""
    row = _own(tenant_id, ref).first()
    if row is None:
        return None
    name = f"{row.name[:190]} (copy)"
    return create(tenant_id, name, None, {part: getattr(row, part) for part in _PARTS}, actor)


def remove(tenant_id: UUID, ref: str, actor: str) -> UUID | None:
    """With all versions; what was accepted before is sent all the same. The id, or None when there is no such one."""
    with transaction.atomic():
        row = _own(tenant_id, ref).select_for_update().first()
        if row is None:
            return None
        _told(row, actor, "template.removed")
        Template.objects.filter(id=row.id).delete()
    return row.id


def preview(tenant_id: UUID, ref: str, given: Mapping[str, Any]) -> tuple[Template, Rendered, list[str]] | None:
    """The draft with `given`, and the keys that it lacks; these show themselves. None: there is no such template."""
    row = _own(tenant_id, ref).first()
    if row is None:
        return None
    variables = variables_of(row.variables)
    data: dict[str, Any] = dict(given)
    missing: list[str] = []
    if not _free(row):
        data, faults = filled(variables, given, "variables")
        missing = [f.field.removeprefix("variables.") for f in faults if f.code == "missing_variable"]
        if wrong := [f for f in faults if f.code != "missing_variable"]:
            raise BadInput(wrong)
        data |= {v.key: _sample(v) for v in variables if v.key in missing}
    made = _publication(row, strict=False)
    compiled = compile_template(made.html, made.text, row.subject, Dialect(row.language))
    try:
        return row, rendered(compiled, data, made.text_at_render), missing
    except BadTemplate as bad:
        raise BadInput([Fault(bad.part, "template_failed", bad.message)]) from None


def published(tenant_id: UUID, refs: Iterable[str]) -> dict[str, Published | None]:
    """By id or alias: the version that is sent from; None where the template was never published. Unknown ones lack."""
    wanted = set(refs)
    found: dict[str, Published | None] = {}
    for row in _matching(tenant_id, wanted).values("id", "alias", "redact", version=F("published_id")):
        version = _version(row["version"]) if row["version"] else None
        if version and row["redact"]:
            version = replace(version, redact=REDACT_WORDS[row["redact"]])
        for ref in wanted:
            if ref == row["alias"] or _uuid(ref) == row["id"]:
                found[ref] = version
    return found


def rendered(compiled: Compiled, data: Mapping[str, Any], text_at_render: bool) -> Rendered:
    done = compiled.render(data)
    if text_at_render and done.html:
        return Rendered(done.subject, done.html, text_of(done.html))
    return done


def variables_of(declared: Iterable[Mapping[str, Any]]) -> tuple[Variable, ...]:
    return tuple(Variable(v["key"], v["type"], v.get("fallback_value")) for v in declared)


# --- helpers, in the order of their use -------------------------------------------------------------------------


def _check(row: Template) -> None:
    """A draft may be unfinished, but not unreadable."""
    try:
        compile_template(row.html, row.text, row.subject, Dialect(row.language))
    except BadTemplate as bad:
        raise BadInput([Fault(bad.part, "invalid_template", str(bad))]) from None


def _save(row: Template) -> None:
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        fault = Fault("alias", "alias_taken", "Another template has this alias; choose another, or change that one.")
        raise BadInput([fault]) from None


def _told(row: Template, actor: str, action: str) -> None:
    AuditEntry.objects.create(tenant_id=row.tenant_id, actor=actor, action=action, subject=row.name[:300])


def _own(tenant_id: UUID, ref: str) -> Any:
    return _matching(tenant_id, [ref])


def _matching(tenant_id: UUID, refs: Iterable[str]) -> Any:
    refs = [ref for ref in refs if "\0" not in ref]
    ids = [ident for ref in refs if (ident := _uuid(ref))]
    return Template.objects.filter(Q(id__in=ids) | Q(alias__in=refs), tenant_id=tenant_id)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _publication(row: Template, strict: bool = True) -> Publication:
    dialect = Dialect(row.language)
    try:
        compiled = compile_template(row.html, row.text, row.subject, dialect)
        made = publication(row.html, row.text, dialect)
    except BadTemplate as bad:
        raise BadInput([Fault(bad.part, "invalid_template", str(bad))]) from None
    if strict and made.html is None and not made.text:
        raise BadInput([Fault("html", "missing_required_field", "The template has neither html nor text.")])
    undeclared = sorted(compiled.names - {v["key"] for v in row.variables})
    if strict and not _free(row) and undeclared:
        raise BadInput([Fault("variables", "undeclared_variable", _undeclared(key)) for key in undeclared])
    return made


def _undeclared(key: str) -> str:
    if key in RESERVED:
        return f"`{key}` is a contact's at Resend; there are no contacts here. Declare a variable of your own for it."
    return f"The template uses `{key}`; declare it in `variables`, or correct its name."


def _free(row: Template | TemplateVersion) -> bool:
    return row.language != Dialect.NATIVE and not row.variables


def _sample(variable: Variable) -> Any:
    samples: dict[str, Any] = {"number": 1, "boolean": True, "list": [], "object": {}}
    return samples.get(variable.type, f"[{variable.key}]")


_lock = threading.Lock()
_compiled: OrderedDict[UUID, Published] = OrderedDict()


def _version(version_id: UUID) -> Published | None:
    """A version never changes, so what this process compiled once is right for ever."""
    with _lock:
        if held := _compiled.get(version_id):
            _compiled.move_to_end(version_id)
            return held
    row = TemplateVersion.objects.filter(id=version_id).first()
    if row is None:  # removed meanwhile
        return None
    made = Published(
        version_id=row.id,
        sender=row.sender,
        reply_to=row.reply_to,
        variables=variables_of(row.variables),
        compiled=compile_template(row.html, row.text, row.subject, Dialect(row.language)),
        text_at_render=row.text_at_render,
        free=_free(row),
    )
    with _lock:
        _compiled[version_id] = made
        while len(_compiled) > _MOST_COMPILED:
            _compiled.popitem(last=False)
    return made
