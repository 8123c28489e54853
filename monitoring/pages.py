"""What the admin pages of every package are made of. It lives here because every package with admin pages may import this one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db.models import Model
from django.forms import BaseForm
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext

from core.money import MICROS, plain

if TYPE_CHECKING:
    from unfold.admin import ModelAdmin as _AdminBase
else:
    _AdminBase = object


def amount(micros: int | None, currency: str) -> str:
    """Micro-units for people: 2_500_000 → '2.50 USD', None → 'unknown' (which is never the same as free)."""
    if micros is None:
        return gettext("unknown")
    whole, _, fraction = plain(micros).partition(".")
    return f"{int(whole):,}.{fraction:0<2} {currency}".strip()


def to_cents(micros: int) -> int:
    """Sums of a unit or more are shown to the cent; smaller ones to three digits, since a thousand tokens can cost less than a cent."""
    unit = 10_000 if micros >= MICROS else 10 ** max(0, len(str(abs(micros))) - 3)
    return (micros + unit // 2) // unit * unit


def duration(ms: int) -> str:
    """For people, two or three digits of it: 409 ms, 4.1 s, 2 min 5 s, 3 h 20 min."""
    if ms < 1000:
        return gettext("%s ms") % ms
    if ms < 60_000:
        return gettext("%s s") % (f"{ms / 1000:.1f}" if ms < 59_950 else "60")
    minutes, seconds = divmod(ms // 1000, 60)
    if minutes < 60:
        return gettext("{minutes} min {seconds} s").format(minutes=minutes, seconds=seconds)
    return gettext("{hours} h {minutes} min").format(hours=minutes // 60, minutes=minutes % 60)


def share_of(part: float, whole: float) -> str:
    """In per cent; "" of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def pretty(value: Any) -> str:
    """JSON as people read it, in its own script; "–" of nothing. Safe to show: it is escaped."""
    if value is None or value == {}:
        return "–"
    return format_html('<pre class="llmc-said">{}</pre>', json.dumps(value, ensure_ascii=False, indent=2))


def show_refusal(form: BaseForm, refused: ValidationError) -> None:
    """A service's refusal as errors of `form`: on the field it names (`per_million.input` is `input`), else above the form."""
    by_field = refused.message_dict if hasattr(refused, "error_dict") else {"": refused.messages}
    for field, messages in by_field.items():
        name = field.rpartition(".")[2]
        for message in messages:
            form.add_error(name if name in form.fields else None, message)


class ReadOnly:
    """For admins and inlines of rows that people may read and nobody may touch."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class Pages(_AdminBase):
    """For admins with pages of their own beside Django's."""

    def found(self, request: HttpRequest, object_id: str) -> Any:
        """The row, as far as this user may see it. Raises Http404."""
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404(f"There is no {self.opts.verbose_name} with this id; it may have been deleted.")
        return row

    def page(self, request: HttpRequest, template: str, row: Model, title: str, **context: Any) -> TemplateResponse:
        """A page about one row, in the frame of the admin."""
        request.current_app = self.admin_site.name
        frame = self.admin_site.each_context(request)
        return TemplateResponse(
            request,
            f"admin/llmcontrol/{template}",
            {**frame, "opts": self.opts, "original": row, "title": title, "back": self.url_of(row), **context},
        )

    def confirm(self, request: HttpRequest, row: Model, title: str, explanation: str, *, danger: bool = False) -> TemplateResponse:
        """Asks before something is done: the button on this page sends the POST."""
        return self.page(request, "confirm.html", row, title, explanation=explanation, danger=danger)

    def url_of(self, row: Model) -> str:
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])


class SavesThroughService(_AdminBase):
    """For admins whose `save_model` calls a service that may refuse.

    Django asks the form before it saves, and the service only while saving. So a refusal rolls the save back, and the same
    request is answered again with the refusal as an error of the form (its class takes `refused`, see `RefusableForm`).
    """

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as refused:
            request.refused = refused  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.refused = getattr(request, "refused", None)
        return form


class RefusableForm(BaseForm):
    """The form's half of `SavesThroughService`."""

    refused: ValidationError | None = None

    def full_clean(self) -> None:
        super().full_clean()
        if self.refused is not None and self.is_bound:
            show_refusal(self, self.refused)
