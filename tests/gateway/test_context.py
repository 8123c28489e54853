"""Conversations longer than a model's window."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.chat import ChatRequest
from core.config import ModelSpec
from core.errors import ContextTooLong, InvalidRequest, ProviderFault
from gateway.context import fitted
from gateway.doors import openai_chat
from models_registry.tokens import count_conversation
from tests.gateway.scripted import ANSWER, Bench

LONG = "word " * 100
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "first " + LONG},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "found " + LONG},
    {"role": "assistant", "content": "There."},
    {"role": "user", "content": "second " + LONG},
    {"role": "assistant", "content": "Fine."},
    {"role": "user", "content": "third"},
]


def model(*, truncate: bool, model_id: str = "gpt-4o") -> ModelSpec:
    return ModelSpec("m", "alias", model_id, "p", truncate=truncate)


def request(messages: list[dict[str, Any]] = TURNS, **more: Any) -> ChatRequest:
    return openai_chat.parse(msgspec.json.encode({"model": "alias", "messages": messages, **more}))


def messages_of(request: ChatRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(request.fields["messages"])
    return found


async def test_what_fits_is_left_alone() -> None:
    asked = request()
    assert await fitted(asked, model(truncate=True), 1000) == (asked, "")


async def test_too_long_is_refused_with_both_numbers() -> None:
    with pytest.raises(ContextTooLong, match=r"has about \d+ tokens; the model 'alias' takes 100") as caught:
        await fitted(request(), model(truncate=False), 100)
    assert caught.value.param == "messages"


async def test_plain_text_to_a_public_tokenizer_is_refused_by_the_exact_number() -> None:
    asked = request([{"role": "user", "content": LONG}])
    count = count_conversation(asked.conversation(), "gpt-4o").tokens
    assert await fitted(asked, model(truncate=False), count) == (asked, "")
    with pytest.raises(ContextTooLong, match=f"has {count} tokens"):
        await fitted(asked, model(truncate=False), count - 1)


async def test_an_estimate_refuses_nothing_that_may_fit() -> None:
    asked = request([{"role": "user", "content": LONG}])
    count = count_conversation(asked.conversation(), "claude").tokens
    assert await fitted(asked, model(truncate=False, model_id="claude"), round(count / 1.1)) == (asked, "")
    with pytest.raises(ContextTooLong, match="about"):
        await fitted(asked, model(truncate=False, model_id="claude"), round(count / 1.3))


async def test_the_oldest_turn_goes_with_its_tool_calls() -> None:
    shorter, left_out = await fitted(request(), model(truncate=True), 200)
    assert messages_of(shorter) == [TURNS[0], *TURNS[5:]]
    assert left_out == "messages[1..4]"


async def test_the_system_prompt_and_the_last_turn_stay() -> None:
    shorter, left_out = await fitted(request(), model(truncate=True), 60)
    assert messages_of(shorter) == [TURNS[0], TURNS[7]]
    assert left_out == "messages[1..6]"
    assert messages_of(request()) == TURNS


async def test_a_last_turn_that_does_not_fit_is_refused_not_cut() -> None:
    with pytest.raises(ContextTooLong):
        await fitted(request([TURNS[0], TURNS[1]]), model(truncate=True), 60)


async def test_room_is_left_for_the_answer() -> None:
    whole, left_out = await fitted(request(), model(truncate=True), 220)
    assert left_out == "messages[1..4]"
    assert len(messages_of(whole)) == 4
    _, left_out = await fitted(request(max_tokens=150), model(truncate=True), 220)
    assert left_out == "messages[1..6]"


async def test_the_other_fields_travel_on() -> None:
    shorter, _ = await fitted(request(temperature=0.5, seed=1), model(truncate=True), 60)
    assert set(shorter.fields) == {"model", "messages", "temperature", "seed"}


@pytest.mark.parametrize("content", [["x" * 500], [5, "x" * 500]])
async def test_what_cannot_be_told_apart_is_the_clients_fault(content: Any) -> None:
    with pytest.raises(InvalidRequest, match="malformed") as caught:
        await fitted(request([{"role": "user", "content": content}]), model(truncate=True), 50)
    assert caught.value.param == "messages"


async def test_what_was_left_out_for_one_target_is_not_said_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"].append(ProviderFault("down"))
    bench.scripts["b"].append(ANSWER)
    generation = bench.generation()
    generation._request = request()
    small, large = generation._view.targets["m"]
    targets = (msgspec.structs.replace(small, window=200, model=msgspec.structs.replace(small.model, truncate=True)), large)
    monkeypatch.setattr("gateway.pipeline.targets_for", lambda *_: targets)
    await generation.start()
    generation.end(None)
    assert (generation.provider_name, generation.dropped) == ("b", ())
