"""Two tenants who know nothing of each other, people in each, and people over both."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client
from rest_framework.test import APIClient

from access.models import ApiKey, Budget, Grant, PersonalToken, Team, TeamMember
from access.roles import ROLES, TEAM_ROLES, sync_groups
from access.services import create_api_key, create_personal_token
from models_registry.models import ExchangeRate, LLMModel, Price, PromptTemplate, Route
from models_registry.prompt_services import Wording, save_prompt
from models_registry.services import set_exchange_rate, set_price
from monitoring.models import AuditEvent, BudgetEntry, RequestLog, Rollup, UsageRecord
from providers.models import Provider, ProviderKey
from providers.services import create_provider
from tasks.models import Task, TaskType
from tasks.service import Submitter, read, submit
from telling.alert_models import Alert, AlertChannel, AlertRule
from telling.alert_services import save_channel
from telling.models import Webhook, WebhookSecret
from telling.services import new_secret

MOMENT = datetime(2026, 11, 1, 12, tzinfo=UTC)


@dataclass
class Tenant:
    """One of everything that belongs to a team, or is open to it alone."""

    team: Team
    key: ApiKey
    key_plaintext: str
    budget: Budget
    entry: BudgetEntry
    request: RequestLog
    usage: UsageRecord
    rollup: Rollup
    model: LLMModel
    route: Route
    prompt: PromptTemplate
    member: TeamMember
    grant: Grant
    token: PersonalToken
    task: Task
    task_type: TaskType
    webhook: Webhook
    webhook_secret: WebhookSecret
    alert_rule: AlertRule
    alert_channel: AlertChannel
    alert: Alert
    people: dict[str, User] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.team.name

    @property
    def provider(self) -> Provider:
        return self.model.provider

    @property
    def provider_key(self) -> ProviderKey:
        return self.provider.keys.get()

    @property
    def price(self) -> Price:
        return self.model.prices.get()

    @property
    def event(self) -> AuditEvent:
        return AuditEvent.objects.latest("sequence")

    @property
    def rate(self) -> ExchangeRate:
        return ExchangeRate.objects.get()


def make_tenant(name: str) -> Tenant:
    """Its model is closed to everybody else, its route and its prompt, too."""
    provider = create_provider(name=f"{name}-vendor", provider_type="echo", secrets=[f"sk-{name}-vendor-key-abcdefgh1234"])
    model = LLMModel.objects.create(provider=provider, model_id="echo-1", alias=f"{name}-model", visibility="granted")
    set_price(model, currency="USD", per_million={"input": "1", "output": "2"}, valid_from=MOMENT)
    route = Route.objects.create(alias=f"{name}-route", targets=[model.alias], visibility="granted")
    team = Team.objects.create(name=name)
    people = {role: User.objects.create_user(f"{name}-{role}", is_staff=True, password=None) for role in TEAM_ROLES}
    members = {role: TeamMember.objects.create(team=team, user=user, role=role) for role, user in people.items()}
    grant = Grant.objects.create(team=team, model=model)
    Grant.objects.create(team=team, route=route)
    prompt = PromptTemplate(name=f"{name}-prompt", visibility="granted")
    save_prompt(prompt, Wording([{"role": "user", "content": f"{name} says {{{{it}}}}"}], [{"name": "it"}]))
    Grant.objects.create(team=team, prompt=prompt)
    key, plaintext = create_api_key(name=f"{name}-bot", team=team)
    budget = Budget.objects.create(team=team, kind="requests", limit=100)
    shared = {"team_id": str(team.pk), "team_name": name, "key_id": str(key.pk), "key_name": key.name, "alias": model.alias}
    shared |= {"provider_name": provider.name, "model_id": "echo-1"}
    return Tenant(
        team,
        key,
        plaintext,
        budget,
        BudgetEntry.objects.create(
            started_at=MOMENT,
            request_id=f"{name}-1",
            attempt=1,
            budget_id=str(budget.pk),
            period_start=0,
            reserved=1,
            amount=1,
            state="settled",
        ),
        RequestLog.objects.create(request_id=f"{name}-1", started_at=MOMENT, dialect="openai", status_code=200, attempts=1, **shared),
        UsageRecord.objects.create(
            request_id=f"{name}-1", attempt=1, started_at=MOMENT, status="ok", provider_id=str(provider.pk), usage_source="vendor", **shared
        ),
        Rollup.objects.create(span_s=3600, start=MOMENT, status="ok", requests=1, attempts=1, input_tokens=7, **shared),
        model,
        route,
        prompt,
        members["viewer"],
        grant,
        create_personal_token(people["manager"], f"{name}-script")[0],
        Task.objects.create(key=key, kind="custom", prompt="hi", batch=team.pk, timeout_s=60, max_attempts=1, rank=0, created_at=MOMENT),
        TaskType.objects.create(name=f"{name}-type", prompt=prompt.name),
        a_dead_letter(team, key),
        new_secret(team)[0],
        *an_alert(name),
        people,
    )


def an_alert(name: str) -> tuple[AlertRule, AlertChannel, Alert]:
    """Of nobody: a role in a team opens none of them."""
    channel = save_channel(AlertChannel(name=f"{name}-mail", kind="email", recipients="ops@example.com"))
    rule = AlertRule.objects.create(name=f"{name}-rule", condition="queue_delay", threshold=60)
    rule.channels.add(channel)
    about = {"condition": rule.condition, "subject": "tasks", "label": "queued tasks", "value": 61, "sentence": "They wait."}
    return rule, channel, Alert.objects.create(rule=rule, rule_name=rule.name, started_at=MOMENT, seen_at=MOMENT, **about)


def a_dead_letter(team: Team, key: ApiKey) -> Webhook:
    task = submit([read({"type": "custom", "prompt": "hi"})], Submitter(key=key))[0]
    fields = {"event_type": "failed", "url": "https://hooks.example.com/x", "host": "hooks.example.com:443", "body": "{}"}
    return Webhook.objects.create(team=team, task=task, status="dead", next_at=0, created_at=MOMENT, ended_at=MOMENT, **fields)


@dataclass
class Tenants:
    ours: Tenant
    theirs: Tenant
    people: dict[str, User]

    def rest(self, who: User | None) -> APIClient:
        client = APIClient()
        if who is not None:
            client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(who, 'test')[1]}")
        return client

    def admin(self, who: User | None) -> Client:
        client = Client()
        if who is not None:
            client.force_login(who)
        return client


def person_with_role(role: str, **fields: Any) -> User:
    user = User.objects.create_user(role, is_staff=True, **fields)
    user.groups.add(Group.objects.get(name=role))
    return user


def make_tenants() -> Tenants:
    sync_groups()
    set_exchange_rate(base="CNY", quote="USD", rate="0.1404", valid_from=MOMENT)
    people = {role: person_with_role(role) for role in ROLES}
    people["superuser"] = User.objects.create_superuser("superuser")
    return Tenants(make_tenant("ours"), make_tenant("theirs"), people)
