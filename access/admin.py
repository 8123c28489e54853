"""Callers and people in the admin. A new key or token is shown on the page that answers its creation, and never again."""

from __future__ import annotations

import shlex
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from access import scope, services
from access.budget_admin import BudgetAdmin, BudgetEntryAdmin
from access.forms import ApiKeyForm, PersonalTokenForm, TeamForm
from access.member_admin import GrantAdmin, MemberAdmin
from access.models import ApiKey, Budget, Grant, PersonalToken, Team, TeamMember
from models_registry.models import LLMModel
from monitoring.columns import display
from monitoring.models import BudgetEntry
from monitoring.pages import Pages, SavesThroughService

_STATES = {"active": "success", "revoked": "danger", "expired": "warning", "team off": "warning"}


def state_of(row: ApiKey | PersonalToken) -> str:
    if row.revoked_at:
        return "revoked"
    return "expired" if row.expires_at and row.expires_at <= timezone.now() else "active"


class ShownOnce(SavesThroughService, Pages, ModelAdmin):
    """Admins of credentials: made by a service, shown once, revoked; only what is revoked can be deleted."""

    actions = None
    actions_detail = ("revoke",)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**one_button, **(extra_context or {})})

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(super().has_delete_permission(request, obj) and getattr(obj, "revoked_at", None))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Drawn from this request alone: no redirect, so no session or cookie ever holds the credential (and admin pages are
        never cached)."""
        return self.page(
            request,
            "shown_once.html",
            obj,
            gettext("Your new %s") % self.opts.verbose_name,
            credential=request.made,  # type: ignore[attr-defined]
            example=self.example(request, obj),
        )

    def example(self, request: HttpRequest, row: Any) -> str:
        raise NotImplementedError

    def revoke_row(self, row: Any) -> None:
        raise NotImplementedError

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        row = self.get_object(request, str(object_id))
        return [] if row is None or row.revoked_at else super().get_actions_detail(request, object_id)

    @action(description=_("Revoke"), permissions=["change"], icon="block", url_path="revoke")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.found(request, object_id)
        if request.method != "POST":
            explanation = f"Whoever uses this {self.opts.verbose_name} is refused from now on. This cannot be undone."
            return self.confirm(request, row, gettext("Revoke"), explanation, danger=True)
        self.revoke_row(row)
        self.log_change(request, row, "Revoked.")
        messages.success(request, f"{row} is revoked: within two seconds every process refuses it.")
        return redirect(self.url_of(row))


@admin.register(Team)
class TeamAdmin(ModelAdmin):
    when_empty = _("No team yet. API keys belong to teams: make one, then a key for it.")
    form = TeamForm
    list_display = ("name", "state", "keys_count", "created_at")
    list_filter = ("is_active",)
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "is_active")}),
        (_("Limits of all its keys together"), {"fields": (("requests_per_minute", "tokens_per_minute"), "max_concurrency")}),
        (_("What its keys may be"), {"fields": ("scopes", "max_key_days")}),
        (_("Money"), {"fields": ("price_adjustment_bp",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        return super().get_queryset(request).annotate(keys_found=Count("keys", filter=Q(keys__revoked_at__isnull=True)))

    @display(description=_("Status"), label={"on": "success", "off": "danger"})
    def state(self, row: Team) -> str:
        return "on" if row.is_active else "off"

    @display(description=_("Keys in use"), ordering="keys_found")
    def keys_count(self, row: Any) -> int:
        return int(row.keys_found)


@admin.register(ApiKey)
class ApiKeyAdmin(ShownOnce):
    when_empty = _("No API key yet. Programs call models with one; it is shown once, when it is made.")
    form = ApiKeyForm
    list_display = ("name", "team", "shown", "state", "scopes_shown", "models_shown", "expires_at", "created_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "team")
    list_select_related = ("team",)
    search_fields = ("name", "prefix", "team__name")
    fieldsets = (
        (None, {"fields": ("name", "team", "scopes", "allowed_models", "source_networks", "expires_at")}),
        (_("Limits"), {"fields": (("requests_per_minute", "tokens_per_minute"), "max_concurrency")}),
        (_("Records"), {"fields": ("store_bodies",)}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        known = ((None, {"fields": (("shown", "state"), ("created_at", "created_by"))}),) if obj else ()
        return (*known, *self.fieldsets)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("shown", "state", "created_at", "created_by", "team") if obj else ()

    @display(description=_("Key"))
    def shown(self, row: ApiKey) -> str:
        return f"{row.prefix}…"

    @display(description=_("Status"), label=_STATES)
    def state(self, row: ApiKey) -> str:
        state = state_of(row)
        return "team off" if state == "active" and not row.team.is_active else state

    @display(description=pgettext_lazy("what a key may be used for", "May"))
    def scopes_shown(self, row: ApiKey) -> str:
        return ", ".join(row.scopes) or gettext("nothing")

    @display(description=_("Models"))
    def models_shown(self, row: ApiKey) -> str:
        return gettext("all") if row.allowed_models is None else ", ".join(row.allowed_models) or gettext("none")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.giver = request.user
        return form

    def save_model(self, request: HttpRequest, obj: ApiKey, form: ApiKeyForm, change: bool) -> None:
        if change:
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            services.update_api_key(ApiKey.objects.get(pk=obj.pk), changes, request.user)
            return
        made, request.made = services.create_api_key(created_by=request.user, **form.cleaned_data)  # type: ignore[attr-defined]
        obj.pk, obj.prefix = made.pk, made.prefix

    def revoke_row(self, row: ApiKey) -> None:
        services.revoke_api_key(row)

    def example(self, request: HttpRequest, row: ApiKey) -> str:
        model = (
            row.allowed_models[0] if row.allowed_models else LLMModel.objects.filter(is_active=True).values_list("alias", flat=True).first()
        )
        body = f'{{"model": "{model or "MODEL"}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        url = request.build_absolute_uri("/v1/chat/completions")
        credential = request.made  # type: ignore[attr-defined]
        return (
            f"curl {shlex.quote(url)} \\\n  -H 'Authorization: Bearer {credential}' \\\n"
            f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
        )


@admin.register(PersonalToken)
class PersonalTokenAdmin(ShownOnce):
    """A token can do what its user can, so nobody but a superuser sees or makes the token of another person."""

    when_empty = _("No token yet. With one a person’s scripts use the REST API of this control plane.")

    form = PersonalTokenForm
    list_display = ("name", "user", "shown", "state", "expires_at", "created_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    list_select_related = ("user",)
    search_fields = ("name", "prefix", "user__username")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PersonalToken]:
        rows = super().get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(user=request.user.pk)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        person = ("user",) if request.user.is_superuser or obj else ()
        return ("shown", "state", "name", *person, "expires_at") if obj else ("name", *person, "expires_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("shown", "state", "user") if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"user": request.user.pk, **super().get_changeform_initial_data(request)}

    @display(description=_("Token"))
    def shown(self, row: PersonalToken) -> str:
        return f"{row.prefix}…"

    @display(description=_("Status"), label=_STATES)
    def state(self, row: PersonalToken) -> str:
        return state_of(row)

    def save_model(self, request: HttpRequest, obj: PersonalToken, form: PersonalTokenForm, change: bool) -> None:
        if change:
            return super().save_model(request, obj, form, change)
        owner: Any = form.cleaned_data["user"] if request.user.is_superuser else request.user
        made, request.made = services.create_personal_token(  # type: ignore[attr-defined]
            user=owner, name=form.cleaned_data["name"], expires_at=form.cleaned_data["expires_at"]
        )
        obj.pk, obj.prefix, obj.user = made.pk, made.prefix, owner

    def revoke_row(self, row: PersonalToken) -> None:
        services.revoke_personal_token(row)

    def example(self, request: HttpRequest, row: PersonalToken) -> str:
        url = request.build_absolute_uri("/api/v1/llm/providers")
        return f"curl {shlex.quote(url)} \\\n  -H 'Authorization: Token {request.made}'"  # type: ignore[attr-defined]


admin.site.register(Budget, BudgetAdmin)
admin.site.register(BudgetEntry, BudgetEntryAdmin)
admin.site.register(TeamMember, MemberAdmin)
admin.site.register(Grant, GrantAdmin)
admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    """Only a superuser hands out power: others can neither make a superuser nor change anybody who may more than they do, nor
    grant groups or permissions."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "role", "is_active", "last_login")
    list_select_related = ()
    _POWER = ("is_superuser", "is_staff", "groups", "user_permissions")

    @display(description=_("Role"), label={"superuser": "danger", "staff": "info", "no admin": "default"})
    def role(self, row: User) -> str:
        return "superuser" if row.is_superuser else "staff" if row.is_staff else "no admin"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fixed = tuple(super().get_readonly_fields(request, obj))
        return fixed if request.user.is_superuser else (*fixed, *self._POWER)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and self._may_touch(request, obj)

    def _may_touch(self, request: HttpRequest, obj: Any) -> bool:
        """Whoever sets a password can be that person: so nobody touches one who may more than they do."""
        if obj is None or request.user.is_superuser:
            return True
        return not obj.is_superuser and scope.may_whatever(request.user, obj)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """What a group may do is what all of its members may do, so only a superuser changes it."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)
