"""Ten traps of the vendors' protocols, in order, each through adapters and doors. No server, no socket."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
import pytest
from google import genai

from core import errors
from core.config import ModelSpec
from core.usage import Usage
from gateway.admission import credential
from gateway.doors import anthropic_messages
from providers.adapters.anthropic_wire import FIXED_SAMPLING
from providers.adapters.registry import adapter_for
from tests.adapters.cast import KEY, SECRET, model, provider
from tests.wire.clients_cast import BODIES, DOORS, Told, asked, told_in_stream, told_whole
from tests.wire.test_faults import FACTS, SAMPLES, WAYS, Stream, adapter_of, every_way, facts_of, framed, whole, written
from tests.wire.turns_cast import adapter, events_in, given_to, next_turn

HERE = Path(__file__).parent
TABLE = json.loads((HERE / "traps" / "errors.json").read_text())
INSIDE_200 = json.loads((HERE / "traps" / "errors_inside_200.json").read_text())
DIALECTS = tuple(DOORS)
OLD, NEW = "2023-06-01", "2026-10-21"


def sent_by(kind: str, dialect: str, body: dict[str, Any], model_spec: ModelSpec | None = None, **options: Any) -> Any:
    """(the call that is made of a client's body, its body)."""
    request = DOORS[dialect].parse(msgspec.json.encode({"model": "alias", **BODIES[dialect], **body}))
    call = adapter(kind, **options).chat_call(request, model_spec or model(), SECRET)
    return call, json.loads(call.body)


# 1. Anthropic has two versions of its API and two headers for the key.


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize(
    "header", [(b"x-api-key", KEY.encode()), (b"authorization", b"Bearer " + KEY.encode())], ids=["x-api-key", "Bearer"]
)
def test_1_clients_of_either_version_with_either_header_are_let_in(version: str, header: tuple[bytes, bytes]) -> None:
    """SDKs from 2.0 on send Bearer and the newer version, older ones and Claude Code x-api-key and the older."""
    headers = [(b"anthropic-version", version.encode()), header]
    assert credential(headers, b"") == KEY.encode()
    assert anthropic_messages.speaks(headers)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_1_the_clients_own_version_and_fields_pass_to_anthropic(version: str) -> None:
    """Temperature is refused under the newer version, which is for the vendor to say to a client that asked for that version."""
    request = asked("anthropic", temperature=0.5)
    request.headers = (("anthropic-version", version), ("anthropic-beta", "a-1,b-2"))
    call = adapter("anthropic").chat_call(request, model(), SECRET)
    assert call.headers["anthropic-version"] == version
    assert call.headers["anthropic-beta"] == "a-1,b-2"
    assert json.loads(call.body)["temperature"] == 0.5
    pinned = adapter("anthropic", version=OLD).chat_call(request, model(), SECRET)
    assert pinned.headers["anthropic-version"] == OLD


@pytest.mark.parametrize(("auth", "sent"), [("", ("x-api-key", KEY)), ("bearer", ("Authorization", "Bearer " + KEY))])
def test_1_imitators_get_the_key_in_the_header_that_they_know(auth: str, sent: tuple[str, str]) -> None:
    """Kimi, DeepSeek and others may know x-api-key alone, OAuth tokens want Bearer: never both at once."""
    call = adapter("anthropic", auth=auth).chat_call(asked("anthropic"), model(), SECRET)
    assert {name: value for name, value in call.headers.items() if KEY in value} == dict([sent])


@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_1_translated_sampling_goes_out_under_the_version_that_takes_it(dialect: str) -> None:
    """The newer version answers 400 to temperature, top_p and top_k, even at their defaults: translated requests are of the older."""
    call, body = sent_by("anthropic", dialect, {"temperature": 0.5, "top_p": 0.9})
    assert call.headers["anthropic-version"] == OLD
    assert (body["temperature"], body["top_p"]) == (0.5, 0.9)


def test_1_a_model_that_takes_no_sampling_is_sent_none() -> None:
    """From Claude 4.7 on only defaults are taken: they are left out; others are refused by name, or dropped with a report."""
    fixed = ModelSpec("model-1", "alias", "claude-x", "provider-1", capabilities=(FIXED_SAMPLING,))
    _, body = sent_by("anthropic", "openai", {"temperature": 1}, fixed)
    assert "temperature" not in body
    with pytest.raises(errors.InvalidRequest) as caught:
        sent_by("anthropic", "openai", {"temperature": 0.5}, fixed)
    assert caught.value.param == "temperature"
    call, body = sent_by("anthropic", "openai", {"temperature": 0.5}, msgspec.structs.replace(fixed, drop_params=True))
    assert "temperature" not in body
    assert call.dropped == ("temperature",)


# 2. The SDKs run on httpx2.


def test_2_the_official_clients_run_on_httpx2() -> None:
    """Mocks of httpx see nothing of openai, anthropic and google-genai: what judges by them must hold httpx2's transport.

    Our judges do: `test_gemini_sdk` mocks httpx2's transport, `tests/adapters/test_openai_sdk_requests` and tests/e2e let the
    clients talk to loopback sockets, which hides nothing. DashScope's client is judged so, too, in `test_dashscope_sdk`.
    """
    assert issubclass(openai.DefaultHttpxClient, httpx2.Client)
    assert issubclass(anthropic.DefaultHttpxClient, httpx2.Client)
    assert issubclass(openai.DefaultAsyncHttpxClient, httpx2.AsyncClient)
    assert issubclass(anthropic.DefaultAsyncHttpxClient, httpx2.AsyncClient)


def test_2_no_test_mocks_the_transport_that_they_do_not_use() -> None:
    blind = re.compile(r"^\s*(?:import|from) (?:respx|pytest_httpx|httpx)\b", re.M)
    found = [str(path) for path in HERE.parent.rglob("*.py") if blind.search(path.read_text())]
    assert found == []


# 3. google-genai calls /v1, where Gemini's newest models are not.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("options", "version"), [({}, "v1beta"), ({"api_version": "v1"}, "v1"), ({"api_version": "v1beta"}, "v1beta")])
def test_3_gemini_is_asked_under_v1beta_unless_told_otherwise(stream: bool, options: dict[str, str], version: str) -> None:
    """v1 lacks previews and the aliases that end in -latest, so the SDK's own default would not find them."""
    call = adapter("gemini", **options).chat_call(asked("openai", stream), model("gemini-flash-latest"), SECRET)
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert call.url == f"https://vendor.test/{version}/models/gemini-flash-latest:{method}"
    assert adapter("gemini", **options).models_call(SECRET).url.startswith(f"https://vendor.test/{version}/models?")


def test_3_an_address_with_its_version_does_not_get_two() -> None:
    spec = provider("gemini", "https://vendor.test/v1beta/")
    url = adapter_for(spec).chat_call(asked("openai"), model("gemini-x"), SECRET).url
    assert url == "https://vendor.test/v1beta/models/gemini-x:generateContent"


def test_3_the_sdk_still_differs() -> None:
    """Where this fails the trap is gone."""
    with genai.Client(api_key=KEY) as client:
        assert client._api_client._http_options.api_version == "v1"


# 4. A stream that just ends raises nothing in any SDK.


@every_way
def test_4_a_stream_without_a_finish_is_no_answer(way: tuple[str, str, str]) -> None:
    """Whatever was said before, with an end mark or without: nothing tells the client that it is whole, nothing counts as such."""
    sample = SAMPLES[way[1]]
    unfinished = sample["events"][: sample["whole_after"]]
    if way[1] == "anthropic":
        unfinished = unfinished[:-1]  # message_delta, which has the reason, is not the end
    for events in (unfinished, [*unfinished, "[DONE]"]):
        stream = Stream(way)
        with pytest.raises(errors.ProviderNonsense):
            stream.run(events)
        assert not stream.reader.done
        assert not stream.so_far.end


@pytest.mark.parametrize("dialect", DIALECTS)
def test_4_an_end_mark_is_no_criterion(dialect: str) -> None:
    """GPUStack and Perplexity send no [DONE]: a finish_reason is what makes an answer whole, and the client gets its end mark."""
    stream = Stream(("openai_compatible", "openai", dialect))
    stream.feed(b"".join(framed(SAMPLES["openai"]["events"][:-1])))
    assert not stream.so_far.end
    told = stream.end()
    assert facts_of(told) == FACTS
    assert told.end


# 5. Errors come inside a 200.


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row['kind']}: {row['is']} {number}") for number, row in enumerate(INSIDE_200)])
def test_5_an_error_inside_a_200_is_classed_by_its_code(row: dict[str, Any], dialect: str) -> None:
    """In place of an answer, as the first event and in the middle: the status says 200 of all of them, so the code decides."""
    wire = {"openai_compatible": "openai", "azure": "openai"}.get(row["kind"], row["kind"])
    way = (row["kind"], wire, dialect)
    if way[::2] == ("azure", "responses"):
        way = ("openai_compatible", wire, dialect)  # Azure has responses of its own
    begun = framed(SAMPLES[wire]["events"])[:3]
    (event,) = framed([row["event"]])
    seen = []
    for attempt in (
        lambda: whole(way, written(row["event"])),
        lambda: Stream(way).feed(event),
        lambda: Stream(way).feed(b"".join([*begun, event])),
    ):
        with pytest.raises(errors.GatewayError) as caught:
            attempt()
        seen.append(type(caught.value).__name__)
    assert seen == [row["is"]] * 3


def test_5_broken_json_in_a_stream_is_typed_too() -> None:
    """The SDKs let a bare JSONDecodeError through."""
    for way in WAYS:
        stream = Stream(way)
        stream.feed(b"".join(framed(SAMPLES[way[1]]["events"][:2])))
        with pytest.raises(errors.ProviderNonsense, match="not JSON"):
            stream.feed(b'data: {"id": "c-1", "choi\n\n')


# 6. Usage comes in many places, and several times.


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice], **more}


COUNT, EARLIER = {"prompt_tokens": 9, "completion_tokens": 4}, {"prompt_tokens": 9, "completion_tokens": 2}
SAID, STOP = chunk({"role": "assistant", "content": "hi"}), chunk(finish="stop")
LAST = {**chunk(), "choices": [], "usage": COUNT}
PLACES = {
    "a last chunk without choices": [SAID, STOP, LAST],
    "the finish chunk": [SAID, {**STOP, "usage": COUNT}],
    "the finish chunk, and x_groq": [SAID, {**STOP, "x_groq": {"id": "r", "usage": COUNT}}],
    "both, with the same count": [SAID, {**STOP, "usage": COUNT, "x_groq": {"usage": COUNT}}],
    "a chunk after the finish, with a choice": [SAID, STOP, chunk({"content": ""}, usage=COUNT)],
    "the choice": [SAID, {**STOP, "choices": [{**STOP["choices"][0], "usage": COUNT}]}],
    "every chunk, a running total": [{**SAID, "usage": EARLIER}, {**STOP, "usage": COUNT}],
    "twice": [SAID, {**STOP, "usage": COUNT}, LAST],
    "once, and null after it": [{**SAID, "usage": COUNT}, {**STOP, "usage": None}],
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("place", PLACES)
def test_6_usage_is_found_wherever_it_is(place: str, dialect: str) -> None:
    """The last that is not null wins: totals that come twice are not added up."""
    stream = Stream(("openai_compatible", "openai", dialect))
    stream.feed(b"".join(framed([*PLACES[place], "[DONE]"])))
    told = stream.end()
    assert stream.reader.usage == Usage(input=9, output=4)
    assert told.text == "hi"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_6_anthropics_usage_is_split_in_two(dialect: str) -> None:
    """The input comes with the beginning, the output with the end, which may repeat the input and does repeat the output."""
    events = SAMPLES["anthropic"]["events"]
    for more in ({}, {"input_tokens": 7, "cache_read_input_tokens": 2}, {"input_tokens": None}):
        changed = [*events[:-2], {**events[-2], "usage": {**events[-2]["usage"], **more}}, events[-1]]
        stream = Stream(("anthropic", "anthropic", dialect))
        stream.feed(b"".join(framed(changed)))
        assert stream.end().end
        assert stream.reader.usage == Usage(input=7, cached_input=2, output=6)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("wire", "usage"), [("gemini", Usage(7, 2, output=5, reasoning=1)), ("dashscope", Usage(7, 2, output=5, reasoning=1))]
)
def test_6_running_totals_are_not_added_up(wire: str, usage: Usage, dialect: str) -> None:
    """Gemini and DashScope count in every event what there was so far."""
    key = {"gemini": "usageMetadata", "dashscope": "usage"}[wire]
    events = SAMPLES[wire]["events"]
    whole_count = events[-1][key]
    for counts in ([whole_count] * len(events), [event[key] for event in events], [whole_count, *[None] * (len(events) - 1)]):
        stream = Stream((wire, wire, dialect))
        stream.feed(b"".join(framed([{**event, key: count} for event, count in zip(events, counts, strict=True)])))
        assert stream.end().end
        assert stream.reader.usage == usage


def test_6_usage_is_asked_for_and_withheld_from_who_did_not_ask() -> None:
    """Compatible servers count a stream only when asked; a client that did not ask would trip over the extra chunk."""
    request = asked("openai", stream=True, stream_options=None)
    call = adapter("openai_compatible").chat_call(request, model(), SECRET)
    assert json.loads(call.body)["stream_options"] == {"include_usage": True}
    reader = adapter("openai_compatible").stream_reader(request)
    given = reader.feed(b"".join(framed([SAID, STOP, LAST, "[DONE]"])))
    assert reader.usage == Usage(input=9, output=4)
    assert b"usage" not in given
    assert b'"choices":[]' not in given


# 7. Tool calls come in pieces of every kind.


def calls_in(*deltas: list[dict[str, Any]]) -> list[Any]:
    return [
        chunk({"role": "assistant", "content": None}),
        *(chunk({"tool_calls": calls}) for calls in deltas),
        chunk(finish="tool_calls"),
        "[DONE]",
    ]


def piece(
    index: int | None = 0, call_id: str | None = None, name: str | None = None, arguments: str | None = "", **more: Any
) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    call = {key: value for key, value in (("index", index), ("id", call_id)) if value is not None}
    return {**call, **more, "function": function}


ONE = [["call_1", "f", {"a": 1}]]
TWO = [*ONE, ["call_2", "g", {}]]
IN_PIECES = {
    "blank ids later": (calls_in([piece(0, "call_1", "f")], [piece(0, "", "", '{"a":')], [piece(0, "", None, "1}")]), ONE),
    "blank ids and types later": (calls_in([piece(0, "call_1", "f", type="function")], [piece(0, "", None, '{"a":1}', type="")]), ONE),
    "null ids later": (calls_in([piece(0, "call_1", "f")], [{**piece(0, None, None, '{"a":1}'), "id": None}]), ONE),
    "a whole call in one piece": (calls_in([piece(0, "call_1", "f", '{"a":1}')]), ONE),
    "a whole call without a number": (calls_in([piece(None, "call_1", "f", '{"a":1}')]), ONE),
    "whole calls in one delta": (calls_in([piece(0, "call_1", "f", '{"a":1}'), piece(1, "call_2", "g", "{}")]), TWO),
    "arguments as {}": (calls_in([piece(0, "call_1", "f", '{"a":1}')], [piece(1, "call_2", "g", "{}")]), TWO),
    "arguments as nothing": (calls_in([piece(0, "call_1", "f", '{"a":1}')], [piece(1, "call_2", "g", "")]), TWO),
    "arguments absent": (calls_in([piece(0, "call_1", "f", '{"a":1}')], [piece(1, "call_2", "g", None)]), TWO),
}  # fmt: skip


def calls_of(told: Told) -> list[list[Any]]:
    return [[call_id, name, json.loads(arguments or "{}")] for call_id, name, arguments in told.calls]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", IN_PIECES)
def test_7_tool_calls_keep_their_ids_names_and_arguments(name: str, dialect: str) -> None:
    """DashScope and Ark repeat ids as "", Ollama, Groq, Mistral and Zhipu send a call whole, arguments may be nothing at all."""
    events, calls = IN_PIECES[name]
    told = Stream(("openai_compatible", "openai", dialect))
    told.feed(b"".join(framed(events)))
    assert calls_of(told.end()) == calls


@pytest.mark.parametrize("dialect", DIALECTS)
def test_7_dashscopes_own_wire_repeats_blank_ids_too(dialect: str) -> None:
    stream = Stream(("dashscope", "dashscope", dialect))
    stream.feed(b"".join(framed(SAMPLES["dashscope"]["events"])))
    assert calls_of(stream.end()) == ONE


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("arguments", ["", "{}", None], ids=["nothing", "{}", "absent"])
def test_7_a_whole_call_without_arguments_is_one_with_none(arguments: str | None, dialect: str) -> None:
    """And the number that DashScope puts into whole calls does no harm."""
    message = {"role": "assistant", "content": None, "tool_calls": [{**piece(0, "call_1", "f", arguments), "type": "function"}]}
    body = {"id": "c", "created": 7, "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    told = whole(("openai_compatible", "openai", dialect), written(body))
    assert calls_of(told) == [["call_1", "f", {}]]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_7_moonshots_ids_come_back_as_they_were(dialect: str, stream: bool) -> None:
    """`get_weather:0` is no id for Anthropic's clients, and Moonshot reads meaning from it on the next turn."""
    events = calls_in([piece(0, "get_weather:0", "get_weather", '{"a":1}')])
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**piece(0, "get_weather:0", "get_weather", '{"a":1}'), "type": "function"}],
    }
    body = {"id": "c", "created": 7, "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    given = given_to(("moonshot", dialect), body, events, stream)
    ((call_id, _, _),) = (told_in_stream if stream else told_whole)(dialect, given).calls
    if dialect == "anthropic":
        assert re.fullmatch("[a-zA-Z0-9_-]+", call_id)
    _, sent = sent_by("moonshot", dialect, next_turn(dialect, given, stream))
    assert sent["messages"][1]["tool_calls"][0]["id"] == sent["messages"][2]["tool_call_id"] == "get_weather:0"


# 8. What a model thought must be carried back, whoever the client is.


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
every_client = pytest.mark.parametrize("dialect", DIALECTS)


@both_ways
@every_client
@pytest.mark.parametrize("kind", ["deepseek", "moonshot"])
def test_8_deepseek_and_kimi_get_their_thought_back(kind: str, dialect: str, stream: bool) -> None:
    """They answer 400 to a turn with tool calls that comes back without its `reasoning_content`."""
    given = given_to((kind, dialect), SAMPLES["openai"]["whole"], SAMPLES["openai"]["events"], stream)
    call, sent = sent_by(kind, dialect, next_turn(dialect, given, stream))
    _, said, result = sent["messages"]
    assert (said["reasoning_content"], said["content"]) == ("hm", "Héllo")
    assert said["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert said["tool_calls"][0]["id"] == result["tool_call_id"] == "call_1"
    assert "reasoning_content" not in call.dropped


@both_ways
@every_client
def test_8_gemini_gets_the_seal_of_its_call_back(dialect: str, stream: bool) -> None:
    """Gemini 3 refuses a call of its own without the `thoughtSignature` that it came with."""
    given = given_to(("gemini", dialect), SAMPLES["gemini"]["whole"], SAMPLES["gemini"]["events"], stream)
    _, sent = sent_by("gemini", dialect, next_turn(dialect, given, stream), model("gemini-3-pro"))
    said = sent["contents"][1]["parts"]
    (call,) = [part for part in said if "functionCall" in part]
    assert call["thoughtSignature"] == "c2ln"
    assert call["functionCall"]["args"] == {"a": 1}
    assert {"text": "Héllo"} in said


@both_ways
@every_client
def test_8_anthropic_gets_its_sealed_thought_back(dialect: str, stream: bool) -> None:
    """Anthropic refuses a thinking turn with a call that does not begin with its thought, sealed as it was."""
    given = given_to(("anthropic", dialect), SAMPLES["anthropic"]["whole"], SAMPLES["anthropic"]["events"], stream)
    _, sent = sent_by("anthropic", dialect, next_turn(dialect, given, stream))
    said = sent["messages"][1]["content"]
    assert said[0] == {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    assert [block["type"] for block in said] == ["thinking", "text", "tool_use"]
    assert said[2]["id"] == sent["messages"][2]["content"][0]["tool_use_id"] == "toolu_1"


@both_ways
@every_client
def test_8_a_thought_that_is_hidden_comes_back_hidden(dialect: str, stream: bool) -> None:
    """Anthropic's redacted thinking is nothing but a seal."""
    hidden = {"type": "redacted_thinking", "data": "aGlk"}
    body, events = SAMPLES["anthropic"]["whole"], SAMPLES["anthropic"]["events"]
    body = {**body, "content": [hidden, *body["content"][1:]]}
    events = [events[0], {**events[1], "content_block": hidden}, *events[4:]]
    given = given_to(("anthropic", dialect), body, events, stream)
    _, sent = sent_by("anthropic", dialect, next_turn(dialect, given, stream))
    assert sent["messages"][1]["content"][0] == hidden


# 9. One status means many things.


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row['kind']} {row['status']}: {row['is']} {at}") for at, row in enumerate(TABLE)])
def test_9_the_code_tells_what_the_status_does_not(row: dict[str, Any]) -> None:
    """429 may be an empty account, 400 a wrong key or an unpaid bill, 401 an unknown model: each has its own class."""
    found = adapter(row["kind"]).read_error(row["status"], row.get("headers", {}), written(row["body"]))
    assert type(found).__name__ == row["is"]
    assert found.retry_after_s == row.get("retry_after_s")
    assert "<html" not in found.message


def test_9_the_table_holds_every_status_that_is_ambiguous() -> None:
    """Each of these means at least two things, and the table has both."""
    meanings: dict[int, set[str]] = {}
    for row in TABLE:
        meanings.setdefault(row["status"], set()).add(row["is"])
    assert {"ProviderLimited", "ProviderRejectedOurKey", "ProviderRefused"} <= meanings[429]
    assert {"ProviderRefused", "ProviderRejectedOurKey", "ContextTooLong", "ContentBlocked"} <= meanings[400]
    assert {"ProviderRejectedOurKey", "ProviderLacksModel"} <= meanings[401]
    assert {"ProviderLacksModel", "ProviderNonsense"} <= meanings[404]


@pytest.mark.parametrize("name", ["ProviderLimited", "ProviderRejectedOurKey", "ProviderLacksModel", "ProviderFault"])
def test_9_what_may_do_better_elsewhere_is_tried_elsewhere(name: str) -> None:
    assert getattr(errors, name).retryable


# 10. Bodies are unusual.

STOPPED = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
ANSWER = {"id": "c", "object": "chat.completion", "created": 7, "model": "m", "choices": [STOPPED], "usage": COUNT}


@every_way
@pytest.mark.parametrize("pad", [b"\n\n\n   \n", b"     \r\n"], ids=["blank lines", "blanks"])
def test_10_padding_around_json_is_no_fault(way: tuple[str, str, str], pad: bytes) -> None:
    """OpenRouter and DeepSeek keep slow answers alive with blank lines, Anthropic pads with blanks."""
    assert facts_of(whole(way, pad + written(SAMPLES[way[1]]["whole"]) + pad)) == FACTS


def in_lines(events: list[Any], form: str) -> bytes:
    """The events of a stream in one of the forms that the standard allows and vendors use."""
    data = [
        event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, indent=1 if form == "many lines" else None)
        for event in events
    ]
    if form == "native":
        return "".join(f"id:{number}\nevent:result\n:HTTP_STATUS/200\ndata:{text}\n\n" for number, text in enumerate(data, 1)).encode()
    if form == "comments":
        return (": OPENROUTER PROCESSING\n\n: keep-alive\n\n" + "".join(f":\ndata: {text}\n: keep-alive\n\n\n" for text in data)).encode()
    if form == "many lines":
        return "".join("".join(f"data: {line}\n" for line in text.split("\n")) + "\n" for text in data).encode()
    body = "".join(f"data: {text}\n\n" for text in data).encode()
    return {
        "CRLF": body.replace(b"\n", b"\r\n"),
        "CR": body.replace(b"\n", b"\r"),
        "BOM": b"\xef\xbb\xbf" + body,
        "retry": b"retry: 5\n\n" + body,
    }[form]


@every_way
@pytest.mark.parametrize("form", ["CRLF", "CR", "BOM", "comments", "native", "many lines", "retry"])
def test_10_a_stream_may_be_written_in_many_ways(way: tuple[str, str, str], form: str) -> None:
    """Gemini ends lines with CRLF, DashScope leaves out blanks and adds a status, DeepSeek and OpenRouter send comments."""
    body = in_lines(SAMPLES[way[1]]["events"], form)
    for cut in (len(body), 1, 7):
        stream = Stream(way)
        for start in range(0, len(body), cut):
            stream.feed(body[start : start + cut])
        assert facts_of(stream.end()) == FACTS


STRANGE = "a\u2028b\u2029c\u0085d\x1ce"


@every_way
def test_10_line_separators_of_unicode_stand_raw_inside_json(way: tuple[str, str, str]) -> None:
    """`str.splitlines` would cut the event in two at each of them."""
    sample = json.loads(json.dumps(SAMPLES[way[1]], ensure_ascii=False).replace("llo", json.dumps(STRANGE, ensure_ascii=False)[1:-1]))
    assert "\u2028" in written(sample["events"]).decode()
    stream = Stream(way)
    for byte in b"".join(framed(sample["events"])):
        stream.feed(bytes([byte]))
    assert stream.end().text == "Hé" + STRANGE
    assert whole(way, written(sample["whole"])).text == "Hé" + STRANGE


@every_client
def test_10_the_finish_reason_may_be_absent(dialect: str) -> None:
    """Not null but absent until the end, in chunks of DashScope, Zhipu, xAI, Perplexity and Azure; OpenAI's clients need the null."""
    events = [{**SAID, "choices": [{"index": 0, "delta": {"content": text}}]} for text in ("h", "i")]
    stream = Stream(("openai_compatible", "openai", dialect))
    stream.feed(b"".join(framed(events)))
    if dialect == "openai":
        assert [event["choices"][0]["finish_reason"] for event in events_in(stream.given)] == [None, None]
    stream.feed(b"".join(framed([STOP, "[DONE]"])))
    assert (told := stream.end()).text == "hi"
    assert told.end


@every_client
def test_10_azures_first_chunk_is_nearly_empty(dialect: str) -> None:
    """Its verdict on the prompt comes first: no choices, no id, no kind, no model."""
    first = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
    }
    late = {
        **chunk(),
        "choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 1}, "content_filter_results": {}}],
    }
    way = ("openai_compatible" if dialect == "responses" else "azure", "openai", dialect)
    stream = Stream(way)
    stream.feed(b"".join(framed([first, SAID, late, STOP, "[DONE]"])))
    assert stream.end().text == "hi"


@every_client
def test_10_azures_filtered_choice_has_no_message(dialect: str) -> None:
    """Nothing but the reason: the client learns that it was filtered, from a message that is there."""
    choice = {"index": 0, "finish_reason": "content_filter", "content_filter_results": {"hate": {"filtered": True, "severity": "high"}}}
    way = ("openai_compatible" if dialect == "responses" else "azure", "openai", dialect)
    told = whole(way, written({**ANSWER, "choices": [choice]}))
    assert told.says_nothing
    assert told.finish == {"openai": "content_filter", "anthropic": "refusal", "responses": "incomplete"}[dialect]


@every_client
@both_ways
def test_10_mistrals_content_is_a_list(dialect: str, stream: bool) -> None:
    """Thought and text are parts of one list; clients know a text and a thought."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]
    body = {**ANSWER, "choices": [{**STOPPED, "message": {"role": "assistant", "content": parts}}]}
    events = [chunk({"content": parts[:1]}), chunk({"content": parts[1:]}), STOP, "[DONE]"]
    told = (told_in_stream if stream else told_whole)(dialect, given_to(("mistral", dialect), body, events, stream))
    assert (told.thought, told.text) == ("hm", "hi")


@every_client
@both_ways
def test_10_keys_that_nobody_knows_do_no_harm(dialect: str, stream: bool) -> None:
    """They stand everywhere, and new ones come every month."""
    more = {
        "obfuscation": "x",
        "latency_checkpoint": {"a": 1},
        "timings": {"prompt_n": 1},
        "citations": ["https://a.test"],
        "provider": "p",
    }
    choice = {**STOPPED, "native_finish_reason": "STOP", "logprobs": None, "matched_stop": None}
    body = {**ANSWER, **more, "choices": [choice]}
    events = [{**SAID, **more}, {**STOP, **more}, {**LAST, **more}, "[DONE]"]
    told = (told_in_stream if stream else told_whole)(dialect, given_to(("openai_compatible", dialect), body, events, stream))
    assert told.text == "hi"


def test_10_an_empty_text_of_a_page_is_not_shown() -> None:
    """A proxy's page says nothing to a caller, and may say too much."""
    found = adapter("openai_compatible").read_error(502, {}, b"<html><h1>502 Bad Gateway</h1><hr>cloudflare</html>")
    assert type(found) is errors.ProviderFault
    assert "cloudflare" not in found.message
    assert adapter_of(WAYS[0]).read_error(422, {}, b"missing field `role`").message.endswith("missing field `role`")
