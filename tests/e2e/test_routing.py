"""Choosing between models, from outside: routes by REST, a vendor that fails on demand, headers, and the explanation over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import Control, unique, until
from tests.e2e.vendor import Vendor

pytestmark = pytest.mark.process

NEVER_OPENS = {"fail_max": 1000, "reset_timeout_s": 1}


def explained(control: Control, request_id: str) -> dict[str, Any]:
    """Once the request is in the log."""
    control.request(request_id)
    found: dict[str, Any] = control.call("GET", f"/api/v1/requests/{request_id}/explain")
    return found


def model_of(control: Control, vendor: Vendor, model_id: str, **fields: Any) -> dict[str, Any]:
    """At a provider of its own."""
    return control.model(control.provider(vendor.base_url, breaker=NEVER_OPENS), model_id, **fields)


def route(control: Control, *targets: dict[str, Any], **fields: Any) -> str:
    alias = unique("route")
    control.call("POST", "/api/v1/llm/routes", {"alias": alias, "targets": [target["alias"] for target in targets], **fields})
    return alias


def test_auto_takes_the_task_types_route_and_says_why(control: Control, vendor: Vendor) -> None:
    dear, cheap, lame, spare = (model_of(control, vendor, model_id) for model_id in ("ok", "fault-500", "ok", "ok"))
    control.price(dear, input="10", output="30")
    control.price(cheap, input="1", output="2")
    control.price(lame, input="0.1", output="0.2")
    control.call("PATCH", f"/api/v1/llm/models/{lame['id']}", {"context_window": 50})
    task_type = unique("task")
    name = route(control, dear, cheap, lame, strategy="cost", fallbacks=[spare["alias"]], task_types=[task_type])
    control.apply()

    headers = {"x-llm-explain": "1"}
    answer = wire.chat(control.base_url, control.key, "auto", unique("nonce:"), task_type=task_type, max_tokens=100, headers=headers)
    assert answer.status == 200
    assert answer.headers["x-llm-alias"] == "auto"
    assert answer.headers["x-llm-attempts"] == "2"
    assert answer.headers["x-llm-explain"].startswith(f"1. {cheap['alias']} at ")
    assert "too small" in answer.headers["x-llm-explain"]

    found = explained(control, answer.request_id)
    assert (found["asked"], found["task_type"], found["chosen"]) == ("auto", task_type, True)
    assert found["config_version"] == int(answer.headers["x-llm-config-version"])
    lines = [(line["alias"], line["stage"], line["rejected"]) for line in found["candidates"]]
    first = [(cheap["alias"], f"route {name}", False), (dear["alias"], f"route {name}", False)]
    assert lines[:3] == [*first, (spare["alias"], f"fallbacks of route {name}", False)]
    assert (lame["alias"], f"route {name}", True) in lines
    assert all(line["reason"] for line in found["candidates"])
    assert [(one["alias"], one["status"]) for one in found["attempts"]] == [(cheap["alias"], "error"), (dear["alias"], "ok")]


def test_names_to_fall_back_on_and_a_plain_name(control: Control, vendor: Vendor) -> None:
    bad, good = model_of(control, vendor, "fault-500"), model_of(control, vendor, "ok")
    control.apply()
    prompt = unique("nonce:")
    answer = wire.chat(control.base_url, control.key, bad["alias"], prompt, models=[good["alias"]])
    assert (answer.status, answer.headers["x-llm-attempts"]) == (200, "2")
    assert "x-llm-explain" not in answer.headers
    assert [line["alias"] for line in explained(control, answer.request_id)["candidates"]] == [bad["alias"], good["alias"]]
    plain = wire.chat(control.base_url, control.key, good["alias"], prompt, headers={"x-llm-explain": "1"})
    assert plain.headers["x-llm-explain"].startswith(f"named by the request: {good['alias']} at ")
    found = explained(control, plain.request_id)
    assert (found["chosen"], [line["reason"] for line in found["candidates"]]) == (False, ["named by the request"])
    refused = wire.chat(control.base_url, control.key, good["alias"], prompt, models=["no-such-model"])
    assert (refused.status, refused.error["param"]) == (404, "models[0]")


def test_other_dialects_choose_too(control: Control, vendor: Vendor) -> None:
    task_type = unique("task")
    model = model_of(control, vendor, "ok")
    route(control, model, task_types=[task_type])
    control.apply()
    bodies = {
        "/v1/messages": {"model": "auto", "max_tokens": 50, "messages": wire.HELLO},
        "/v1/responses": {"model": "auto", "input": "Say hello."},
        "/api/generate": {"prompt": "Say hello."},
    }
    for path, body in bodies.items():
        answer = wire.call(control.base_url, "POST", path, key=control.key, body={**body, "task_type": task_type})
        assert answer.status == 200, (path, answer.body)
        found = explained(control, answer.request_id)
        assert (path, found["asked"], found["candidates"][0]["alias"]) == (path, "auto", model["alias"])


def test_a_connection_test_that_finds_no_tools_counts(control: Control, vendor: Vendor) -> None:
    """The fault vendor says words where a tool was to be called."""
    lame, able = model_of(control, vendor, "ok"), model_of(control, vendor, "ok")
    report = control.call("POST", f"/api/v1/llm/providers/{lame['provider']}/test", {"model": lame["alias"]})
    graded = {check["name"]: check["result"] for check in report["checks"]}
    assert graded["tools"] != "pass", graded
    name = route(control, lame, able)
    control.apply()
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    answer = wire.chat(control.base_url, control.key, name, unique("nonce:"), tools=tools)
    assert answer.status == 200
    found = explained(control, answer.request_id)
    assert found["needs"] == ["tools"]
    assert [(line["alias"], line["rejected"]) for line in found["candidates"]] == [(able["alias"], False), (lame["alias"], True)]


def test_a_program_asks_about_its_own_requests(control: Control, vendor: Vendor) -> None:
    model = model_of(control, vendor, "ok")
    # To a key that may use them all, `auto` would be whatever models other tests have left behind, those that fail too.
    mine, other = (control.new_key(scopes=["chat", "usage"], models=[model["alias"]]) for _ in range(2))
    control.apply()
    answer = wire.chat(control.base_url, mine["key"], "auto", unique("nonce:"), models=[model["alias"]])
    assert answer.status == 200
    path = f"/api/v1/requests/{answer.request_id}/explain"
    until(lambda: wire.call(control.base_url, "GET", path, key=mine["key"]).status == 200, "the explanation is there")
    assert wire.call(control.base_url, "GET", path, key=other["key"]).status == 404
