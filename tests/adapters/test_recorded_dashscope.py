"""What DashScope's own wire answered, read through the adapter and told to an OpenAI client, against a simple reader of its JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import errors
from core.config import KeySpec, ProviderSpec
from core.outbound import Guard, GuardedTransport
from core.usage import Usage
from providers.adapters.dashscope import DashScope
from tests import replay
from tests.adapters.cast import SECRET, Heard, model, request

ERRORS = {
    "dashscope-error-400-12604f": errors.ProviderLacksModel,
    "dashscope-native-error-400-inspection-r29953": errors.ContentBlocked,
    "dashscope-native-error-429-alloc-r93fcf": errors.ProviderLimited,
    "dashscope-native-error-429-r93d4e": errors.ProviderLimited,
}


def found(*, ok: bool = True, stream: bool | None = None, ending: str = "generation") -> list[Any]:
    """pytest parameters: native exchanges that went well, or did not. Those of the compatible mode are judged with its kind."""
    native = [exchange for exchange in replay.exchanges("dashscope") if exchange["request"]["path"].startswith("/api/v1/")]
    fitting = [
        exchange
        for exchange in native
        if (exchange["id"] not in ERRORS) is ok
        and (not ok or exchange["request"]["path"].endswith(ending))
        and (stream is None or ("lines" in exchange["response"]) is stream)
    ]
    return [pytest.param(exchange, id=exchange["id"]) for exchange in fitting] or [
        pytest.param(None, marks=pytest.mark.skip(replay.ABSENT))
    ]


def adapter(base_url: str = "https://dashscope.aliyuncs.com") -> DashScope:
    return DashScope(ProviderSpec("provider-1", "main", "dashscope", base_url, keys=(KeySpec("key-1", "wxyz", SECRET),)))


class Said:
    """DashScope's own JSON as a simple client reads it. `repeats`: each event holds all that was said so far."""

    def __init__(self, exchange: dict[str, Any]) -> None:
        body = replay.body_of(exchange["response"]).decode()
        events = [json.loads(line[5:]) for line in body.split("\n") if line.startswith("data:")] or [json.loads(body)]
        repeats = "lines" in exchange["response"] and not exchange["request"]["body"]["parameters"].get("incremental_output")
        self.text = ""
        self.calls: list[dict[str, str]] = []
        self.counts = events[-1]["usage"]
        for event in events:
            choice = (event["output"].get("choices") or [{"message": {"content": event["output"].get("text")}, **event["output"]}])[0]
            content = choice["message"]["content"]
            text = content if isinstance(content, str) else "".join(piece["text"] for piece in content)
            self.text = text if repeats else self.text + text
            self.finish = choice["finish_reason"]
            for call in choice["message"].get("tool_calls") or []:
                if call["id"]:
                    self.calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
                self.calls[-1]["arguments"] += call["function"].get("arguments") or ""

    @property
    def usage(self) -> Usage:
        seen = self.counts.get("image_tokens", 0)
        return Usage(input=self.counts["input_tokens"] - seen, input_image=seen, output=self.counts["output_tokens"])


def test_the_recordings_are_here() -> None:
    replay.require()
    assert len(found()) == 8
    assert len(found(stream=True)) == 4
    assert len(found(ok=False)) == len(ERRORS)


@pytest.mark.parametrize("exchange", found(stream=True))
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_stream_reads_as_it_was(exchange: dict[str, Any], cut: int) -> None:
    body, said = replay.body_of(exchange["response"]), Said(exchange)
    reader = adapter().stream_reader(request({"model": "alias", "stream": True}, wants_usage=True))
    told = b"".join(reader.feed(body[start : start + (cut or len(body))]) for start in range(0, len(body), cut or len(body)))
    assert not reader.done
    heard = Heard(told + reader.finish() + reader.tail)
    assert (heard.text, heard.finish) == (said.text, {0: said.finish})
    assert [heard.tools[key] for key in sorted(heard.tools)] == said.calls
    assert all(json.loads(call["arguments"]) for call in said.calls)
    assert (reader.done, heard.done, reader.finish_reason) == (True, True, said.finish)
    assert reader.usage == said.usage
    assert heard.usage["total_tokens"] == said.counts["total_tokens"]
    assert reader.output_bytes == len(said.text.encode()) + sum(len(call["name"] + call["arguments"]) for call in said.calls)


@pytest.mark.parametrize("exchange", found(stream=True))
def test_a_stream_that_breaks_off_is_no_answer(exchange: dict[str, Any]) -> None:
    body = replay.body_of(exchange["response"])
    reader = adapter().stream_reader(request({"model": "alias", "stream": True}))
    reader.feed(body[: body.rindex(b"id:")])
    with pytest.raises(errors.ProviderNonsense, match="ended in the middle"):
        reader.finish()


@pytest.mark.parametrize("exchange", found(stream=False))
def test_a_whole_answer_reads_as_it_was(exchange: dict[str, Any]) -> None:
    said = Said(exchange)
    answer = adapter().read_answer(replay.body_of(exchange["response"]), request())
    (choice,) = json.loads(answer.body)["choices"]
    assert (choice["message"]["content"] or "") == said.text
    assert [{"id": call["id"], **call["function"]} for call in choice["message"].get("tool_calls") or []] == said.calls
    assert (choice["finish_reason"], answer.finish_reason) == (said.finish, said.finish)
    assert answer.usage == said.usage


@pytest.mark.parametrize("exchange", found(ok=False))
def test_an_error_is_what_it_was(exchange: dict[str, Any]) -> None:
    response = exchange["response"]
    headers = {name.lower(): value for name, value in response["headers"].items()}
    assert type(adapter().read_error(response["status"], headers, replay.body_of(response))) is ERRORS[exchange["id"]]
    reader = adapter().stream_reader(request({"model": "alias", "stream": True}))
    with pytest.raises(ERRORS[exchange["id"]]):
        reader.feed(b"id:1\nevent:error\n:HTTP_STATUS/400\ndata:" + replay.body_of(response) + b"\n\n")


@pytest.mark.parametrize("exchange", found(ending="text-rerank"))
def test_an_answer_to_another_question_is_nonsense(exchange: dict[str, Any]) -> None:
    with pytest.raises(errors.ProviderNonsense):
        adapter().read_answer(replay.body_of(exchange["response"]), request())


def asked(exchange: dict[str, Any]) -> dict[str, Any]:
    """The same request as an OpenAI client would put it."""
    body = exchange["request"]["body"]
    messages = body["input"].get("messages") or [{"role": "user", "content": body["input"]["prompt"]}]
    options = {name: body["parameters"][name] for name in ("tools", "tool_choice") if name in body["parameters"]}
    return {
        "model": "alias",
        "messages": [{**message, "content": spelt(message["content"])} for message in messages],
        "stream": "lines" in exchange["response"],
        **options,
    }


def spelt(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [
        {"type": "text", "text": part["text"]} if "text" in part else {"type": "image_url", "image_url": {"url": part["image"]}}
        for part in content
    ]


# What we send otherwise than was recorded, and why.
INTENDED = {
    ".input.prompt: missing": "a prompt is a conversation of one message",
    ".input.messages: extra": "see prompt",
    ".parameters.result_format: extra": "older models answer in a format without tool calls unless asked",
    ".parameters.incremental_output: extra": "unasked, each event repeats all that was said",
}


def differences(exchange: dict[str, Any]) -> list[str]:
    recorded = exchange["request"]
    sent = adapter().chat_call(request(asked(exchange)), model(recorded["body"]["model"]), SECRET)
    assert sent.url == f"https://{recorded['host']}{recorded['path']}"
    headers = {name.lower(): value for name, value in sent.headers.items()}
    for name in ("accept", "content-type", "x-dashscope-sse"):
        assert headers.get(name) == recorded["headers"].get(name)
    return replay.differences(recorded["body"], json.loads(sent.body or b""))


@pytest.mark.parametrize("exchange", found())
def test_what_we_send_is_what_was_recorded(exchange: dict[str, Any]) -> None:
    assert [line for line in differences(exchange) if not any(known in line for known in INTENDED)] == []


def test_the_table_of_intended_differences_holds_no_more_than_there_are() -> None:
    replay.require()
    lines = [line for param in found() for line in differences(param.values[0])]
    assert [known for known in INTENDED if not any(known in line for line in lines)] == []


async def test_an_exchange_replays_over_a_socket() -> None:
    with replay.replay_server() as address:
        transport = GuardedTransport(Guard([("127.0.0.0/8", None)]))
        for exchange in (param.values[0] for param in found()):
            vendor = adapter(f"{address}/{exchange['id']};chunk=5")
            response = await vendor.send(transport, vendor.chat_call(request(asked(exchange)), model("qwen-plus"), SECRET))
            assert response.status == 200
            assert await response.read(2**20) == replay.body_of(exchange["response"])
        await transport.close()
