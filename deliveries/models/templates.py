"""Templates of mails: a draft that is worked on, and versions, one of which is sent from."""

from __future__ import annotations

from django.db import models

from deliveries.models.accounts import Tenant
from deliveries.models.fields import uuid7


class TemplateParts(models.Model):
    """What a draft and a version have alike. `variables` are `{key, type, fallback_value}`."""

    sender = models.CharField(max_length=700, null=True, help_text="The From header; a mail may bring its own.")
    subject = models.TextField(null=True)
    reply_to = models.JSONField(default=list)
    html = models.TextField(null=True)
    text = models.TextField(null=True, help_text="Null: made of the html at publish. Empty: none.")
    variables = models.JSONField(default=list)
    language = models.CharField(max_length=12, default="native")

    class Meta:
        abstract = True


class Template(TemplateParts):
    """The draft, and which version is sent from. Mails keep what they were rendered to, whatever becomes of it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="templates")
    name = models.CharField(max_length=200)
    alias = models.CharField(max_length=100, null=True, help_text="A name of the application's for it.")
    redact = models.CharField(
        max_length=10, blank=True, db_default="", help_text="content or everything: goes once a mail is finished."
    )
    published = models.ForeignKey("TemplateVersion", null=True, on_delete=models.SET_NULL, related_name="+")
    published_at = models.DateTimeField(null=True)
    changed = models.BooleanField(default=True, help_text="Whether the draft differs from what is published.")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "template"
        constraints = [models.UniqueConstraint(fields=("tenant", "alias"), name="template_alias_once")]
        indexes = [models.Index(fields=["tenant", "id"], name="template_tenant")]

    def __str__(self) -> str:
        return self.name


class TemplateVersion(TemplateParts):
    """What was published once; it never changes, so that processes may remember it by its id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    template = models.ForeignKey(Template, on_delete=models.CASCADE, related_name="versions")
    number = models.IntegerField(help_text="From 1.")
    text_at_render = models.BooleanField(default=False, help_text="The text part is made of each mail's html.")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "template_version"
        constraints = [models.UniqueConstraint(fields=("template", "number"), name="template_version_once")]

    def __str__(self) -> str:
        return f"{self.template_id} version {self.number}"
