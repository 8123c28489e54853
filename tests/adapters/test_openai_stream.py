"""What the stream reader passes on, withholds, repairs, counts and refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import errors
from core.chat import Usage
from providers.adapters.openai_stream import OpenAIStreamReader, read_usage
from tests.adapters.cast import KEY, Heard

BASE = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return event({**BASE, "choices": choices, **more})


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


HELLO, END, DONE = chunk({"content": "Hello"}), chunk({}, "stop"), b"data: [DONE]\n\n"


def reader(wants_usage: bool = False) -> OpenAIStreamReader:
    return OpenAIStreamReader(wants_usage, (KEY,))


def test_nothing_is_copied_where_nothing_changes() -> None:
    one, three = reader(), reader()
    assert one.feed(HELLO) is HELLO
    several = HELLO + chunk({"content": " 你好"}) + END
    assert three.feed(several) is several


def test_the_facts_of_a_stream() -> None:
    it = reader()
    it.feed(chunk({"role": "assistant", "content": ""}))
    assert not it.content_started
    it.feed(HELLO)
    assert it.content_started
    it.feed(chunk({"content": "你"}) + chunk({"reasoning_content": "hm"}))
    it.feed(chunk({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a":1}'}}]}))
    it.feed(chunk({}, "tool_calls") + chunk(usage=USAGE) + DONE)
    it.finish()
    assert it.output_bytes == 5 + 3 + 2 + 1 + 7
    assert (it.finish_reason, it.done, it.usage) == ("tool_calls", True, Usage(input=10, output=5))


def test_reasoning_under_two_names_is_counted_once() -> None:
    it = reader()
    it.feed(chunk({"reasoning": "abc", "reasoning_content": "abc"}))
    assert it.output_bytes == 3


@pytest.mark.parametrize("started", [{"reasoning": "x"}, {"refusal": "no"}, {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}])
def test_content_is_more_than_text(started: dict[str, Any]) -> None:
    it = reader()
    it.feed(chunk(started))
    assert it.content_started


def test_usage_goes_only_to_a_client_that_asked() -> None:
    stream = HELLO + END + chunk(usage=USAGE) + DONE
    assert reader(wants_usage=False).feed(stream) == HELLO + END
    assert reader(wants_usage=True).feed(stream) == HELLO + END + chunk(usage=USAGE)
    alone = reader()
    assert alone.feed(chunk(usage=USAGE)) == b""
    assert alone.usage == Usage(input=10, output=5)


def test_a_usage_event_without_choices_is_given_them() -> None:
    assert Heard(reader(wants_usage=True).feed(event({**BASE, "usage": USAGE}))).chunks[0]["choices"] == []
    assert reader().feed(event({**BASE, "choices": None, "usage": USAGE})) == b""


def test_an_empty_first_chunk_without_usage_passes() -> None:
    azure = event({"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []})
    it = reader()
    assert it.feed(azure) is azure
    assert not it.content_started


@pytest.mark.parametrize(
    "carrier",
    [
        chunk({}, "stop", usage=USAGE),
        event({**BASE, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}),
        chunk({}, "stop", x_groq={"id": "r", "usage": USAGE}),
    ],
)
def test_usage_is_found_wherever_it_is_put_and_passes_with_its_chunk(carrier: bytes) -> None:
    it = reader()
    assert it.feed(carrier) is carrier
    assert it.usage == Usage(input=10, output=5)


def test_the_last_usage_counts_and_none_is_added_up() -> None:
    it = reader()
    for output in (1, 2, 3):
        it.feed(chunk({"content": "x"}, usage={"prompt_tokens": 10, "completion_tokens": output, "total_tokens": 10 + output}))
    it.feed(chunk({}, "stop", usage=None))
    assert it.usage == Usage(input=10, output=3)


def test_a_missing_finish_reason_becomes_null_in_that_chunk_alone() -> None:
    bare = event({**BASE, "choices": [{"index": 0, "delta": {"content": "a"}}]})
    out = reader().feed(HELLO + bare)
    assert out.startswith(HELLO)
    assert Heard(out).chunks[1] == {**BASE, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}


def test_a_missing_delta_becomes_an_empty_one() -> None:
    out = reader().feed(event({**BASE, "choices": [{"finish_reason": "stop"}]}))
    assert Heard(out).chunks[0]["choices"] == [{"finish_reason": "stop", "index": 0, "delta": {}}]


def call(**fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, **fields}]}


FIRST = chunk(call(id="call_1", type="function", function={"name": "f", "arguments": ""}))


def test_blanks_of_a_later_piece_are_left_out() -> None:
    it = reader()
    assert it.feed(FIRST) is FIRST
    out = it.feed(chunk(call(id="", type="", function={"name": "", "arguments": "{}"})))
    assert Heard(out).chunks[0]["choices"][0]["delta"] == call(function={"arguments": "{}"})


def test_a_later_piece_without_blanks_passes_as_it_is() -> None:
    it, piece = reader(), chunk(call(function={"arguments": "{}"}))
    it.feed(FIRST)
    assert it.feed(piece) is piece


@pytest.mark.parametrize("blank", [{"id": ""}, {"id": None}, {}])
def test_a_call_that_begins_without_an_id_is_given_one(blank: dict[str, Any]) -> None:
    begun = chunk(call(**blank, function={"name": "f", "arguments": ""}))
    it = reader()
    heard = Heard(it.feed(begun) + it.feed(chunk(call(**blank, function={"arguments": "{}"}))))
    ids = [piece["choices"][0]["delta"]["tool_calls"][0].get("id") for piece in heard.chunks]
    assert str(ids[0]).startswith("call_")
    assert len(str(ids[0])) == 29
    assert not ids[1]
    assert heard.chunks[0]["choices"][0]["delta"]["tool_calls"][0]["type"] == "function"
    assert Heard(reader().feed(begun)).tools == {(0, 0): {"id": ids[0], "name": "f", "arguments": ""}}


def test_two_calls_without_an_id_are_told_apart() -> None:
    both = {"tool_calls": [{"index": number, "function": {"name": "f", "arguments": "{}"}} for number in (0, 1)]}
    tools = Heard(reader().feed(chunk(both))).tools
    assert tools[(0, 0)]["id"] != tools[(0, 1)]["id"]


def test_calls_without_a_number_are_numbered() -> None:
    it = reader()
    pieces = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"index": None, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    heard = Heard(b"".join(it.feed(chunk({"tool_calls": [piece]})) for piece in pieces))
    assert heard.tools == {
        (0, 0): {"id": "a", "name": "f", "arguments": "{}"},
        (0, 1): {"id": "b", "name": "g", "arguments": "{}"},
    }
    assert [piece["choices"][0]["delta"]["tool_calls"][0]["index"] for piece in heard.chunks] == [0, 0, 1]


def test_a_list_of_parts_becomes_text_and_thought() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    out = reader().feed(chunk({"content": [thought, {"type": "text", "text": "yes"}]}))
    assert Heard(out).chunks[0]["choices"][0]["delta"] == {"content": "yes", "reasoning_content": "hm"}
    other = {"type": "reference", "reference_ids": [1]}
    out = reader().feed(chunk({"content": [{"type": "text", "text": "yes"}, other]}))
    assert Heard(out).chunks[0]["choices"][0]["delta"] == {"content": "yes", "content_parts": [other]}


@pytest.mark.parametrize(("theirs", "openais"), [("normal", "stop"), ("sensitive", "content_filter"), ("model_length", "length")])
def test_a_vendors_word_for_the_end_is_openais_to_the_client(theirs: str, openais: str) -> None:
    it = reader()
    assert Heard(it.feed(HELLO + chunk({}, theirs))).finish == {0: openais}
    it.finish()
    assert it.finish_reason == openais


def test_keep_alives_are_not_passed_on() -> None:
    it = reader()
    assert it.feed(b": keep-alive\n\n") == b""
    assert it.feed(b": OPENROUTER PROCESSING\n\n" + HELLO) == HELLO


def test_nothing_after_the_end_mark_counts() -> None:
    it = reader()
    assert it.feed(HELLO + END + DONE + HELLO) == HELLO + END
    assert it.feed(HELLO) == b""
    assert it.output_bytes == 5


def test_other_line_endings_are_made_plain() -> None:
    it = reader()
    assert it.feed((HELLO + END).replace(b"\n", b"\r\n")) == HELLO + END


def test_a_stream_needs_an_end_for_every_choice() -> None:
    two = event({**BASE, "choices": [{"index": number, "delta": {"content": "x"}, "finish_reason": None} for number in (0, 1)]})
    it = reader()
    it.feed(two + END)
    with pytest.raises(errors.ProviderNonsense):
        it.finish()
    it.feed(event({**BASE, "choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}))
    it.finish()
    assert it.finish_reason == "stop"


@pytest.mark.parametrize("stream", [b"", DONE, HELLO, HELLO + DONE, chunk(usage=USAGE) + DONE, HELLO + END[:-1]])
def test_a_stream_without_an_end_is_no_answer(stream: bytes) -> None:
    it = reader()
    with pytest.raises(errors.ProviderNonsense):
        read_to_its_end(it, stream)
    assert not it.done


def read_to_its_end(it: OpenAIStreamReader, stream: bytes) -> None:
    it.feed(stream)
    it.finish()


def test_an_end_mark_that_comes_too_early_does_not_pass_for_an_end() -> None:
    it = reader()
    with pytest.raises(errors.ProviderNonsense, match="in the middle"):
        it.feed(HELLO + DONE)
    assert it.salvaged == HELLO


def test_only_the_end_mark_may_be_missing() -> None:
    it = reader()
    it.feed(HELLO + END)
    it.finish()
    assert not it.done


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"data: {oops\n\n", errors.ProviderNonsense),
        (b"data: \xff\n\n", errors.ProviderNonsense),
        (HELLO.replace(b"Hello", b"\xff"), errors.ProviderNonsense),
        (HELLO.replace(b'"id": "c"', b'"id": "\xff"'), errors.ProviderNonsense),
        (b"data: " + b"[" * 5000 + b"\n\n", errors.ProviderNonsense),
        (b"data: []\n\n", errors.ProviderNonsense),
        (b"data: 7\n\n", errors.ProviderNonsense),
        (event({"result": "ok"}), errors.ProviderNonsense),
        (event({**BASE, "choices": "none"}), errors.ProviderNonsense),
        (chunk({"content": 7}), errors.ProviderNonsense),
        (chunk({"content": "x"}, finish=7), errors.ProviderNonsense),  # type: ignore[arg-type]
        (event({"error": {"message": "m", "type": "server_error", "code": None}}), errors.ProviderFault),
        (event({"error": {"message": "m", "code": 429}}), errors.ProviderLimited),
        (event({"error": {"message": "m", "code": "insufficient_quota"}}), errors.ProviderRejectedOurKey),
        (event({"error": {"message": "m", "type": "overloaded_error"}}), errors.ProviderFault),
        (event({"error": {"message": "m", "code": "context_length_exceeded"}}), errors.ContextTooLong),
        (event({"error": {"message": "m", "code": "content_filter"}}), errors.ContentBlocked),
        (event({"error": "out of memory"}), errors.ProviderFault),
        (event({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}), errors.ProviderRefused),
        (chunk({"content": ""}, error={"message": "m", "code": 502}), errors.ProviderFault),
        (chunk({}, "insufficient_system_resource"), errors.ProviderFault),
        (chunk({}, "error"), errors.ProviderFault),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_bad_event_is_a_typed_error_and_what_came_before_is_kept(bad: bytes, error: type, alone: bool) -> None:
    it = reader()
    with pytest.raises(errors.GatewayError) as caught:
        it.feed(bad if alone else HELLO + bad + END)
    assert type(caught.value) is error
    assert it.salvaged == (b"" if alone else HELLO)
    assert not it.done


def test_a_line_over_the_limit_keeps_what_came_before() -> None:
    it = reader()
    with pytest.raises(errors.ProviderNonsense, match="longer than 1048576 bytes"):
        it.feed(HELLO + b"data: " + b"x" * 2**20)
    assert it.salvaged == HELLO


def test_an_error_of_the_vendor_is_told_without_our_key() -> None:
    with pytest.raises(errors.ProviderRefused) as caught:
        reader().feed(event({"error": {"message": f"key {KEY} is odd", "type": "invalid_request_error"}}))
    assert caught.value.message == "The provider refused the request: key **** is odd"
    assert KEY not in str(caught.value.detail)


@pytest.mark.parametrize(
    ("content", "usage"),
    [
        (USAGE, Usage(input=10, output=5)),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}},
            Usage(input=4, cached_input=4, cache_write=2, output=5),
        ),
        ({**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}, Usage(input=10, output=5)),
        ({**USAGE, "prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4}, Usage(input=4, cached_input=6, output=5)),
        ({**USAGE, "cached_tokens": 3}, Usage(input=7, cached_input=3, output=5)),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}, Usage(input=10, output=3, reasoning=2)),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(input=10, output=5, reasoning=7),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22}, Usage(input=10, output=5, reasoning=7)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 10**10}, Usage(input=10, output=5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 12}, Usage(input=10, output=5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": "many"}, Usage(input=10, output=5)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 11}}, Usage(input=10, output=5)),
        (
            {**USAGE, "prompt_tokens_details": {"audio_tokens": 3, "image_tokens": 2}},
            Usage(input=5, input_audio=3, input_image=2, output=5),
        ),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 6, "audio_tokens": 1, "image_tokens": 7}},
            Usage(cached_input=6, input_audio=1, input_image=3, output=5),
        ),
        (
            {**USAGE, "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 2, "image_tokens": 1}},
            Usage(input=10, output=1, reasoning=1, output_audio=2, output_image=1),
        ),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 9}}, Usage(input=10, reasoning=5)),
        ({**USAGE, "prompt_tokens": -1}, None),
        ({**USAGE, "completion_tokens": 1.5}, None),
        ({**USAGE, "completion_tokens": "5"}, None),
        ({**USAGE, "completion_tokens": True}, None),
        ({**USAGE, "completion_tokens": 10**9 + 1}, None),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": -4}}, None),
        ({"prompt_tokens": 10}, None),
        ({}, None),
        ("many", None),
        (None, None),
    ],
)
def test_usage_in_disjoint_buckets(content: Any, usage: Usage | None) -> None:
    assert read_usage(content) == usage


def test_nonsense_usage_does_not_break_a_stream() -> None:
    it = reader()
    assert it.feed(HELLO + chunk({}, "stop", usage="many") + DONE) == HELLO + chunk({}, "stop", usage="many")
    it.finish()
    assert it.usage is None
