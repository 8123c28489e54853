"""An OpenAI-compatible vendor that misbehaves on demand, on loopback only, and keeps a ledger of what it really sent.

    python -m tests.fault_vendor --port 9100 [--tls FOLDER]
    async with FaultVendor() as vendor: …  vendor.base_url

The model's name picks the behaviour: `ok`, or a fault of `FAULTS`, with options behind an @: `ok@tokens=40,delay=0.02`.
Options of every answer: `tokens`, `delay` (s between tokens), `ttfb` (s before the status line), `cap` (calls at once of
this very name; more get a 429). The first token of an answer is `echo:` and eight hex digits of the last user message's
SHA-256, so that a test can tell whose answer it holds. A prompt that begins with `nonce:` is found again by its first word.

GET /_ledger, GET /_stats, POST /_reset and POST /_control are for tests and checkers. /_control takes `{"keys": [...]}`
(other keys get a 401; null = any key will do) and `{"fail": {"ok": "fault-503"}}` (what a name begins with → the fault it meets).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import ssl
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.vendor_call import CREATED, Call
from tests.faults.vendor_faults import FAULTS, limited
from tests.faults.vendor_tls import server_contexts
from tests.faults.vendor_wire import ClientLeft, Connection, error

BACKLOG = 2048


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content)


def nonce_of(prompt: str) -> str:
    return prompt.split(maxsplit=1)[0] if prompt.startswith("nonce:") else ""


class FaultVendor:
    """The server. `port` 0 takes any free one; only loopback is ever listened on. `tls`: a folder for certificates."""

    def __init__(self, port: int = 0, tls: Path | None = None) -> None:
        self.port = port
        self.tls_urls: dict[str, str] = {}
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.keys: set[str] | None = None
        self.fail: dict[str, str] = {}
        self.reset()

    def reset(self) -> None:
        """The ledger and what was counted; what `control` was told stays."""
        self.ledger: list[dict[str, Any]] = []
        self.in_flight: Counter[str] = Counter()
        self.max_in_flight = 0
        self.connections = 0
        self.unexpected: list[str] = []
        self._seen: dict[str, set[str]] = {"idempotency_key": set(), "nonce": set()}
        self._repeats: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> FaultVendor:
        self.port = await self._listen(self.port)
        if self._tls is not None:
            for name, context in server_contexts(self._tls).items():
                self.tls_urls[name] = f"https://127.0.0.1:{await self._listen(0, context)}/v1"
        return self

    async def _listen(self, port: int, context: ssl.SSLContext | None = None) -> int:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port, ssl=context, backlog=BACKLOG)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    async def answer(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        match method, path:
            case "GET", "/v1/models":
                models = [{"id": name, "object": "model", "created": CREATED, "owned_by": "fault"} for name in FAULTS]
                await connection.reply(200, {"object": "list", "data": models})
            case "GET", "/_ledger":
                await connection.reply(200, self.ledger)
            case "GET", "/_stats":
                await connection.reply(200, self.stats())
            case "POST", "/_reset":
                self.reset()
                await connection.reply(200, {"ok": True})
            case "POST", "/_control":
                self.control(json.loads(body))
                await connection.reply(200, {"ok": True})
            case "POST", "/v1/chat/completions":
                await self._complete(connection, headers, body)
            case _:
                self.unexpected.append(f"{method} {path}")
                await connection.reply(404, error(f"There is no {path}.", "invalid_request_error"))

    def control(self, wanted: dict[str, Any]) -> None:
        if "keys" in wanted:
            self.keys = None if wanted["keys"] is None else set(wanted["keys"])
        self.fail = wanted.get("fail", self.fail)

    def stats(self) -> dict[str, Any]:
        return {
            "total": len(self.ledger),
            "in_flight": self.in_flight.total(),
            "max_in_flight": self.max_in_flight,
            "by_key": Counter(entry["key"] for entry in self.ledger),
            "by_model": self._calls,
            "idempotency_repeats": self._repeats["idempotency_key"],
            "prompts_sent_twice": self._repeats["nonce"],
            "connections": self.connections,
            "unexpected": self.unexpected,
        }

    async def _complete(self, connection: Connection, headers: dict[str, str], raw: bytes) -> None:
        body = json.loads(raw)
        model = str(body.get("model"))
        entry = self._enter(model, headers, body)
        name, _, spelled = self._meets(model).partition("@")
        options = dict(part.split("=", 1) for part in spelled.split(",") if "=" in part)
        behave = FAULTS.get(name)
        call = Call(connection, name, options, body, entry)
        call.key, call.number = entry["key"], self._calls[model]
        in_flight = self.in_flight  # of this ledger: a reset begins another one
        in_flight[model] += 1
        self.max_in_flight = max(self.max_in_flight, in_flight.total())
        try:
            if behave is None:
                return await connection.reply(404, error(f"The model {name!r} does not exist.", "invalid_request_error", "model_not_found"))
            if self.keys is not None and call.key not in self.keys:
                return await FAULTS["fault-401"](call)
            if in_flight[model] > call.option("cap", float("inf")):
                return await limited(call)
            if call.option("ttfb", 0):
                await connection.pause(call.option("ttfb", 0))
            await behave(call)
        except ClientLeft:
            entry.update(client_gone=True, gone_at=connection.gone_at, how="client_gone")
            raise
        finally:
            in_flight[model] -= 1
            connection.entry = None
            entry["ended"] = time.time()
            if entry["how"] == "running":
                entry["how"] = "whole"

    def _enter(self, model: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        messages = body.get("messages") or []
        prompt = next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")
        key = headers.get("authorization", "").removeprefix("Bearer ")
        entry: dict[str, Any] = {
            "n": len(self.ledger) + 1,
            "model": model,
            "nonce": nonce_of(prompt),
            "echo": hashlib.sha256(prompt.encode()).hexdigest()[:8],
            "stream": bool(body.get("stream")),
            "tokens_sent": 0,
            "text_bytes": 0,
            "prompt_tokens": sum(len(text_of(message).split()) for message in messages),
            "status": 0,
            "how": "running",
            "client_gone": False,
            "gone_at": None,
            "started": time.time(),
            "first_byte": None,
            "ended": None,
            "key": key,
            "key_last4": key[-4:],
            "idempotency_key": headers.get("idempotency-key", ""),
            "traceparent": headers.get("traceparent", ""),
        }
        entry["repeat"] = self._repeated("idempotency_key", entry["idempotency_key"]) | self._repeated("nonce", entry["nonce"])
        self.ledger.append(entry)
        self._calls[model] += 1
        return entry

    def _repeated(self, what: str, value: str) -> bool:
        repeated = bool(value) and value in self._seen[what]
        self._seen[what].add(value)
        self._repeats[what] += repeated
        return repeated

    def _meets(self, model: str) -> str:
        return next((fault for start, fault in self.fail.items() if model.startswith(start)), model)


async def serve(port: int, tls: Path | None) -> None:
    async with FaultVendor(port, tls) as vendor:
        for name, url in vendor.tls_urls.items():
            print(f"{name} at {url}", flush=True)
        print(f"listening on {vendor.base_url}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", type=Path, help="also serve with certificates, which are written into this folder")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.port, options.tls))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
