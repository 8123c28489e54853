"""Who is in a team, and what is open to whom, in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from access import services
from access.models import Grant, TeamMember
from monitoring.columns import display
from monitoring.pages import RefusableForm, SavesThroughService


class PersonField(forms.CharField):
    """A person by user name: a list to choose from would show a team's manager everybody there is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(label=_("User name"), max_length=150, widget=UnfoldAdminTextInputWidget, **kwargs)

    def clean(self, value: Any) -> Any:
        name = super().clean(value)
        if not name:
            return None
        person = get_user_model().objects.filter(username=name).first()
        if person is None:
            raise forms.ValidationError("There is no user of this name; an administrator adds people under Users.")
        return person

    def prepare_value(self, value: Any) -> Any:
        found = get_user_model().objects.filter(pk=value).first() if isinstance(value, int) else None
        return found.get_username() if found else value


class MemberForm(RefusableForm, forms.ModelForm):
    user = PersonField(help_text=_("Of somebody who has a user already."))

    class Meta:
        model = TeamMember
        fields = ("team", "user", "role")


class MemberAdmin(SavesThroughService, ModelAdmin):
    when_empty = _("Nobody is a member of a team yet. Members see and change the rows of their team alone.")
    form = MemberForm
    list_display = ("person", "team", "may", "since")
    list_filter = ("team", "role")
    list_select_related = ("team", "user")
    search_fields = ("user__username", "user__email", "team__name")
    fields = (("team", "user"), "role")
    actions = None

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("team", "user") if obj else ()

    @display(description=_("Person"), ordering="user__username")
    def person(self, row: TeamMember) -> str:
        return row.user.get_username()

    @display(description=_("Role"), ordering="role", label={"manager": "success", "member": "info", "viewer": "warning"})
    def may(self, row: TeamMember) -> tuple[str, str]:
        return row.role, row.get_role_display()

    @display(description=_("Since"), ordering="created_at")
    def since(self, row: TeamMember) -> str:
        return f"{row.created_at:%Y-%m-%d}"

    def save_model(self, request: HttpRequest, obj: TeamMember, form: MemberForm, change: bool) -> None:
        services.save_member(obj, request.user)


class GrantForm(RefusableForm, forms.ModelForm):
    user = PersonField(required=False, help_text=_("Instead of a team: one person, who then sees it."))

    class Meta:
        model = Grant
        fields = ("team", "user", "provider", "model", "route", "prompt")


class GrantAdmin(SavesThroughService, ModelAdmin):
    """Given and taken away, never changed."""

    when_empty = _("No grant yet. One opens a provider, model, route or prompt that is open to “granted” alone to one team or person.")

    form = GrantForm
    list_display = ("what", "kind", "whose", "by", "since")
    list_filter = ("team", "provider")
    list_select_related = ("team", "user", "provider", "model", "route", "prompt", "created_by")
    search_fields = ("team__name", "user__username", "provider__name", "model__alias", "route__alias", "prompt__name")
    fieldsets = (
        (_("For whom: choose one"), {"fields": (("team", "user"),)}),
        (_("What: choose one whose visibility is “those with a grant”"), {"fields": ("provider", "model", "route", "prompt")}),
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description=_("Open"))
    def what(self, row: Grant) -> str:
        return str(row.opened)

    @display(
        description=_("Kind"), label={"provider": "info", "model": "success", "route": "warning", "prompt": "info", "nothing": "default"}
    )
    def kind(self, row: Grant) -> str:
        return next((name for name in Grant.OBJECTS if getattr(row, f"{name}_id") is not None), "nothing")

    @display(description=_("For"))
    def whose(self, row: Grant) -> str:
        return gettext("team %s") % row.team if row.team_id else gettext("person %s") % row.user

    @display(description=_("Given by"))
    def by(self, row: Grant) -> str:
        return str(row.created_by or "–")

    @display(description=_("Since"), ordering="created_at")
    def since(self, row: Grant) -> str:
        return f"{row.created_at:%Y-%m-%d}"

    def save_model(self, request: HttpRequest, obj: Grant, form: GrantForm, change: bool) -> None:
        services.save_grant(obj, request.user)
