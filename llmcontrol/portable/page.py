"""The page “Configuration” of the admin: the document to take away, and one to bring along: its plan first, then the confirmation.

What is confirmed comes back with the confirmation, signed, so that no other document and no other plan can be meant; any process can
take it, and nothing is kept for those that are never confirmed.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminFileFieldWidget

from llmcontrol.portable import document, taking, writing
from llmcontrol.portable.document import DocumentRefused, Fault
from llmcontrol.portable.kind import Scene
from llmcontrol.portable.plan import CHANGED, CREATED, LEFT, UNCHANGED, Outcome, Plan, in_words
from llmcontrol.portable.registry import KINDS
from llmcontrol.portable.taking import PlanOutdated, take

CONFIRM_WITHIN_S = 3600
_SALT = "llmcontrol.portable"
_SHOWN_ROWS, _SHOWN_CHARACTERS = 500, 200
_LABELS = {
    CREATED: (_("new"), "success"),
    CHANGED: (_("changes"), "info"),
    UNCHANGED: (_("stays"), "default"),
    LEFT: (_("left"), "default"),
}
_HEADS = {CREATED: _("New"), CHANGED: _("To change"), UNCHANGED: _("As they are"), LEFT: _("Not in the document, left alone")}


class _UploadForm(forms.Form):
    document = forms.FileField(
        label=_("Document"), widget=UnfoldAdminFileFieldWidget, help_text=_("JSON, as it is taken away here or by export_config.")
    )


def may_open(request: HttpRequest) -> bool:
    return request.user.has_perm(writing.PERMISSION) or request.user.has_perm(taking.PERMISSION)


def page(request: HttpRequest) -> HttpResponse:
    """For those who may take the configuration away or bring one along."""
    if not may_open(request):
        raise PermissionDenied
    if request.method == "POST":
        return _posted(request)
    return _drawn(request)


def _posted(request: HttpRequest) -> HttpResponse:
    exports = "export" in request.POST
    if not request.user.has_perm(writing.PERMISSION if exports else taking.PERMISSION):
        raise PermissionDenied
    if exports:
        return _downloaded(request)
    try:
        return _confirmed(request, request.POST["agreed"]) if "agreed" in request.POST else _uploaded(request)
    except DocumentRefused as refused:
        return _drawn(request, faults=refused.faults[:_SHOWN_ROWS])


def _downloaded(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(writing.exported(_scene(request)), content_type=document.MEDIA_TYPE)
    response["Content-Disposition"] = 'attachment; filename="configuration.json"'
    return response


def _uploaded(request: HttpRequest) -> HttpResponse:
    """Raises DocumentRefused."""
    form = _UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return _drawn(request, form=form)
    text = form.cleaned_data["document"].read(settings.CONFIG_FILE_MAX_BYTES + 1)
    return _drawn(request, text=text, plan=_taken(request, text, dry_run=True))


def _confirmed(request: HttpRequest, token: str) -> HttpResponse:
    """Raises DocumentRefused."""
    try:
        agreed = signing.loads(token, salt=_SALT, max_age=CONFIRM_WITHIN_S)
    except signing.BadSignature:
        raise DocumentRefused(Fault("", "", "This plan is too old to be confirmed: bring the document again.")) from None
    if agreed["user"] != str(request.user.pk):
        raise PermissionDenied
    text = agreed["document"].encode()
    try:
        return _drawn(request, plan=_taken(request, text, dry_run=False, agreed=agreed["plan"]))
    except PlanOutdated as outdated:
        return _drawn(request, text=text, plan=outdated.plan, outdated=str(outdated))


def _taken(request: HttpRequest, text: bytes, *, dry_run: bool, agreed: str = "") -> Plan:
    return take(document.read(text, KINDS, settings.CONFIG_FILE_MAX_BYTES), _scene(request), dry_run=dry_run, agreed=agreed)


def _scene(request: HttpRequest) -> Scene:
    return Scene(timezone.now(), request.user)


def _drawn(request: HttpRequest, *, plan: Plan | None = None, text: bytes = b"", **context: Any) -> HttpResponse:
    """`text`: the document whose plan waits for a confirmation; b"" with a plan: it has happened."""
    if plan is not None:
        context |= _shown(plan)
        if text and not plan.changes_nothing:
            said = {"document": text.decode(), "plan": plan.fingerprint, "user": str(request.user.pk)}
            context["token"] = signing.dumps(said, salt=_SALT, compress=True)
        context["done"] = not text
    frame = {
        "title": gettext("Configuration"),
        "form": _UploadForm(),
        "may_export": request.user.has_perm(writing.PERMISSION),
        "may_import": request.user.has_perm(taking.PERMISSION),
        "max_kib": settings.CONFIG_FILE_MAX_BYTES // 1024,
    }
    return TemplateResponse(request, "admin/llmcontrol/configuration.html", {**admin.site.each_context(request), **frame, **context})


def _shown(plan: Plan) -> dict[str, Any]:
    telling = [outcome for outcome in plan.outcomes if outcome.verb in (CREATED, CHANGED) or outcome.notes]
    figures = [(head, plan.counts[verb]) for verb, head in _HEADS.items()]
    rows = [_row(outcome) for outcome in telling[:_SHOWN_ROWS]]
    left = [f"{outcome.section} {outcome.name}" for outcome in plan.outcomes if outcome.verb == LEFT]
    return {"plan": plan, "figures": figures, "rows": rows, "not_shown": len(telling) - len(rows), "left": left[:_SHOWN_ROWS]}


def _row(outcome: Outcome) -> dict[str, Any]:
    label, color = _LABELS[outcome.verb]
    changes = [(change.field, _cut(change.before), _cut(change.after)) for change in outcome.changes]
    return {"outcome": outcome, "label": label, "color": color, "changes": changes}


def _cut(value: Any) -> str:
    text = in_words(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
