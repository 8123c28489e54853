"""A house with one of everything that a document can hold, and with secrets planted in it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from access.models import Budget, Grant, Team
from access.services import create_api_key
from llmcontrol.portable import document
from llmcontrol.portable.kind import Scene
from llmcontrol.portable.plan import Plan
from llmcontrol.portable.registry import KINDS
from llmcontrol.portable.taking import take
from llmcontrol.portable.writing import exported
from models_registry.models import LLMModel, PromptTemplate, Route
from models_registry.prompt_services import Wording, save_prompt
from models_registry.services import set_exchange_rate, set_price
from providers.models import Provider
from providers.services import add_key, change_key, create_provider
from tasks.models import TaskType
from telling.alert_models import AlertChannel, AlertRule
from telling.alert_services import save_channel
from telling.services import new_secret

PLANTED = "sk-planted-secret-that-no-document-shows"
HOOK = f"https://oapi.dingtalk.com/robot/send?access_token={PLANTED}"
LIMIT = 2**20


def config() -> bytes:
    return exported(Scene(timezone.now()))


def sections() -> dict[str, Any]:
    """The whole document, to be altered."""
    found: dict[str, Any] = json.loads(config())
    return found


def given(whole: dict[str, Any], *, dry_run: bool = False, user: Any = None, agreed: str = "") -> Plan:
    text = json.dumps({"format": document.FORMAT, "version": document.VERSION, **whole}).encode()
    return take(document.read(text, KINDS, LIMIT), Scene(timezone.now(), user), dry_run=dry_run, agreed=agreed)


def enter_secrets() -> None:
    """What an operator does after an import."""
    openai = Provider.objects.get(name="openai-main")
    for name in ("main", "spare"):
        add_key(openai, f"{PLANTED}-{name}", name)
    save_channel(AlertChannel.objects.get(name="on call"), url=HOOK, secret=PLANTED)


def emptied() -> None:
    """What migrations have put there stays no more than the rest."""
    for kind in reversed(KINDS.values()):
        kind.model._default_manager.all().delete()
    assert not any(json.loads(config())[name] for name in KINDS)


@pytest.fixture
def house(db: None) -> None:
    now = timezone.now()
    openai = create_provider(
        name="openai-main", provider_type="openai", base_url="https://api.openai.com/v1", rate_capacity=20, rate_refill_per_s=3
    )
    for name in ("main", "spare"):
        change_key(add_key(openai, f"{PLANTED}-{name}", name), {"weight": 3 if name == "main" else 1, "is_active": name == "main"})
    local = create_provider(name="desk", provider_type="openai_compatible", base_url="http://10.0.0.7:8000/v1", visibility="granted")
    gpt = LLMModel.objects.create(
        provider=openai, model_id="gpt-4o-2024-08-06", alias="gpt-4o", context_window=128_000, capabilities=["tools"]
    )
    small = LLMModel.objects.create(provider=local, model_id="qwen", alias="small", visibility="granted", requests_per_minute=60)
    set_price(gpt, currency="USD", per_million={"input": "3", "output": "12"}, valid_from=now - timedelta(days=9))
    set_price(gpt, currency="USD", per_million={"input": "2.50", "output": "10", "reasoning": "11"}, valid_from=now - timedelta(days=2))
    set_price(gpt, currency="USD", per_million={"input": "2", "output": "8"}, valid_from=now + timedelta(days=2), source="announced")
    set_price(gpt, currency="USD", per_million={"input": "1", "output": "4"}, service_tier="batch", valid_from=now - timedelta(days=2))
    set_price(small, currency="CNY", per_million={"input": "0", "output": "0"}, min_input_tokens=1000, valid_from=now - timedelta(days=2))
    set_exchange_rate(base="CNY", quote="USD", rate="0.14", valid_from=now - timedelta(days=3))
    set_exchange_rate(base="CNY", quote="USD", rate="0.1404", valid_from=now - timedelta(days=2))
    route = Route.objects.create(
        alias="main", targets=["gpt-4o"], fallbacks=["small"], strategy="weighted", weights={"gpt-4o": 3}, task_types=["translation"]
    )
    prompt = PromptTemplate(name="greeting", labels={})
    save_prompt(prompt, Wording([{"role": "user", "content": "Greet {{name}}."}], [{"name": "name"}]))
    save_prompt(prompt, Wording([{"role": "user", "content": "你好 {{name}}!"}], [{"name": "name"}]), note="in Chinese")
    prompt.labels = {"staging": 2, "production": 1}
    save_prompt(prompt)
    TaskType.objects.create(name="triage", prompt="greeting", prompt_version="production", result_schema={"type": "object"})
    team = Team.objects.create(name="search", requests_per_minute=100, scopes=["chat", "models"])
    person = User.objects.create_user("person")
    for holder, what in ((team, {"provider": local}), (team, {"model": small}), (team, {"route": route}), (team, {"prompt": prompt})):
        Grant.objects.create(team=holder, **what)
    Grant.objects.create(user=person, model=small)
    key, _ = create_api_key(name="crawler", team=team)
    Budget.objects.create(team=team, kind="money", currency="USD", limit=250_500_000)
    Budget.objects.create(team=team, kind="money", currency="USD", limit=200_000_000, hard=False)
    Budget.objects.create(provider=openai, kind="tokens", limit=1_000_000, period="day")
    Budget.objects.create(user="customer-7", kind="requests", limit=10)
    Budget.objects.create(key=key, kind="requests", limit=5)
    new_secret(team)
    channel = save_channel(AlertChannel(name="on call", kind="dingtalk"), url=HOOK, secret=PLANTED)
    save_channel(AlertChannel(name="mail", kind="email", recipients="ops@example.com"))
    rule = AlertRule.objects.create(name="slow answers", condition="p95_duration", threshold=30)
    rule.channels.set([channel, AlertChannel.objects.get(name="mail")])
