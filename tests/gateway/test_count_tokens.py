"""POST /api/count-tokens, and the window in a generation's way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.chat import WireCall
from core.config import LimitSpec
from gateway.doors.count_tokens import CountTokensDoor
from gateway.doors.http import Gateway
from tests.gateway.scripted import ANSWER, PEPPER, Bench
from tests.gateway.test_door import Client

GPT = {"model_id": "gpt-4o"}


def bench_of(monkeypatch: pytest.MonkeyPatch, *, caller: dict[str, Any] | None = None, **changes: Any) -> Bench:
    bench = Bench(monkeypatch, **(caller or {}))
    models = tuple(msgspec.structs.replace(model, **changes) for model in bench.snapshot.models["m"])
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models={"m": models}))
    return bench


async def ask(bench: Bench, body: dict[str, Any]) -> Client:
    gateway = Gateway(pepper=PEPPER, max_body_bytes=10_000, body_timeout_s=1, pipeline=bench.pipeline)
    return await Client(msgspec.json.encode(body)).call(CountTokensDoor(gateway))  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [{"text": "hello world", "model": "m"}, {"text": "hello world"}])
async def test_text_is_counted_for_the_model_behind_the_alias(monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]) -> None:
    client = await ask(bench_of(monkeypatch, **GPT), body)
    assert client.status == 200
    assert msgspec.json.decode(client.body) == {"tokens": 2, "model": "m", "exact": True}


async def test_messages_are_counted_with_their_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await ask(bench_of(monkeypatch, **GPT), {"messages": [{"role": "user", "content": "hello world"}], "model": "m"})
    assert msgspec.json.decode(client.body) == {"tokens": 2 + 3 + 1 + 3, "model": "m", "exact": True}


async def test_an_unknown_tokenizer_is_an_estimate_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await ask(bench_of(monkeypatch), {"text": "hello world!"})
    assert msgspec.json.decode(client.body) == {"tokens": 3, "model": "m", "exact": False}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "a", "messages": [{"role": "user", "content": "a"}]}, "text"),
        ({"text": 7}, None),
        ({"text": "a", "modle": "m"}, None),
        ({"text": "a", "model": "nope"}, "model"),
        ({"messages": []}, "messages"),
    ],
)
async def test_bad_bodies_are_refused_in_words(monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], param: str | None) -> None:
    client = await ask(bench_of(monkeypatch), body)
    assert client.status in (400, 404)
    assert client.error["param"] == param


async def test_a_key_without_any_chat_model_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await ask(bench_of(monkeypatch, caller={"models": frozenset()}), {"text": "a"})
    assert (client.status, client.error["param"]) == (400, "model")


async def test_what_exceeds_the_window_never_reaches_the_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(monkeypatch, context_window=5, **GPT)
    client = await Client().call(bench.door)
    assert (client.status, client.error["code"]) == (400, "context_length_exceeded")
    assert bench.settled_in_full()
    assert not bench.responses


async def test_left_out_messages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(monkeypatch, context_window=30, truncate=True, **GPT)
    bench.scripts["a"] = [ANSWER]
    turns = [{"role": "user", "content": "hello " * 20}, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Well?"}]
    client = await Client(msgspec.json.encode({"model": "m", "messages": turns})).call(bench.door)
    assert client.status == 200
    assert client.headers[b"x-llm-dropped-params"] == b"messages[0..1]"


async def test_an_embedding_model_does_not_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await Client().call(bench_of(monkeypatch, model_type="embedding").door)
    assert (client.status, client.error["param"]) == (400, "model")
    assert "/v1/embeddings" in client.error["message"]


async def test_a_name_that_a_client_made_up_cannot_split_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"] = [ANSWER]
    monkeypatch.setattr(
        "tests.gateway.scripted.ScriptedAdapter.chat_call",
        lambda *_: WireCall(url="http://vendor", headers={}, dropped=("a\r\nset-cookie: x", "ünicode", "x" * 5000)),
    )
    client = await Client().call(bench.door)
    value = client.headers[b"x-llm-dropped-params"]
    assert value.startswith(rb"a\r\nset-cookie: x, \xfcnicode, xxx")
    assert len(value) < 1100


async def test_counting_keeps_to_the_keys_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(monkeypatch, caller={"limits": LimitSpec(requests_per_minute=1)})
    first = await ask(bench, {"text": "hello world"})
    assert (first.status, first.headers[b"x-ratelimit-remaining-requests"]) == (200, b"0")
    client = await ask(bench, {"text": "hello world"})
    assert (client.status, client.error["code"]) == (429, "rate_limit_exceeded")
    assert client.error["message"].startswith("This key has used 1 of 1 requests per minute")
    assert client.headers[b"retry-after"]


async def test_what_is_refused_takes_nothing_of_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(monkeypatch, caller={"limits": LimitSpec(requests_per_minute=1, max_concurrency=1)})
    assert (await ask(bench, {"text": 7})).status == 400
    assert (await ask(bench, {"text": "hello world"})).status == 200
