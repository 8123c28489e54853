"""A small world to look at: one of everything, with secrets planted in it that no page may show."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from access.budgets import correct
from access.models import ApiKey, Budget, Grant, PersonalToken, Team, TeamMember
from access.services import create_api_key, create_personal_token
from models_registry.models import LLMModel, Route
from models_registry.prompt_services import add_shipped_prompts
from models_registry.services import set_exchange_rate, set_price
from monitoring.models import RequestLog, UsageRecord
from providers.models import Provider
from providers.services import create_provider
from tasks import service
from tasks.models import TaskType
from tasks.service import Submitter, submit
from telling.alert_models import Alert, AlertChannel, AlertRule
from telling.alert_services import save_channel
from telling.models import Webhook
from telling.services import new_secret
from tests.standing import standing

PLANTED = "sk-planted-secret-that-no-page-shows"


@dataclass
class World:
    provider: Provider
    model: LLMModel
    route: Route
    team: Team
    key: ApiKey
    key_plaintext: str
    token: PersonalToken
    token_plaintext: str
    request: RequestLog
    usage: UsageRecord

    @property
    def secrets(self) -> list[str]:
        return [PLANTED, self.key_plaintext, self.token_plaintext]


@pytest.fixture
def root(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", "root@example.org"))
    return client


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """A client logged in as a staff user with just these permissions ("app_label.codename")."""

    def make(*permissions: str, username: str = "staff") -> Client:
        user = User.objects.create_user(username, is_staff=True)
        for permission in permissions:
            app, codename = permission.split(".")
            user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        client = Client()
        client.force_login(user)
        return client

    return make


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
    provider = create_provider(name="vendor", provider_type="openai", secrets=[PLANTED])
    model = LLMModel.objects.create(provider=provider, model_id="gpt-4o-2024-08-06", alias="gpt-4o")
    set_price(model, currency="USD", per_million={"input": "2.50", "output": "10"}, valid_from=timezone.now() - timedelta(days=1))
    set_exchange_rate(base="CNY", quote="USD", rate="0.1404")
    route = Route.objects.create(alias="main", targets=["gpt-4o"], fixed_answer="Later.")
    add_shipped_prompts()
    team = Team.objects.create(name="search")
    key, key_plaintext = create_api_key(name="crawler", team=team)
    budget = Budget.objects.create(team=team, kind="requests", limit=100)
    correct(budget, 1, "counted twice")
    owner = User.objects.create_user("owner", is_staff=True)
    TeamMember.objects.create(team=team, user=owner, role="manager")
    Grant.objects.create(team=team, model=model)
    token, token_plaintext = create_personal_token(owner, "script")
    TaskType.objects.create(name="triage", prompt="summarize", result_schema={"type": "object"})
    task = submit([service.read({"type": "custom", "prompt": "hi"})], Submitter(key=key))[0]
    told = {"event_type": "failed", "url": "https://hooks.example.com/x", "host": "hooks.example.com:443", "body": "{}"}
    Webhook.objects.create(team=team, task=task, status="dead", next_at=0, created_at=timezone.now(), ended_at=timezone.now(), **told)
    new_secret(team)
    channel = AlertChannel(name="on call", kind="dingtalk")
    save_channel(channel, url=f"https://oapi.dingtalk.com/robot/send?access_token={PLANTED}", secret=PLANTED)
    rule = AlertRule.objects.create(name="slow", condition="p95_duration", threshold=30)
    rule.channels.add(channel)
    alert = {"rule_name": "slow", "condition": "p95_duration", "subject": "gateway", "label": "all requests", "value": 31}
    Alert.objects.create(rule=rule, sentence="It took long.", started_at=timezone.now(), seen_at=timezone.now(), **alert)
    recorded = make_request("req_one", cost_micros=12_300, currency="USD")
    return World(provider, model, route, team, key, key_plaintext, token, token_plaintext, *recorded)


def make_request(request_id: str, **columns: object) -> tuple[RequestLog, UsageRecord]:
    """One answered request with one attempt behind it."""
    shared = {"team_name": "search", "key_name": "crawler", "provider_name": "vendor", "alias": "gpt-4o", "model_id": "gpt-4o-2024-08-06"}
    shared |= {"started_at": timezone.now(), "duration_ms": 1500, "config_version": 7}
    money = {name: columns.pop(name) for name in ("cost_micros", "currency") if name in columns}
    logged = {"status_code": 200, "attempts": 1, "total_tokens": 30, "dialect": "openai", **shared, **money, **columns}
    request = RequestLog.objects.create(request_id=request_id, **logged)
    usage = UsageRecord.objects.create(
        request_id=request_id,
        attempt=1,
        provider_id="p",
        status="ok",
        usage_source="vendor",
        input_tokens=10,
        output_tokens=20,
        **{**shared, **{name: value for name, value in columns.items() if name in shared}},
        **money,
    )
    return request, usage
