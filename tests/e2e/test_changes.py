"""What an administrator changes is in force soon, without a restart, on a server with its usual settings."""

from __future__ import annotations

import pytest

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique, until
from tests.e2e.wire import Answer
from tests.live import LiveServer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def control(live: LiveServer) -> Control:
    """Not the server that the other tests here share: that one looks for changes more often than usual."""
    return Control(live.base_url, live.admin_token or "", live.api_key or "")


def test_a_revoked_key_is_refused(control: Control) -> None:
    key = control.new_key()
    control.apply()
    assert wire.chat(control.base_url, key["key"], ECHO).status == 200
    control.call("DELETE", f"/api/v1/llm/keys/{key['id']}")
    until(lambda: control.forgot(key["key"]), "the revoked key is refused")
    assert wire.chat(control.base_url, key["key"], ECHO).status == 401
    assert wire.call(control.base_url, "GET", "/v1/models", key=key["key"]).status == 401


def test_changes_reach_the_data_plane_and_raise_the_version(control: Control) -> None:
    provider = control.provider("", kind="echo")
    began = control.version()
    model = control.model(provider, "echo-1")
    alias = model["alias"]
    offered = until(lambda: control.models().get(alias), "the new model is offered")
    assert offered["price_per_million"] is None
    with_model = control.version()
    assert with_model > began

    control.price(model, input="2.50", output="10.00")
    until(lambda: control.models()[alias]["price_per_million"], "the new price is shown")
    price = control.models()[alias]["price_per_million"]
    assert (price["currency"], float(price["input"]), float(price["output"])) == ("USD", 2.5, 10)
    with_price = control.version()
    assert with_price > with_model

    answer = wire.chat(control.base_url, control.key, alias)
    assert int(answer.headers["x-llm-config-version"]) >= with_price
    assert answer.headers["x-llm-cost"].endswith(" USD")

    control.call("PATCH", f"/api/v1/llm/models/{model['id']}", {"is_active": False})
    until(lambda: alias not in control.models(), "the model is withdrawn")
    assert wire.chat(control.base_url, control.key, alias).status == 404
    assert control.version() > with_price


def test_a_route_holds_and_degrades(control: Control) -> None:
    dead = control.model(control.provider("http://127.0.0.1:9", api_key="sk-nobody-listens-there"), "gone")
    small = control.model(control.provider("", kind="echo"), "echo-1")
    name = unique("route")
    route = control.call("POST", "/api/v1/llm/routes", {"alias": name, "targets": [dead["alias"]], "degrade_to": small["alias"]})
    until(lambda: name in control.models(), "the route is offered")
    answer = wire.chat(control.base_url, control.key, name)
    assert (answer.status, answer.headers["x-llm-degraded"], answer.headers["x-llm-model"]) == (200, "1", "echo-1")
    assert answer.headers["x-llm-alias"] == name
    logged = control.request(answer.request_id)
    assert (logged["model"], logged["model_id"], logged["attempts"]) == (name, "echo-1", 2)
    assert [row["status"] for row in control.records(answer.request_id, attempts=2)] == ["error", "ok"]

    before = control.version()
    control.call("PATCH", f"/api/v1/llm/routes/{route['id']}", {"degrade_to": "", "fixed_answer": "Please come back later."})

    def fixed() -> Answer | None:
        answer = wire.chat(control.base_url, control.key, name)
        return answer if answer.headers.get("x-llm-model") == "fixed-answer" else None

    answer = until(fixed, "the text is given")
    assert int(answer.headers["x-llm-config-version"]) > before
    assert answer.json["choices"][0]["message"]["content"] == "Please come back later."
    assert answer.headers["x-llm-cost"] == "0.0 USD"
    last = control.records(answer.request_id, attempts=int(answer.headers["x-llm-attempts"]))[-1]
    assert (last["provider"], last["model_id"], last["input_tokens"], last["output_tokens"]) == ("fixed-answer", "fixed-answer", 0, 0)
    assert (float(last["cost"]), last["currency"]) == (0, "USD")

    control.call("DELETE", f"/api/v1/llm/routes/{route['id']}")
    until(lambda: name not in control.models(), "the route is gone")
    assert wire.chat(control.base_url, control.key, name).status == 404


def test_a_limit_that_is_lowered_holds(control: Control) -> None:
    key = control.new_key()
    control.apply()
    assert "x-ratelimit-limit-requests" not in wire.chat(control.base_url, key["key"], ECHO).headers
    control.call("PATCH", f"/api/v1/llm/keys/{key['id']}", {"rate_limit": {"requests_per_minute": 2}})

    def limited() -> Answer | None:
        answer = wire.chat(control.base_url, key["key"], ECHO)
        return answer if "x-ratelimit-limit-requests" in answer.headers else None

    answer = until(limited, "the limit is shown")
    assert answer.headers["x-ratelimit-limit-requests"] == "2"
    wire.chat(control.base_url, key["key"], ECHO)
    refusal = wire.chat(control.base_url, key["key"], ECHO)
    assert (refusal.status, refusal.error["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(refusal.headers["retry-after"]) <= 60
    assert int(refusal.headers["retry-after-ms"]) <= 1000 * int(refusal.headers["retry-after"])
