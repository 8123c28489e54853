"""A plain HTTP client and an independent reading of OpenAI's wire: nothing here uses the product or an SDK."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ERROR_KEYS = {"message", "type", "param", "code"}
HELLO = [{"role": "user", "content": "Say hello."}]


def asking(prompt: str) -> list[dict[str, str]]:
    """The messages of a request whose calls at the vendor are to be found again."""
    return [{"role": "user", "content": prompt}]


class Answer(NamedTuple):
    """Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an OpenAI error body: exactly the four keys, whatever is in them."""
        value = self.json
        assert set(value) == {"error"}, value
        assert set(value["error"]) == ERROR_KEYS, value
        assert value["error"]["message"], value
        return value["error"]

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream."""
        return list(events(self.body.decode()))


def call(
    base_url: str,
    method: str,
    path: str,
    *,
    key: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 20,
) -> Answer:
    """One request on a connection of its own. `body`: bytes or an iterator of bytes go as they are, anything else as JSON."""
    sent = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
    if body is not None and not isinstance(body, bytes | Iterator):
        body = json.dumps(body).encode()
    connection = _connection(base_url, timeout_s)
    try:
        connection.request(method, path, body=body, headers=sent, encode_chunked=isinstance(body, Iterator))
        return _read(connection)
    finally:
        connection.close()


def chat(
    base_url: str, key: str | None, model: str, prompt: str = "Say hello.", *, headers: Mapping[str, str] | None = None, **fields: Any
) -> Answer:
    body = {"model": model, "messages": asking(prompt), **fields}
    return call(base_url, "POST", "/v1/chat/completions", key=key, body=body, headers=headers)


class Stream:
    """A streamed answer, read event by event; `abandon` leaves it the way a client that dies does."""

    def __init__(self, base_url: str, key: str, model: str, prompt: str = "Say hello.", **fields: Any) -> None:
        self._connection = _connection(base_url, 20)
        body = json.dumps({"model": model, "messages": asking(prompt), "stream": True, **fields})
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._connection.request("POST", "/v1/chat/completions", body=body, headers=headers)
        self._socket = self._connection.sock
        self._response: http.client.HTTPResponse | None = None

    @property
    def response(self) -> http.client.HTTPResponse:
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def header(self, name: str) -> str:
        return self.response.getheader(name) or ""

    def next_event(self) -> str:
        """The data of the next event, "" at the end."""
        while line := self.response.readline():
            if line.startswith(b"data:"):
                return line[5:].strip().decode()
        return ""

    def content(self) -> str:
        """The text of the next event with text; "" where the stream ends first."""
        while (data := self.next_event()) not in ("", "[DONE]"):
            for choice in json.loads(data).get("choices", []):
                if text := choice["delta"].get("content"):
                    return text
        return ""

    def rest(self) -> list[str]:
        found = []
        while data := self.next_event():
            found.append(data)
        return found

    def abandon(self) -> None:
        assert self._socket is not None
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it had ended by itself
        self.close()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()


def _connection(base_url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(base_url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)


def _read(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


# Reading answers ----------------------------------------------------------------------------------------------------


def events(text: str) -> Iterator[str]:
    """The data of each server-sent event, read by the standard's rules."""
    data: list[str] = []
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


class Said(NamedTuple):
    """What an answer says, whichever way it came. Per choice, in order."""

    texts: list[str]
    reasoning: list[str]
    refusals: list[str]
    tool_calls: list[list[tuple[str, str, str]]]
    finish_reasons: list[str]
    usage: tuple[int, int, int, int, int] | None


def said_whole(body: Mapping[str, Any]) -> Said:
    messages = [choice["message"] for choice in body["choices"]]
    return Said(
        texts=[message.get("content") or "" for message in messages],
        reasoning=[_reasoning(message) for message in messages],
        refusals=[message.get("refusal") or "" for message in messages],
        tool_calls=[[_tool_call(call) for call in message.get("tool_calls") or []] for message in messages],
        finish_reasons=[choice["finish_reason"] or "" for choice in body["choices"]],
        usage=_usage(body.get("usage")),
    )


def said_streamed(chunks: Iterable[Mapping[str, Any]]) -> Said:
    """Folds chunks by choice and by tool call index, as a client has to."""
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = _usage(chunk.get("usage")) or usage
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            folded = choices.setdefault(choice["index"], {"text": "", "reasoning": "", "refusal": "", "tools": {}, "finish": ""})
            folded["text"] += delta.get("content") or ""
            folded["reasoning"] += _reasoning(delta)
            folded["refusal"] += delta.get("refusal") or ""
            folded["finish"] = choice.get("finish_reason") or folded["finish"]
            for call_ in delta.get("tool_calls") or []:
                known = folded["tools"].setdefault(call_.get("index", 0), ["", "", ""])
                known[:] = [had + more for had, more in zip(known, _tool_call(call_), strict=True)]
    folded_choices = [choices[index] for index in sorted(choices)]
    return Said(
        texts=[choice["text"] for choice in folded_choices],
        reasoning=[choice["reasoning"] for choice in folded_choices],
        refusals=[choice["refusal"] for choice in folded_choices],
        tool_calls=[[tuple(found) for _, found in sorted(choice["tools"].items())] for choice in folded_choices],  # type: ignore[misc]
        finish_reasons=[choice["finish"] for choice in folded_choices],
        usage=usage,
    )


def _reasoning(message: Mapping[str, Any]) -> str:
    return message.get("reasoning_content") or message.get("reasoning") or ""


def _tool_call(call_: Mapping[str, Any]) -> tuple[str, str, str]:
    function = call_.get("function") or {}
    return call_.get("id") or "", function.get("name") or "", function.get("arguments") or ""


def _usage(usage: Mapping[str, Any] | None) -> tuple[int, int, int, int, int] | None:
    """(prompt, cached, completion, reasoning, total) tokens."""
    if not usage:
        return None
    prompt, output = usage["prompt_tokens"], usage.get("completion_tokens") or 0
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return prompt, cached, output, reasoning, usage.get("total_tokens") or prompt + output
