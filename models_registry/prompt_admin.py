"""Prompt templates in the admin: an editor that makes versions, a preview with values, and what two versions differ in."""

from __future__ import annotations

from typing import Any

import msgspec
from django.contrib import admin, messages
from django.db.models import Max, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import action

from core.errors import InvalidRequest
from models_registry import prompt_script, prompt_services
from models_registry.models import PromptTemplate, PromptVersion
from models_registry.prompt_building import Said, build, tokens_of
from models_registry.prompt_forms import PreviewForm, PromptForm
from monitoring.columns import display
from monitoring.pages import Pages, SavesThroughService

MAX_PREVIEW_CHARACTERS = 1_000_000
_SHOWN_VERSIONS = 30


@admin.register(PromptTemplate)
class PromptTemplateAdmin(SavesThroughService, Pages, ModelAdmin):
    when_empty = _("No prompt yet. A prompt is a text with variables and versions that requests name instead of sending it.")
    form = PromptForm
    list_display = ("name", "active", "latest", "labelled", "description")
    list_filter = ("is_active",)
    search_fields = ("name", "description")
    actions_detail = ("preview", "compare")
    fieldsets = (
        (None, {"fields": ("name", "description", ("visibility", "is_active"))}),
        (_("What it says"), {"fields": ("messages", "variables", ("max_input_tokens", "note"))}),
        (_("Which version is meant"), {"fields": ("labels", "versions")}),
    )
    readonly_fields = ("versions", "wording")
    exclude = ("labels",)  # the form has it, and the service sets it: a label may name the version that is being made

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromptTemplate]:
        return super().get_queryset(request).annotate(latest_number=Max("versions__number"))

    @display(description=_("Status"), label={"on": "success", "off": "danger"})
    def active(self, row: PromptTemplate) -> str:
        return "on" if row.is_active else "off"

    @display(description=_("Latest"))
    def latest(self, row: Any) -> int | str:
        return row.latest_number or "–"

    @display(description=_("Labels"))
    def labelled(self, row: PromptTemplate) -> str:
        return ", ".join(f"{label} = {number}" for label, number in sorted(_labels(row).items())) or "–"

    @display(description=_("Versions"))
    def versions(self, row: PromptTemplate) -> str:
        if row._state.adding:
            return gettext("none yet")
        labels = {number: label for label, number in _labels(row).items()}
        lines = []
        for version in row.versions.all()[:_SHOWN_VERSIONS]:
            when = f"{timezone.localtime(version.created_at):%Y-%m-%d %H:%M}"
            about = " · ".join(filter(None, (labels.get(version.number), version.note, version.created_by, when)))
            lines.append((self._link("preview", row, f"?version={version.number}"), version.number, about))
        return format_html_join("", '<div><a class="text-primary-600" href="{}">{}</a> {}</div>', lines)

    @display(description=_("The latest version"))
    def wording(self, row: PromptTemplate) -> str:
        version = prompt_services.latest_of(row)
        return format_html('<div class="llmc-said">{}</div>', _as_text(version)) if version else "–"

    def get_fieldsets(self, request: HttpRequest, obj: PromptTemplate | None = None) -> Any:
        """Who may only look sees the texts as texts: they are no columns of the row."""
        head, says, versions = self.fieldsets
        may = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        return (head, says, versions) if may else (head, (_("What it says"), {"fields": ("wording",)}), versions)

    def save_model(self, request: HttpRequest, obj: PromptTemplate, form: PromptForm, change: bool) -> None:
        obj.labels = form.cleaned_data["labels"]
        made = prompt_services.save_prompt(obj, form.wording(), note=form.cleaned_data["note"], by=request.user.get_username())
        meant = obj.spec().version(None)
        if change and made is not None and meant is not None and meant.number != made.number:
            messages.info(request, f"Version {made.number} was made. Requests that name none get version {meant.number}, as labelled.")

    # Preview --------------------------------------------------------------------------------------------------------
    @action(description=_("Preview"), permissions=["view"], icon="visibility", url_path="preview")
    def preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The messages as they would be sent. Nothing is saved, and no vendor is asked."""
        row: PromptTemplate = self.found(request, object_id)
        versions = list(row.versions.all())
        chosen = _chosen(versions, request.GET.get("version"))
        try:
            form = PreviewForm(versions, chosen, request.POST or None)
        except ValueError as refused:  # it came past the forms
            messages.error(request, f"Version {chosen.number} cannot be read: {refused}")
            return redirect(self.url_of(row))
        context: dict[str, Any] = {}
        if form.is_valid():
            version = _chosen(versions, str(form.cleaned_data["version"]))
            try:
                context = _rendered(version, form.cleaned_data["variables"], form.cleaned_data["room_tokens"])
            except InvalidRequest as refused:
                form.add_error("variables" if (refused.param or "").startswith("prompt.variables") else None, refused.message)
            except ValueError as refused:
                form.add_error("version", str(refused))
        return self.page(request, "prompt_preview.html", row, gettext("Preview"), form=form, verb=_("Show"), **context)

    @action(description=_("Compare versions"), permissions=["view"], icon="difference", url_path="compare")
    def compare(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row: PromptTemplate = self.found(request, object_id)
        versions = list(row.versions.all())
        after = _chosen(versions, request.GET.get("after"))
        earlier = [version for version in versions if version.number < after.number]
        before = _chosen(versions, request.GET.get("before")) if request.GET.get("before") else (earlier or [after])[0]
        lines = prompt_script.difference(_as_text(before), _as_text(after))
        return self.page(
            request, "prompt_compare.html", row, gettext("Compare versions"), versions=versions, before=before, after=after, lines=lines
        )

    def _link(self, page: str, row: PromptTemplate, query: str = "") -> str:
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{page}", args=[row.pk]) + query


def _labels(row: PromptTemplate) -> dict[str, Any]:
    """What came past the forms is shown as none."""
    return row.labels if isinstance(row.labels, dict) else {}


def _chosen(versions: list[PromptVersion], asked: str | None) -> PromptVersion:
    """The latest where none is named. Raises Http404."""
    found = next((version for version in versions if asked is None or str(version.number) == asked), None)
    if found is None:
        raise Http404("There is no such version of this prompt.")
    return found


def _rendered(version: PromptVersion, values: dict[str, Any], room_tokens: int | None) -> dict[str, Any]:
    """Raises InvalidRequest."""
    given = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}
    built = build(version.spec(), given, room_tokens, MAX_PREVIEW_CHARACTERS)
    said = [(each.role, each.content) if isinstance(each, Said) else ("history", bytes(each).decode()) for each in built.messages]
    return {"said": said, "tokens": sum(map(tokens_of, built.messages)), "left_out": built.left_out}


def _as_text(version: PromptVersion) -> str:
    """Everything that makes a version, a line for each variable."""
    variables = "\n".join(msgspec.json.encode(variable).decode() for variable in version.variables or ())
    most = f"\n\nmax_input_tokens: {version.max_input_tokens}" if version.max_input_tokens else ""
    return f"{prompt_script.written(version.messages)}\n\n{variables}{most}"
