"""A small cast: root may everything, a viewer sees, a stranger is logged in and may nothing; each with a personal token."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from pytest_django import DjangoDbBlocker
from rest_framework.test import APIClient

from access.models import ApiKey, Budget, Grant, Team, TeamMember
from access.services import create_api_key, create_personal_token
from models_registry.models import ExchangeRate, LLMModel, Price, PromptTemplate, Route
from models_registry.prompt_services import Wording, save_prompt
from models_registry.services import set_exchange_rate, set_price
from monitoring.models import RequestLog, UsageRecord
from providers.models import Provider, ProviderKey
from providers.services import create_provider
from tasks import service
from tasks.models import Task, TaskType
from tasks.service import Submitter, submit
from telling.alert_models import Alert, AlertChannel, AlertRule
from telling.models import Webhook, WebhookSecret
from telling.services import new_secret
from tests.security.access_fixtures import an_alert
from tests.standing import standing

SECRET = "sk-planted-vendor-key-abcdefgh1234"
MOMENT = datetime(2026, 11, 1, 12, tzinfo=UTC)
OURS = ("providers", "models_registry", "access", "monitoring", "tasks", "telling")


@dataclass
class World:
    provider: Provider
    key: ProviderKey
    model: LLMModel
    price: Price
    rate: ExchangeRate
    route: Route
    prompt: PromptTemplate
    team: Team
    api_key: ApiKey
    api_key_plaintext: str
    budget: Budget
    member: TeamMember
    grant: Grant
    usage: UsageRecord
    request: RequestLog
    task: Task
    task_type: TaskType
    webhook: Webhook
    webhook_secret: WebhookSecret
    alert_rule: AlertRule
    alert_channel: AlertChannel
    alert: Alert


def client_of(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(user, 'test')[1]}")
    return client


def user_with(*permissions: str, username: str = "somebody", **fields: Any) -> User:
    user = User.objects.create_user(username, **fields)
    for permission in permissions:
        app, _, codename = permission.partition(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return user


@pytest.fixture
def root(db: None) -> APIClient:
    return client_of(User.objects.create_superuser("root"))


@pytest.fixture
def anonymous(db: None) -> APIClient:
    return APIClient()


@pytest.fixture
def stranger(db: None) -> APIClient:
    return client_of(user_with(username="stranger"))


@pytest.fixture
def viewer(db: None) -> APIClient:
    views = Permission.objects.filter(content_type__app_label__in=OURS, codename__startswith="view_")
    user = user_with(username="viewer", is_staff=True)
    user.user_permissions.set(views)
    return client_of(user)


@pytest.fixture
def allowed(db: None) -> Callable[..., APIClient]:
    """A client of somebody who has just these permissions."""
    return lambda *permissions: client_of(user_with(*permissions, username="allowed"))


@pytest.fixture(scope="module")
def standing_world(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[bytes]:
    """To be used by a file as a whole (`pytestmark`), and every test in it begins with the world."""
    with standing(django_db_blocker, make_world) as made:
        yield made


@pytest.fixture
def world(request: pytest.FixtureRequest, db: None) -> World:
    """Of this test alone where the file has none that stands."""
    if "standing_world" not in request.fixturenames:
        return make_world()
    loaded: World = pickle.loads(request.getfixturevalue("standing_world"))  # noqa: S301  (our own)
    return loaded


def make_world() -> World:
    provider = create_provider(name="echo", provider_type="echo", secrets=[SECRET])
    model = LLMModel.objects.create(provider=provider, model_id="echo-1", alias="echo")
    price = set_price(model, currency="USD", per_million={"input": "2.50", "output": "10"}, valid_from=MOMENT)
    rate = set_exchange_rate(base="CNY", quote="USD", rate="0.1404", valid_from=MOMENT)
    route = Route.objects.create(alias="main", targets=["echo"])
    prompt = PromptTemplate(name="greeting")
    save_prompt(prompt, Wording([{"role": "user", "content": "Greet {{name}}."}], [{"name": "name"}]))
    team = Team.objects.create(name="search")
    api_key, plaintext = create_api_key(name="bot", team=team)
    budget = Budget.objects.create(team=team, kind="requests", limit=100)
    User.objects.create_user("other")
    member = TeamMember.objects.create(team=team, user=User.objects.create_user("member"), role="manager")
    grant = Grant.objects.create(team=team, model=model)
    task = submit([service.read({"type": "custom", "prompt": "hi"})], Submitter(key=api_key))[0]
    task_type = TaskType.objects.create(name="greeting", prompt="greeting")
    rows = (member, grant, usage_record(1), request_log(1), task, task_type, dead_letter(team, task), new_secret(team)[0], *an_alert("our"))
    return World(provider, provider.keys.get(), model, price, rate, route, prompt, team, api_key, plaintext, budget, *rows)


def dead_letter(team: Team, task: Task) -> Webhook:
    fields = {"event_type": "failed", "url": "https://hooks.example.com/x", "host": "hooks.example.com:443", "body": "{}"}
    return Webhook.objects.create(team=team, task=task, status="dead", next_at=0, created_at=MOMENT, ended_at=MOMENT, **fields)


def usage_record(number: int, **fields: Any) -> UsageRecord:
    values = {
        "request_id": f"req-{number}",
        "attempt": 1,
        "started_at": MOMENT,
        "team_id": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001",
        "team_name": "search",
        "key_id": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0002",
        "key_name": "bot",
        "provider_id": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0003",
        "provider_name": "echo",
        "alias": "echo",
        "model_id": "echo-1",
        "status": "ok",
        "finish_reason": "stop",
        "input_tokens": 9,
        "output_tokens": 2,
        "usage_source": "vendor",
        "cost_micros": 12_300,
        "currency": "USD",
    }
    return UsageRecord.objects.create(**{**values, **fields})


def request_log(number: int, **fields: Any) -> RequestLog:
    values = {
        "request_id": f"req-{number}",
        "started_at": MOMENT,
        "team_name": "search",
        "key_name": "bot",
        "dialect": "openai",
        "alias": "echo",
        "provider_name": "echo",
        "model_id": "echo-1",
        "status_code": 200,
        "attempts": 1,
        "total_tokens": 11,
        "cost_micros": 12_300,
        "currency": "USD",
    }
    return RequestLog.objects.create(**{**values, **fields})


def attrs(response: Any) -> set[str]:
    """The fields that a 400 names, after checking that it has the shape of every error."""
    body = response.json()
    assert response.status_code == 400, body
    assert set(body) == {"type", "errors"}
    assert all(set(error) == {"code", "detail", "attr"} for error in body["errors"])
    return {error["attr"] for error in body["errors"]}
