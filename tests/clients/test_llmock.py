"""llmock behind the gateway: it breaks its answers in every way it knows, and judges what was made of them.

Its client is the gateway with an application before it: where the gateway answers with an error, the application asks again.
An answer that was broken and passed off as whole is asked for once only, and the verdict says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e import wire
from tests.e2e.control import Control, unique

pytestmark = pytest.mark.process

_PAUSE_S = 0.2  # before the application asks again; llmock takes as a retry only what comes after it has seen its client go
WAYS = {"openai": "/v1", "anthropic": "/anthropic", "gemini": "/gemini/v1beta"}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
Judged = Callable[..., dict[str, Any]]


@pytest.fixture(params=WAYS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def alias(kind: str, control: Control, llmock: str) -> str:
    provider = control.provider(
        llmock + WAYS[kind],
        kind=kind,
        api_key="sk-of-the-vendor",
        timeouts={"first_byte_s": 1.0, "idle_s": 0.5, "connect_s": 3, "total_s": 20},
    )
    alias = control.model(provider, "a-model")["alias"]
    control.apply()
    return alias


@pytest.fixture
def client(control: Control) -> Iterator[openai.OpenAI]:
    """As it is by itself: it tries twice more, and waits as long as it is told."""
    with openai.OpenAI(base_url=f"{control.base_url}/v1", api_key=control.key, timeout=30) as client:
        yield client


@pytest.fixture
def behave(llmock: str) -> Callable[..., None]:
    """Forgets what was; called, it makes llmock break what comes in a way of its own."""

    assert wire.call(llmock, "POST", "/_llmock/reset").status == 200

    def behave(**behavior: Any) -> None:
        assert wire.call(llmock, "POST", "/_llmock/scenario", body={"behaviors": [behavior]}).status == 201

    return behave


@pytest.fixture
def judged(llmock: str) -> Judged:
    def judged(*, warned: bool = False, **expected: int) -> dict[str, Any]:
        """The verdict, which has to be clean; `warned`: of errors at least."""
        verdict = wire.call(llmock, "GET", "/_llmock/verdict").json
        assert (verdict["passed"], [] if warned else verdict["findings"]) == (True, []), verdict
        assert {name: verdict[name] for name in expected} == expected, verdict
        return verdict

    return judged


def messages() -> Any:
    return [{"role": "user", "content": f"What is the weather in Paris? {unique('mark')}"}]


def whole(client: openai.OpenAI, alias: str) -> str:
    return client.chat.completions.create(model=alias, messages=messages()).choices[0].message.content or ""


def streamed(client: openai.OpenAI, alias: str, asked: Any) -> str:
    """The text of a stream that has to come with its usage and its end."""
    text, finish, usage = "", None, None
    with client.chat.completions.create(model=alias, messages=asked, stream=True, stream_options={"include_usage": True}) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
            usage = chunk.usage or usage
    assert finish == "stop"
    assert usage is not None
    assert usage.completion_tokens > 0
    return text


def persistently(client: openai.OpenAI, alias: str) -> tuple[str, list[str]]:
    """A stream as an application would get it that tries again on every error; and the errors."""
    asked, errors = messages(), []
    while True:
        try:
            return streamed(client, alias, asked), errors
        except openai.APIError as error:
            errors.append(error.code or "")
            assert len(errors) < 3, errors
            time.sleep(_PAUSE_S)


def test_nothing_broken(client: openai.OpenAI, alias: str, behave: Any, judged: Judged) -> None:
    assert whole(client, alias) == streamed(client, alias, messages())
    judged(calls=2, attempts=2, faults_injected=0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_round_with_a_tool(client: openai.OpenAI, alias: str, behave: Any, judged: Judged, stream: bool) -> None:
    asked = messages()
    if stream:
        with client.chat.completions.stream(model=alias, messages=asked, tools=TOOLS) as events:
            choice = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(model=alias, messages=asked, tools=TOOLS).choices[0]  # type: ignore[assignment]
    (call,) = choice.message.tool_calls or []
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "get_weather")  # type: ignore[union-attr]
    turns = [*asked, choice.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}]
    answer = client.chat.completions.create(model=alias, messages=turns, tools=TOOLS)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content
    judged(calls=2, attempts=2)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("stream", [True, False])
def test_it_waits_as_long_as_the_vendor_asks(
    client: openai.OpenAI, alias: str, behave: Any, judged: Judged, status: int, stream: bool
) -> None:
    behave(type="fail", status=status, retry_after=1)
    assert streamed(client, alias, messages()) if stream else whole(client, alias)
    judged(calls=1, attempts=2, faults_injected=1)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ({"status": 400}, openai.BadRequestError),
        ({"status": 401}, openai.InternalServerError),
        ({"status": 403}, openai.InternalServerError),
        ({"status": 404, "code": "model_not_found", "message": "The model a-model does not exist."}, openai.InternalServerError),
        ({"status": 422}, openai.APIStatusError),  # to Gemini a matter of billing
    ],
    ids=lambda value: str(value["status"]) if isinstance(value, dict) else "",
)
def test_what_cannot_succeed_is_not_tried_again(
    client: openai.OpenAI, alias: str, behave: Any, judged: Judged, failure: dict[str, Any], expected: type[openai.APIStatusError]
) -> None:
    """A vendor's 401 is our 502: its caller's key is well."""
    behave(type="fail", times=10, **failure)
    with pytest.raises(expected):
        whole(client.with_options(max_retries=0), alias)
    judged(calls=1, attempts=1)


BROKEN = {
    "disconnect": "upstream_unreachable",
    "truncate": "upstream_invalid_response",
    "malformed": "upstream_invalid_response",
    "stall": "upstream_timeout",
}


# Events of a stream until its first word has gone out.
BEGUN = {"openai": 2, "anthropic": 4, "gemini": 2}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_stream_that_breaks_is_never_passed_off_as_whole(
    client: openai.OpenAI, kind: str, alias: str, behave: Any, judged: Judged, fault: str
) -> None:
    behave(type="stream_fault", kind=fault, after_chunks=BEGUN[kind], stall_seconds=3)
    assert persistently(client, alias) == (whole(client, alias), [BROKEN[fault]])
    judged(calls=2, attempts=3, faults_injected=1)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_stream_that_breaks_before_its_first_word_is_tried_again(
    client: openai.OpenAI, alias: str, behave: Any, judged: Judged, fault: str
) -> None:
    """By the gateway itself, at times so soon that llmock has not seen it go."""
    behave(type="stream_fault", kind=fault, after_chunks=0, stall_seconds=3)
    assert persistently(client, alias) == (whole(client, alias), [])
    judged(warned=True, attempts=3, faults_injected=1)


def test_an_answer_that_does_not_begin_is_not_waited_for(client: openai.OpenAI, alias: str, behave: Any, judged: Judged) -> None:
    behave(type="slow_first_token", seconds=3)
    assert persistently(client, alias) == (whole(client, alias), [])
    judged(warned=True, attempts=3)


@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_that_was_never_offered_is_called_by_its_name(
    client: openai.OpenAI, alias: str, behave: Any, judged: Judged, stream: bool
) -> None:
    behave(type="tool_fault", kind="unknown_tool")
    (call,) = tool_calls(client, alias, stream)
    assert call[0] == "llmock_unknown_tool"
    judged(calls=1, attempts=1)


def tool_calls(client: openai.OpenAI, alias: str, stream: bool) -> list[tuple[str, str]]:
    """(name, arguments) of each call, put together by hand: the arguments may be broken."""
    calls: dict[int, list[str]] = {}
    answer: Any = client.chat.completions.create(model=alias, messages=messages(), tools=TOOLS, stream=stream)
    parts = [choice.delta for chunk in answer for choice in chunk.choices] if stream else [answer.choices[0].message]
    for part in parts:
        for position, call in enumerate(part.tool_calls or []):
            said = calls.setdefault(call.index if stream else position, ["", ""])
            said[0] += call.function.name or ""
            said[1] += call.function.arguments or ""
    return [(name, arguments) for name, arguments in calls.values()]


@pytest.mark.parametrize(("kind", "stream"), [("openai", True), ("openai", False), ("anthropic", True)])
def test_broken_arguments_come_as_they_are(client: openai.OpenAI, alias: str, behave: Any, judged: Judged, stream: bool) -> None:
    """Where arguments are text on the wire, as they are for this client: it is to see that they are cut, and gets none made up."""
    behave(type="tool_fault", kind="malformed_arguments")
    ((name, arguments),) = tool_calls(client, alias, stream)
    assert (name, arguments) == ("get_weather", '{"city": "')
    judged(calls=1, attempts=1)
