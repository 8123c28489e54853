"""A webhook from a live gateway: submitted, told, verified by its receiver, rotated, refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from telling import signing
from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique, until
from tests.live import LiveServer
from tests.telling.receiver import Heard, Receiver

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture(scope="module")
def other() -> Iterator[Receiver]:
    """Beside the one that may be called."""
    running = Receiver()
    yield running
    running.close()


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Control]:
    env = {"LLM_CONFIG_POLL_S": "0.1", "LLM_WEBHOOK_POLL_S": "0.1", "WEBHOOK_ALLOW": f"127.0.0.1/32:{receiver.port}", "MAX_RETRIES": "0"}
    with LiveServer(tmp_path_factory.mktemp("telling"), env=env) as live:
        yield Control(live.base_url, live.admin_token or "", live.api_key or "")


class Caller:
    def __init__(self, control: Control) -> None:
        self.control = control
        made = control.new_key(scopes=["tasks"])
        self.key, self.team = made["key"], made["team"]
        control.apply()

    def new_secret(self, **fields: Any) -> str:
        secret: str = self.control.call("POST", "/api/v1/webhook-secrets", {"team": self.team, **fields})["secret"]
        return secret

    def submit(self, url: str, **fields: Any) -> wire.Answer:
        body = {"type": "custom", "prompt": "hi", "callback_url": url, "config": {"model": ECHO}, **fields}
        return wire.call(self.control.base_url, "POST", "/api/v1/tasks", key=self.key, body=body)

    def webhooks(self, **query: str) -> list[dict[str, Any]]:
        asked = "&".join(f"{name}={value}" for name, value in {"team": self.team, **query}.items())
        rows: list[dict[str, Any]] = self.control.call("GET", f"/api/v1/webhooks?{asked}")["results"]
        return rows


@pytest.fixture
def caller(telling: Control) -> Caller:
    return Caller(telling)


@pytest.fixture
def heard(receiver: Receiver) -> Callable[[str, int], list[Heard]]:
    def wait(mark: str, count: int) -> list[Heard]:
        until(lambda: len(receiver.of(mark)) >= count, f"{count} webhooks at {mark}", timeout_s=40)
        return receiver.of(mark)

    return wait


def test_a_webhook_is_received_and_verified(caller: Caller, receiver: Receiver, heard: Callable[[str, int], list[Heard]]) -> None:
    secret, mark = caller.new_secret(), unique("hook")
    answer = caller.submit(receiver.url("ok", f"/{mark}"))
    assert answer.status == 202, answer.body
    (got,) = heard(mark, 1)
    assert signing.verify([secret], got.headers, got.body, time.time()) == got.id
    told = json.loads(got.body)
    assert (told["event_type"], told["task_id"]) == ("completed", answer.json["task_id"])
    task = wire.call(caller.control.base_url, "GET", f"/api/v1/tasks/{told['task_id']}", key=caller.key).json
    assert told["data"] == task["result"]
    until(lambda: caller.webhooks(status="delivered"), "it is on record", timeout_s=40)


def test_a_failing_receiver_is_tried_again_with_one_id(
    caller: Caller, receiver: Receiver, heard: Callable[[str, int], list[Heard]]
) -> None:
    secret, mark = caller.new_secret(), unique("hook")
    caller.submit(receiver.url("flaky", f"/{mark}"))
    first, second = heard(mark, 2)
    assert (first.status, second.status) == (500, 204)
    assert first.id == second.id
    assert first.body == second.body
    for each in (first, second):
        signing.verify([secret], each.headers, each.body, each.at)
    (row,) = until(lambda: caller.webhooks(status="delivered"), "it is on record", timeout_s=40)
    history = caller.control.call("GET", f"/api/v1/webhooks/{row['id']}")["history"]
    assert [each["status_code"] for each in history] == [500, 204]


def test_while_a_secret_is_rotated_both_verify(caller: Caller, receiver: Receiver, heard: Callable[[str, int], list[Heard]]) -> None:
    old, mark = caller.new_secret(), unique("hook")
    new = caller.new_secret(overlap_s=600)
    caller.submit(receiver.url("ok", f"/{mark}"))
    (got,) = heard(mark, 1)
    for secret in (old, new):
        signing.verify([secret], got.headers, got.body, time.time())
    caller.new_secret(overlap_s=0)
    caller.submit(receiver.url("ok", f"/{mark}"))
    later = heard(mark, 2)[1]
    for secret in (old, new):
        with pytest.raises(signing.BadSignature):
            signing.verify([secret], later.headers, later.body, time.time())


def test_a_dead_letter_is_sent_again(caller: Caller, receiver: Receiver, heard: Callable[[str, int], list[Heard]]) -> None:
    caller.new_secret()
    mark = unique("hook")
    caller.submit(receiver.url("410", f"/{mark}"))
    (dead,) = until(lambda: caller.webhooks(status="dead"), "it is dead", timeout_s=40)
    assert dead["last_error"] == "It answered 410."
    caller.control.call("POST", f"/api/v1/webhooks/{dead['id']}/replay")
    assert {each.id for each in heard(mark, 2)} == {dead["webhook_id"]}


def test_a_redirect_is_not_followed(caller: Caller, receiver: Receiver, other: Receiver, heard: Callable[[str, int], list[Heard]]) -> None:
    """F45, A21: not even to a neighbour of the address that may be called."""
    caller.new_secret()
    mark, receiver.redirect_to = unique("hook"), other.url()
    caller.submit(receiver.url("redirect", f"/{mark}"))
    heard(mark, 1)
    until(lambda: [row for row in caller.webhooks() if "redirect" in row["last_error"]], "it is on record", timeout_s=40)
    assert other.heard == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/x", "https://10.0.0.1/x", "https://169.254.169.254/x", "http://example.com/x"])
def test_an_address_that_is_not_allowed_is_refused(caller: Caller, other: Receiver, url: str) -> None:
    caller.new_secret()
    answer = caller.submit(url.format(port=other.port))
    assert (answer.status, answer.json["errors"][0]["code"]) == (422, "callback_not_allowed")
    assert caller.webhooks() == []


def test_a_name_that_leads_nowhere_is_tried_again(caller: Caller) -> None:
    caller.new_secret()
    assert caller.submit("https://hooks.invalid/x").status == 202
    row = until(lambda: [row for row in caller.webhooks() if row["tries"]], "the first try", timeout_s=40)[0]
    assert (row["status"], row["last_error"]) == ("pending", "It cannot be reached.")


def test_without_a_secret_nothing_is_taken(caller: Caller, receiver: Receiver) -> None:
    answer = caller.submit(receiver.url())
    assert (answer.status, answer.json["errors"][0]["code"]) == (422, "webhook_secret_missing")
