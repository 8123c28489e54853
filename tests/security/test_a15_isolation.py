"""A15, A46, A47: one caller's answer, credential, limit and idempotency key are never another's."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import unique
from tests.security.house import House

pytestmark = pytest.mark.process


def test_fifty_at_once_with_two_credentials_do_not_mix(house: House) -> None:
    models = {name: house.model("ok@tokens=5,delay=0.005", api_key=f"sk-vendor-key-{name}") for name in ("first", "second")}
    keys = {name: house.control.new_key(models=[alias]) for name, alias in models.items()}
    house.control.apply()
    prompts = [(unique("isolation"), name) for _ in range(25) for name in models]

    def ask(asked: tuple[str, str]) -> tuple[str, str, wire.Answer]:
        prompt, name = asked
        return prompt, name, wire.chat(house.live.base_url, keys[name]["key"], models[name], prompt)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, prompts))
    used: Counter[str] = Counter()
    for prompt, name, answer in answers:
        (call,) = house.vendor.calls(prompt)
        assert wire.said_whole(answer.json).texts[0].startswith(f"echo:{call['echo']}"), "another prompt's answer"
        assert call["key"] == f"sk-vendor-key-{name}"
        used[call["key"]] += 1
    assert used == {"sk-vendor-key-first": 25, "sk-vendor-key-second": 25}


def test_the_same_prompt_of_another_caller_is_asked_anew(house: House) -> None:
    """Without a cache, which is how a model is made: nothing is kept of an answer that another could be given."""
    model, prompt = house.model("ok@tokens=2"), unique("same")
    keys = [house.control.new_key(), house.control.new_key()]
    house.control.apply()
    ids = {wire.chat(house.live.base_url, key["key"], model, prompt).request_id for key in keys}
    assert len(ids) == 2
    assert len(house.vendor.calls(prompt)) == 2


def test_a_kept_answer_is_its_teams_own(house: House) -> None:
    """With one: fifty at once of two teams are two calls, each with its own answer; then each is given its own again."""
    model, prompt = house.model("ok@tokens=5,ttfb=0.2", cache_ttl_s=600), unique("cached")
    keys = [house.control.new_key() for _ in range(2)]
    colleague = house.control.call("POST", "/api/v1/llm/keys", {**_key_of({"id": keys[0]["team"]}), "name": unique("colleague")})
    house.control.apply()

    def ask(key: dict[str, Any]) -> wire.Answer:
        return wire.chat(house.live.base_url, key["key"], model, prompt)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, keys * 25))
    calls = house.vendor.calls(prompt)
    assert len(calls) == 2, "one for each team"
    first, second = ({wire.said_whole(answer.json).texts[0] for answer in answers[team::2]} for team in range(2))
    assert len(first) == len(second) == 1
    assert Counter(answer.headers["x-llm-cache"] == "miss" for answer in answers) == {True: 2, False: 48}
    again = [ask(key) for key in (*keys, colleague)]
    assert [answer.headers["x-llm-cache"] for answer in again] == ["hit"] * 3
    assert again[2].json["id"] == again[0].json["id"] != again[1].json["id"]
    assert len(house.vendor.calls(prompt)) == 2


def test_a_key_that_is_revoked_is_not_given_what_is_kept(house: House) -> None:
    model, prompt = house.model("ok@tokens=2", cache_ttl_s=600), unique("revoked")
    key = house.control.new_key()
    house.control.apply()
    assert [wire.chat(house.live.base_url, key["key"], model, prompt).headers["x-llm-cache"] for _ in range(2)] == ["miss", "hit"]
    house.control.call("POST", f"/api/v1/llm/keys/{key['id']}/revoke", {})
    house.control.apply()
    assert wire.chat(house.live.base_url, key["key"], model, prompt).status == 401


# A46 ------------------------------------------------------------------------------------------------------------------

HI = wire.HELLO
DOORS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HI}),
    ("/api/v1/chat/completions", {"messages": HI}),
    ("/openai/v1/chat/completions", {"messages": HI}),
    ("/openai/deployments/{model}/chat/completions?api-version=2024-10-21", {"messages": HI}),
    ("/v1/messages", {"messages": HI, "max_tokens": 5}),
    ("/v1/responses", {"input": "hi"}),
    ("/openai/responses", {"input": "hi"}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/api/generate", {"prompt": "hi"}),
]
DISGUISES: list[dict[str, str]] = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Real-IP": "203.0.113.9"},
    {"Forwarded": "for=203.0.113.9"},
    {"CF-Connecting-IP": "203.0.113.9"},
    {"User-Agent": "another"},
    {"OpenAI-Organization": "another"},
    {"X-Api-Version": "9"},
]


def test_every_door_counts_into_one_bucket(house: House) -> None:
    """Whichever door it comes by, in whatever disguise, also over a socket: what is used up is used up."""
    key = house.control.new_key(rate_limit={"requests_per_minute": len(DOORS)})["key"]
    house.control.apply()
    model = str(house.live.model)
    for path, body in DOORS:
        assert _asked(house, key, path.format(model=model), {"model": model, **body}) == 200, path
    for path, body in DOORS:
        assert _asked(house, key, path.format(model=model), {"model": model, **body}) == 429, path
    for headers in DISGUISES:
        assert _asked(house, key, DOORS[0][0], {"model": model, **DOORS[0][1]}, headers) == 429, headers
    for name in ("x-api-key", "api-key", "x-goog-api-key"):
        assert wire.call(house.live.base_url, "POST", DOORS[0][0], headers={name: key}, body={"model": model, **DOORS[0][1]}).status == 429
    assert asyncio.run(_over_a_socket(house, key, model)) == "error"


def _asked(house: House, key: str, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> int:
    return wire.call(house.live.base_url, "POST", path, key=key, body=body, headers=headers).status


async def _over_a_socket(house: House, key: str, model: str) -> str:
    from tests.security.test_a36_sockets import generate, heard, opened

    async with opened(house, key) as connection:
        await connection.send(generate("a", "hi", model))
        type_: str = (await heard(connection, "a"))[-1]["type"]
        return type_


def test_a_second_key_of_the_same_team_has_no_second_limit(house: House) -> None:
    team = house.control.call("POST", "/api/v1/llm/teams", {"name": unique("team"), "rate_limit": {"requests_per_minute": 3}})
    keys = [house.control.call("POST", "/api/v1/llm/keys", _key_of(team)) for _ in range(3)]
    house.control.apply()
    model = str(house.live.model)
    statuses = [wire.chat(house.live.base_url, key["key"], model).status for key in (*keys, *keys)]
    assert statuses == [200, 200, 200, 429, 429, 429]


def _key_of(team: dict[str, Any]) -> dict[str, Any]:
    return {"name": unique("key"), "team": team["id"], "scopes": ["chat", "models"]}


@pytest.mark.parametrize("bend", [str.upper, "{}.".format, " {}".format, "{} ".format, "{}\u200b".format, "./{}".format, "{}%20".format])
def test_a_model_by_a_bent_name_is_not_there(house: House, bend: Any) -> None:
    """So that no limit of the model is passed by another spelling of it."""
    assert wire.chat(house.live.base_url, house.key, bend(house.live.model)).status == 404


def test_two_names_of_one_model_share_the_vendors_limits_that_are_the_models(house: House) -> None:
    """A limit on a provider holds for all its models, whatever they are called."""
    provider = house.control.provider(house.vendor.base_url, api_key="sk-limited-vendor-key", rate_limit={"tokens_per_minute": 40})
    aliases = [house.control.model(provider, "ok@tokens=1", alias=unique("alias"))["alias"] for _ in range(3)]
    house.control.apply()
    prompt = "x" * 100  # with the rest of the body some forty tokens by four bytes each
    statuses = [wire.chat(house.live.base_url, house.key, alias, prompt).status for alias in aliases]
    assert statuses[0] == 200
    assert set(statuses[1:]) == {429}


# A47 ------------------------------------------------------------------------------------------------------------------


def test_an_idempotency_key_is_its_callers_own(house: House) -> None:
    model = house.model("ok@tokens=2")
    keys = [house.control.new_key()["key"] for _ in range(2)]
    house.control.apply()
    prompt, headers = unique("idempotent"), {"Idempotency-Key": "order-1"}

    def ask(key: str, text: str = prompt, **fields: Any) -> wire.Answer:
        return wire.chat(house.live.base_url, key, model, text, headers=headers, **fields)

    first, again, other = ask(keys[0]), ask(keys[0]), ask(keys[1])
    assert [answer.status for answer in (first, again, other)] == [200, 200, 200]
    assert again.body == first.body
    assert again.headers["x-llm-idempotent-replay"] == "true"
    assert "x-llm-idempotent-replay" not in other.headers
    assert len(house.vendor.calls(prompt)) == 2, "one for each caller"
    for reused in (ask(keys[0], prompt + "!"), ask(keys[0], max_tokens=7), ask(keys[0], stream=True)):
        assert (reused.status, reused.error["code"]) == (422, "idempotency_key_reused")
    body = {"model": model, "messages": wire.asking(prompt)}
    moved = wire.call(house.live.base_url, "POST", "/api/v1/chat/completions", key=keys[0], headers=headers, body=body)
    assert moved.status == 422
    assert len(house.vendor.calls(prompt)) == 2


@pytest.mark.parametrize("name", ["", "x" * 256, "a\tb", "\xff" * 300])
def test_an_idempotency_key_that_is_none_is_refused(house: House, name: str) -> None:
    answer = wire.chat(house.live.base_url, house.key, str(house.live.model), headers={"Idempotency-Key": name})
    assert answer.status == 400
    assert answer.error["param"] == "Idempotency-Key"
