"""Who finds the playground, and what is offered there."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from access.models import Team, TeamMember
from llmcontrol.playground import names_for
from models_registry.models import LLMModel
from providers.models import Provider

pytestmark = pytest.mark.django_db


@pytest.fixture
def member() -> User:
    user = User.objects.create_user("mia", is_staff=True)
    TeamMember.objects.create(team=Team.objects.create(name="ours"), user=user, role="member")
    Team.objects.create(name="theirs")
    return user


def model(alias: str, **fields: object) -> LLMModel:
    provider = Provider.objects.create(name=f"of {alias}", provider_type="echo")
    return LLMModel.objects.create(provider=provider, model_id=alias, alias=alias, **fields)


def test_a_member_is_offered_the_own_team_and_what_is_open(client: Client, member: User) -> None:
    model("open"), model("off", is_active=False), model("numbers", model_type="embedding"), model("secret", visibility="granted")
    client.force_login(member)
    shown = client.get("/admin/playground/").content.decode()
    assert ("ours" in shown, "theirs" in shown) == (True, False)
    assert names_for(member) == ["open", "auto"]


def test_who_may_make_no_key_may_not_come_in(client: Client) -> None:
    client.force_login(User.objects.create_user("eve", is_staff=True))
    assert client.get("/admin/playground/").status_code == 403
    assert "Playground" not in client.get("/admin/").content.decode()


def test_an_empty_house_says_what_is_missing(admin_client: Client) -> None:
    assert "no team yet" in admin_client.get("/admin/playground/").content.decode()
    Team.objects.create(name="ours")
    assert "No chat model is active" in admin_client.get("/admin/playground/").content.decode()
