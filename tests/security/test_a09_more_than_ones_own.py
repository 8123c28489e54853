"""A09: nobody gives a key more than their team has, neither when it is written nor by what happens to the team afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from access.models import ApiKey, Budget, Grant, Team, TeamMember
from access.services import SCOPES, MaxSpend, create_api_key, update_api_key
from core.config import CallerSpec, Snapshot
from gateway.config.loader import load
from models_registry.models import LLMModel, Route
from tests.security.access_fixtures import Tenants

KEYS = "/api/v1/llm/keys"


def body(tenants: Tenants, **more: Any) -> dict[str, Any]:
    return {"name": "child", "team": str(tenants.ours.team.pk), **more}


def refused(response: Any) -> set[str]:
    assert response.status_code == 400, response.json()
    return {error["attr"] for error in response.json()["errors"]}


def test_what_a_manager_cannot_give(tenants: Tenants) -> None:
    team = tenants.ours.team
    Team.objects.filter(pk=team.pk).update(scopes=["chat"], requests_per_minute=60, max_key_days=30)
    Budget.objects.create(team=team, kind="money", currency="USD", limit=5_000_000, period="month")
    client = tenants.rest(tenants.ours.people["manager"])
    late = (timezone.now() + timedelta(days=31)).isoformat()
    for more, field in (
        ({"scopes": ["chat", "usage"]}, "scopes"),
        ({"scopes": ["chat"], "models": ["theirs-model"]}, "models"),
        ({"scopes": ["chat"], "models": ["theirs-route"]}, "models"),
        ({"scopes": ["chat"], "models": ["*"]}, "models"),
        ({"scopes": ["chat"], "rate_limit": {"requests_per_minute": 61}}, "rate_limit.requests_per_minute"),
        ({"scopes": ["chat"], "expires_at": late}, "expires_at"),
        ({"scopes": ["chat"], "max_spend": {"limit": "5.01", "currency": "USD", "period": "month"}}, "max_spend"),
        ({"scopes": ["admin"]}, "scopes.0"),
        ({"team": str(tenants.theirs.team.pk)}, "team"),
    ):
        assert refused(client.post(KEYS, body(tenants, **more), format="json")) == {field}, more
    assert team.keys.count() == 1
    made = client.post(
        KEYS, body(tenants, scopes=["chat"], models=["ours-model"], max_spend={"limit": "5", "currency": "USD"}), format="json"
    )
    assert made.status_code == 201, made.json()
    assert Budget.objects.get(key=made.json()["id"]).limit == 5_000_000
    assert made.json()["expires_at"] is not None
    url = f"{KEYS}/{made.json()['id']}"
    for change, field in (
        ({"models": ["theirs-model"]}, "models"),
        ({"scopes": list(SCOPES)}, "scopes"),
        ({"expires_at": late}, "expires_at"),
    ):
        assert refused(client.patch(url, change, format="json")) == {field}


def test_what_is_closed_is_told_as_what_does_not_exist(tenants: Tenants) -> None:
    client = tenants.rest(tenants.ours.people["manager"])
    said = []
    for alias in ("theirs-model", "nobodys-model"):
        answer = client.post(KEYS, body(tenants, models=[alias]), format="json")
        said.append((answer.status_code, answer.content.replace(alias.encode(), b"ALIAS")))
    assert said[0] == said[1]


def test_a_member_makes_keys_and_changes_none_and_a_viewer_neither(tenants: Tenants) -> None:
    member, viewer = (tenants.rest(tenants.ours.people[role]) for role in ("member", "viewer"))
    assert member.post(KEYS, body(tenants), format="json").status_code == 201
    assert member.patch(f"{KEYS}/{tenants.ours.key.pk}", {"name": "x"}, format="json").status_code == 403
    assert viewer.post(KEYS, body(tenants), format="json").status_code == 403


def test_the_services_ask_too(tenants: Tenants) -> None:
    stranger = tenants.theirs.people["manager"]
    with pytest.raises(ValidationError, match="You may not do this in this team"):
        create_api_key(name="k", team=tenants.ours.team, created_by=stranger)
    with pytest.raises(ValidationError, match="You may not do this in this team"):
        update_api_key(tenants.ours.key, {"name": "k"}, by=stranger)


def test_a_manager_of_one_team_makes_nobody_a_manager_of_another(tenants: Tenants) -> None:
    client = tenants.rest(tenants.ours.people["manager"])
    own = TeamMember.objects.get(user=tenants.ours.people["manager"])
    answer = client.patch(f"/api/v1/llm/members/{own.pk}", {"team": str(tenants.theirs.team.pk)}, format="json")
    assert answer.status_code == 400
    assert client.patch(f"/api/v1/llm/members/{tenants.theirs.member.pk}", {"role": "manager"}, format="json").status_code == 404
    assert not TeamMember.objects.filter(team=tenants.theirs.team, user=own.user).exists()


def test_an_old_key_may_be_renamed_when_its_team_has_become_less(tenants: Tenants) -> None:
    Team.objects.filter(pk=tenants.ours.team.pk).update(scopes=["models"], max_key_days=1)
    client = tenants.rest(tenants.ours.people["manager"])
    assert client.patch(f"{KEYS}/{tenants.ours.key.pk}", {"name": "renamed"}, format="json").status_code == 200


# At use: effective(child) ⊆ effective(parent), whatever was written when. ---------------------------------------------------

Holding = dict[str, Any]
ALIASES = ("a", "b", "c", "route-a", "route-b")
some_scopes = st.sets(st.sampled_from(SCOPES), min_size=1).map(sorted)
holdings = st.fixed_dictionaries(
    {
        "scopes": st.none() | some_scopes,
        "max_key_days": st.none() | st.integers(1, 60),
        "closed": st.sets(st.sampled_from((*ALIASES, "provider"))),
        "granted": st.sets(st.sampled_from((*ALIASES, "provider"))),
    }
)
wishes = st.fixed_dictionaries(
    {
        "scopes": some_scopes,
        "allowed_models": st.none() | st.sets(st.sampled_from((*ALIASES, "not-there")), min_size=1).map(sorted),
        "days": st.none() | st.integers(1, 90),
    }
)


def make_it_so(team: Team, holding: dict[str, Any], rows: dict[str, Any]) -> None:
    Team.objects.filter(pk=team.pk).update(scopes=holding["scopes"], max_key_days=holding["max_key_days"])
    team.refresh_from_db()
    Grant.objects.filter(team=team).delete()
    for name, row in rows.items():
        type(row).objects.filter(pk=row.pk).update(visibility="granted" if name in holding["closed"] else "everyone")
        if name in holding["granted"]:
            Grant.objects.create(team=team, **{{"llmmodel": "model"}.get(row._meta.model_name, row._meta.model_name): row})


def allowed_by(holding: dict[str, Any], alias: str) -> bool:
    """The rule of docs/access.md, said once more and in other words."""
    shut, given = holding["closed"], holding["granted"]
    if alias.startswith("route-"):
        return (alias not in shut or alias in given) and allowed_by(holding, alias.removeprefix("route-"))
    if alias in shut:
        return alias in given
    return "provider" not in shut or "provider" in given or alias in given


def usable(snapshot: Snapshot, caller: CallerSpec) -> set[str]:
    """What the router would let this key reach: names that it may ask for, with a model behind that is not barred."""
    reach = {alias: {model.id for model in models} - caller.barred for alias, models in snapshot.models.items()}
    reach |= {alias: {one for target in route.targets for one in reach.get(target, ())} for alias, route in snapshot.routes.items()}
    return {alias for alias, models in reach.items() if models and caller.may_name(alias)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at_first=holdings, wish=wishes, later=holdings)
def test_effective_child_is_within_effective_parent(
    tenants: Tenants, at_first: dict[str, Any], wish: dict[str, Any], later: dict[str, Any]
) -> None:
    with transaction.atomic():
        provider = tenants.ours.provider
        rows: dict[str, Any] = {"provider": provider}
        for alias in ("a", "b", "c"):
            rows[alias] = LLMModel.objects.create(provider=provider, model_id=alias, alias=alias)
        for alias in ("a", "b"):
            rows[f"route-{alias}"] = Route.objects.create(alias=f"route-{alias}", targets=[alias])
        team, giver = Team.objects.create(name="parent"), tenants.ours.people["manager"]
        TeamMember.objects.create(team=team, user=giver, role="manager")
        vars(giver).pop("_llmc_team_roles", None)
        make_it_so(team, at_first, rows)
        now = timezone.now()
        asked = {**wish, "expires_at": now + timedelta(days=wish["days"]) if wish["days"] else None}
        del asked["days"]
        try:
            key, _ = create_api_key(name="child", team=team, created_by=giver, **asked)
        except ValidationError:
            within = set(wish["scopes"]) <= set(at_first["scopes"] or SCOPES)
            within = within and all(alias != "not-there" and allowed_by(at_first, alias) for alias in wish["allowed_models"] or ())
            assert not within or (at_first["max_key_days"] or 99) < (wish["days"] or 0), "refused what it could have"
        else:
            _stays_within(team, key, at_first, rows)
            make_it_so(team, later, rows)
            _stays_within(team, key, later, rows)
        transaction.set_rollback(True)


def _stays_within(team: Team, key: ApiKey, holding: dict[str, Any], rows: dict[str, Any]) -> None:
    snapshot = load(None)
    caller = snapshot.callers[bytes(key.digest)]
    assert caller.scopes <= set(holding["scopes"] or SCOPES)
    reached = usable(snapshot, caller) & set(ALIASES)
    permitted = {alias for alias in ALIASES if allowed_by(holding, alias)}
    assert reached == permitted & set(key.allowed_models if key.allowed_models is not None else ALIASES)
    if holding["max_key_days"]:
        latest = (key.created_at + timedelta(days=holding["max_key_days"])).timestamp()
        assert caller.expires_at is not None
        assert caller.expires_at <= latest
    if key.expires_at is not None:
        assert caller.expires_at is not None
        assert caller.expires_at <= key.expires_at.timestamp()


def test_a_keys_money_is_its_own_hard_budget_beside_its_teams(tenants: Tenants) -> None:
    key, _ = create_api_key(name="child", team=tenants.ours.team, max_spend=MaxSpend(1_000_000, "USD"))
    spec = next(budget for budget in load(None).budgets if budget.holder == str(key.pk))
    assert (spec.scope, spec.kind, spec.limit, spec.hard, spec.period) == ("key", "money", 1_000_000, True, "total")
    with pytest.raises(ValidationError, match="currency"):
        create_api_key(name="odd", team=tenants.ours.team, max_spend=MaxSpend(1, "XXQ"))
    assert not ApiKey.objects.filter(name="odd").exists()


def test_a_moment_that_is_over_ends_a_key_of_a_team_with_a_shorter_life(tenants: Tenants) -> None:
    ApiKey.objects.filter(pk=tenants.ours.key.pk).update(created_at=datetime(2020, 1, 1, tzinfo=UTC))
    Team.objects.filter(pk=tenants.ours.team.pk).update(max_key_days=1)
    caller = load(None).callers[bytes(tenants.ours.key.digest)]
    assert caller.expires_at == datetime(2020, 1, 2, tzinfo=UTC).timestamp()
