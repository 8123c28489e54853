"""The completions door, and what it makes of a chat model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion

from core.conversation import Message, Reasoning, Text
from core.errors import InvalidRequest
from core.events import Begun, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta
from core.usage import Usage
from gateway.doors import completions
from tests.adapters.cast import Heard

GOOD = {"model": "m", "prompt": "Once"}
USAGE = Usage(input=3, cached_input=2, output=4, reasoning=1)


def parse(**changes: Any) -> Any:
    return completions.parse(json.dumps({**GOOD, **changes}).encode())


def asked(**changes: Any) -> Any:
    return completions.conversation(parse(**changes).fields)


def test_what_we_read() -> None:
    request = parse(stream=True, stream_options={"include_usage": True}, max_tokens=9, brand_new=[1])
    assert (request.model, request.stream, request.wants_usage, request.max_output_tokens) == ("m", True, True, 9)
    assert bytes(request.fields["brand_new"]) == b"[1]"
    assert (request.dialect.NAME, request.dialect.SCOPE) == ("completions", "chat")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [{}]}, "prompt[0]"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"n": 1000}, "n"),
        ({"stop": ["x"] * 20}, "stop"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**changes)
    assert refused.value.param == param


@pytest.mark.parametrize("prompt", ["Once é", ["Once é"]])
def test_one_prompt_is_a_message_of_the_user(prompt: Any) -> None:
    found = asked(prompt=prompt, max_tokens=5, temperature=0.5, top_p=0.1, stop="x", seed=7, presence_penalty=1, frequency_penalty=-1, n=2)
    assert found.messages == [Message("user", [Text("Once é")])]
    assert (found.max_output_tokens, found.temperature, found.top_p, found.stop, found.seed) == (5, 0.5, 0.1, ["x"], 7)
    assert (found.presence_penalty, found.frequency_penalty, found.n) == (1, -1, 2)
    assert (found.foreign, found.hints) == ([], [])
    assert asked(stop=["x", "y"], user="u").stop == ["x", "y"]


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1, 2]]])
def test_several_prompts_and_tokens_have_no_translation(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(prompt=prompt)
    assert refused.value.param == "prompt"


def test_what_only_completions_have_is_named() -> None:
    found = asked(echo=True, logprobs=0, suffix="end", best_of=2, logit_bias={"1": 2}, max_tokens=0, metadata={"a": "b"}, store=False)
    assert found.foreign == ["echo", "logprobs", "suffix", "best_of", "max_tokens", "logit_bias"]
    assert found.hints == ["metadata"]
    quiet = asked(echo=False, logprobs=None, suffix="", best_of=1, logit_bias=None, stream=True, stream_options={})
    assert (quiet.foreign, quiet.hints) == ([], [])


def test_a_whole_answer() -> None:
    result = Result([Reasoning("hm"), Text("upon "), Text("a time")], Ended("tool_calls"), "id-1", "vendor-m", 7, usage=USAGE)
    body = json.loads(completions.whole(parse(), result))
    answer = Completion.model_validate(body)
    assert (answer.id, answer.model, answer.created, answer.choices[0].text) == ("id-1", "vendor-m", 7, "upon a time")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 5, 10)
    bare = json.loads(completions.whole(parse(), Result([], Ended("length"), refusal="no")))
    assert bare["id"].startswith("cmpl-")
    assert bare["created"] > 1_700_000_000
    assert (bare["model"], bare["choices"][0]["text"], bare["choices"][0]["finish_reason"]) == ("m", "no", "length")
    assert "usage" not in bare


@pytest.mark.parametrize("wants", [True, False])
def test_a_stream(wants: bool) -> None:
    writer = completions.stream_writer(parse(stream=True, stream_options={"include_usage": wants}))
    said = [ReasoningDelta("hm"), TextDelta('u"pon'), TextDelta(" é"), RefusalDelta("!")]
    body = writer.begin(Begun("id-1", "vendor-m", 7)) + b"".join(map(writer.write, said)) + writer.end(Ended("stop"), USAGE)
    assert writer.tail() == b"data: [DONE]\n\n"
    chunks = Heard(body).chunks
    assert [chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"]] == ['u"pon', " é", "!", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]] == [None, None, None, "stop"]
    assert {(chunk["id"], chunk["model"], chunk["created"], chunk["object"]) for chunk in chunks} == {
        ("id-1", "vendor-m", 7, "text_completion")
    }
    assert ["usage" in chunk for chunk in chunks] == [wants] * len(chunks)
    assert len(chunks) == 4 + wants
    if wants:
        assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 10)
