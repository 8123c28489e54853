"""Every planned exchange driven through one live gateway: what clients got, what vendors were sent, what was booked."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import replay
from tests.e2e import wire
from tests.e2e.control import Control, until
from tests.e2e.replay_plan import ANTHROPIC, COUNT, DOORS, EMBEDDINGS, MODELS, SIMPLE, Plan, plans
from tests.e2e.wire import Answer
from tests.live import LiveServer

# One attempt each: what a vendor said once is what the client is to hear.
ENVIRONMENT = {"OUTBOUND_ALLOW": "127.0.0.0/8:*", "LLM_CONFIG_POLL_S": "0.5", "LLM_DRAIN_INTERVAL_S": "0.1", "MAX_RETRIES": "0"}
_CLIENTS = 6
_TURNED = "turned"
_PAGE = 200


@dataclass
class Outcome:
    """`answer` in the dialect of the recording, `turned` to a client as `Plan.turned` has it, `others` by dialect.

    `sent`: what the vendor was sent for `answer`. `records` of all of them by request id.
    """

    plan: Plan
    answer: Answer
    sent: list[dict[str, Any]] = field(default_factory=list)
    turned: Answer | None = None
    others: dict[str, Answer] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)


def run(state_dir: Path) -> dict[str, Outcome]:
    """By id, of every exchange in the plan. Starts and ends the servers it needs."""
    with replay.replay_server() as vendors, LiveServer(state_dir, env=ENVIRONMENT) as live:
        control = Control(live.base_url, live.admin_token or "", live.api_key or "")
        with ThreadPoolExecutor(_CLIENTS) as clients:
            return _Run(control, vendors, clients).outcomes()


@dataclass
class _Run:
    control: Control
    vendors: str
    clients: ThreadPoolExecutor

    def outcomes(self) -> dict[str, Outcome]:
        planned = list(plans().values())
        ids = dict(zip([plan.id for plan in planned], self.clients.map(self._register, planned), strict=True))
        self.control.apply(within_s=30)
        answers = self.clients.map(lambda plan: self._ask_as_recorded(plan, ids[plan.id]), planned)
        found = {plan.id: Outcome(plan, answer) for plan, answer in zip(planned, answers, strict=True)}
        for request in wire.call(self.vendors, "GET", "/__requests").json:
            found[request["id"]].sent.append(request)
        list(self.clients.map(self._ask_otherwise, found.values()))
        self._book(found)
        return found

    def _register(self, plan: Plan) -> str:
        """The id of the first client's provider."""
        config = {"base_url": f"{self.vendors}/{plan.id}{plan.path}", "api_key": "sk-recorded-0123456789", **plan.options}
        kind = "embedding" if plan.dialect == EMBEDDINGS else "chat"
        clients = (plan.dialect, *plan.other_dialects, *([_TURNED] if plan.turned is not None else []))
        providers = []
        for alias in dict.fromkeys(_alias(plan, client) for client in clients):
            body = {"name": alias, "provider_type": plan.kind, "config": config, "is_active": True}
            providers.append(self.control.call("POST", "/api/v1/llm/providers", body))
            if plan.dialect != MODELS:
                self.control.model(providers[-1], plan.model_id, alias=alias, model_type=kind)
        return str(providers[0]["id"])

    def _ask_as_recorded(self, plan: Plan, provider_id: str) -> Answer:
        if plan.dialect == MODELS:
            path = f"/api/v1/llm/providers/{provider_id}/sync-models"
            return Answer(200, {}, json.dumps(self.control.call("POST", path, {}, expect=(200, 502))).encode())
        return self._ask(plan, plan.dialect, plan.body)

    def _ask_otherwise(self, outcome: Outcome) -> None:
        plan = outcome.plan
        for dialect in plan.other_dialects:
            outcome.others[dialect] = self._ask(plan, dialect, {**SIMPLE[dialect], "stream": plan.streams})
        if plan.turned is not None:
            outcome.turned = self._ask(plan, plan.dialect, plan.turned, _TURNED)

    def _ask(self, plan: Plan, dialect: str, body: dict[str, Any], client: str = "") -> Answer:
        headers = {"anthropic-version": "2023-06-01"} if dialect == ANTHROPIC else {}
        path, body = DOORS[dialect], {**body, "model": _alias(plan, client or dialect)}
        return wire.call(self.control.base_url, "POST", path, key=self.control.key, body=body, headers=headers)

    def _book(self, found: dict[str, Outcome]) -> None:
        """The ledger's lines, once every generation has its own."""
        of_request = {answer.headers["x-request-id"]: outcome for outcome in found.values() for answer in booked(outcome)}
        until(lambda: len(self._ledger()) >= len(of_request), "a usage record of each request", timeout_s=20)
        for record in self._ledger():
            if record["request_id"] in of_request:
                of_request[record["request_id"]].records[record["request_id"]] = record

    def _ledger(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        path = f"/api/v1/usage/records?page_size={_PAGE}"
        while path:
            page = self.control.call("GET", path)
            rows += page["results"]
            path = re.sub(r"^https?://[^/]+", "", page["next"] or "")
        return rows


def _alias(plan: Plan, client: str) -> str:
    """Where the vendor refuses, each client has a provider of its own: a key that was refused once is not tried again."""
    return plan.id if plan.status == 200 else f"{plan.id}.{client}"


def booked(outcome: Outcome) -> list[Answer]:
    """The answers that the ledger has a line for: generations that reached a vendor."""
    own = [] if outcome.plan.dialect in (MODELS, COUNT) else [outcome.answer]
    turned = [outcome.turned] if outcome.turned else []
    return [answer for answer in [*own, *turned, *outcome.others.values()] if answer.headers.get("x-llm-attempts", "0") != "0"]
