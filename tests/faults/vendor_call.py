"""One call of the fault vendor, and the pieces its answer is made of."""

from __future__ import annotations

import json
from typing import Any

from tests.faults.vendor_wire import Connection, head_of

CREATED = 1_700_000_000
BEFORE_FAULT = 3  # tokens that a midstream fault lets through


class Call:
    """`entry` is its line in the ledger; `number` says how many calls of its very model there have been, this one included."""

    def __init__(self, connection: Connection, model: str, options: dict[str, str], body: dict[str, Any], entry: dict[str, Any]) -> None:
        self.connection, self.model, self.options, self.body, self.entry = connection, model, options, body, entry
        connection.entry = entry
        self.stream = bool(body.get("stream"))
        self.include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.key = ""
        self.number = 1
        self.tokens = [f"echo:{entry['echo']}", *(f" t{n}" for n in range(1, int(options.get("tokens", 5))))]
        self.cut = 0

    def option(self, name: str, default: float) -> float:
        return float(self.options.get(name, default))

    @property
    def usage(self) -> Any:
        prompt, sent = self.entry["prompt_tokens"], self.entry["tokens_sent"]
        return {"prompt_tokens": prompt, "completion_tokens": sent, "total_tokens": prompt + sent}

    def completion(self, content: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        base = {"id": f"chatcmpl-{self.entry['n']}", "object": "chat.completion", "created": CREATED, "model": self.body["model"]}
        return {**base, "choices": [choice], "usage": self.usage}

    def chunk(self, delta: dict[str, Any] | None, finish_reason: str | None = None, usage: Any = None) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        base = {"id": f"chatcmpl-{self.entry['n']}", "object": "chat.completion.chunk", "created": CREATED, "model": self.body["model"]}
        extra = {"usage": usage} if self.include_usage else {}
        return b"data: " + json.dumps({**base, "choices": choices, **extra}).encode() + b"\n\n"

    async def begin(self, content_type: str = "text/event-stream", **headers: str) -> None:
        self.entry["status"] = 200
        await self.connection.send(head_of(200, {"content-type": content_type, "transfer-encoding": "chunked", **headers}))

    async def write(self, data: bytes) -> None:
        """Body bytes, in one HTTP chunk or, with `cut`, in pieces of 1 to `cut` bytes."""
        position = step = 0
        while position < len(data):
            step = step % self.cut + 1 if self.cut else len(data)
            piece = data[position : position + step]
            await self.connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            position += step

    def sent(self, text: str, tokens: int = 1) -> None:
        self.entry["tokens_sent"] += tokens
        self.entry["text_bytes"] += len(text.encode())

    async def end(self) -> None:
        await self.connection.send(b"0\r\n\r\n")

    async def say(self, count: int | None = None) -> None:
        """The role and the first `count` tokens of a stream, or all of them."""
        await self.write(self.chunk({"role": "assistant", "content": ""}))
        for token in self.tokens[:count]:
            await self.connection.pause(self.option("delay", 0)) if self.option("delay", 0) else None
            await self.write(self.chunk({"content": token}))
            self.sent(token)

    async def half(self) -> None:
        """An answer that stops in the middle: some tokens of a stream, or half of a promised body."""
        if self.stream:
            await self.begin()
            await self.say(BEFORE_FAULT)
        else:
            data = json.dumps(self.completion("".join(self.tokens))).encode()
            await self.connection.send(
                head_of(200, {"content-type": "application/json", "content-length": str(len(data))}) + data[: len(data) // 2]
            )
