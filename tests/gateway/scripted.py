"""A vendor that follows a script, and a gateway around it: no network, no database, no clock but the frozen one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec

from access import keys
from core.chat import Answer, ChatRequest, Usage, WireCall
from core.clock import FrozenClock
from core.config import BreakerSpec, CallerSpec, KeySpec, LimitSpec, ModelSpec, PriceSpec, ProviderSpec, Snapshot
from core.errors import AccountingUnavailable, GatewayError, ProviderFault
from core.secrets import Secret
from gateway.doors import openai_chat
from gateway.doors.http import Gateway, GenerationDoor
from gateway.manager import Manager
from gateway.pipeline import Generation, Pipeline
from monitoring.journal import Record

PEPPER = b"pepper"
KEY = "sk-llmc-test"
USAGE = Usage(input=10, output=5)
ANSWER = Answer(body=b'{"answer":1}', usage=USAGE, finish_reason="stop", output_bytes=20)


class Steady(random.Random):
    """Chance without any: always the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Stream:
    """Script of a stream: bytes are pieces with content, an exception is raised, a callable is awaited."""

    def __init__(self, *steps: Any, usage: Usage | None = USAGE, refused_counts: str = "") -> None:
        self.steps = list(steps)
        self.refused_counts = refused_counts
        self.usage_at_end = usage


class Reader:
    tail = b"data: [DONE]\n\n"

    def __init__(self, stream: Stream) -> None:
        self.usage: Usage | None = None
        self.refused_counts = stream.refused_counts
        self.finish_reason = ""
        self.output_bytes = 0
        self.content_started = False
        self.done = False
        self.salvaged = b""
        self._stream = stream

    def feed(self, data: bytes) -> bytes:
        self.content_started = True
        self.output_bytes += len(data)
        return data

    def finish(self) -> bytes:
        self.usage, self.finish_reason = self._stream.usage_at_end, "stop"
        return b""


class Response:
    status, content_type = 200, "application/json"
    headers: dict[str, str] = {}

    def __init__(self, step: Any) -> None:
        self.step = step
        self.closed = 0

    async def read(self, limit: int) -> bytes:
        if isinstance(self.step, Exception):
            raise self.step
        return b"{}"

    async def next_chunk(self) -> bytes:
        if not self.step.steps:
            return b""
        step = self.step.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, bytes):
            return step
        return await step()

    def close(self) -> None:
        self.closed += 1


class Refusal(Response):
    """The vendor answers with an error status."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(None)
        self.status, self.headers = status, headers  # type: ignore[misc]

    async def read(self, limit: int) -> bytes:
        return b""


class ScriptedAdapter:
    """Each call takes the next step: an exception (at `send`), an Answer, a Stream, or a Response of its own."""

    dialects, form = frozenset({"openai"}), ()
    scripts: dict[str, list[Any]] = {}
    responses: list[Response] = []

    def __init__(self, spec: ProviderSpec) -> None:
        self.name = spec.name
        self._answer: Answer | None = None
        self._stream: Stream | None = None

    def chat_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        return WireCall(url="http://vendor", headers={})

    async def send(self, transport: object, call: WireCall) -> Response:
        step = self.scripts[self.name].pop(0)
        if callable(step):
            step = await step()
        if isinstance(step, Exception):
            raise step
        self._answer, self._stream = (step, None) if isinstance(step, Answer) else (None, step)
        response = step if isinstance(step, Response) else Response(step)
        self.responses.append(response)
        return response

    def read_answer(self, body: bytes, request: ChatRequest) -> Answer:
        assert self._answer is not None
        return self._answer

    def stream_reader(self, request: ChatRequest) -> Reader:
        assert self._stream is not None
        return Reader(self._stream)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        return ProviderFault("scripted")


class Sink:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.broken = False

    def write(self, *records: Record) -> None:
        if self.broken:
            raise AccountingUnavailable("the journal cannot be written")
        self.records += records

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]


class Bench:
    """Providers `a` and `b` behind the alias `m`, in that order; one caller."""

    def __init__(self, monkeypatch: Any, *, limits: LimitSpec | None = None, providers: str = "ab", **caller: Any) -> None:
        monkeypatch.setattr("gateway.runtime.adapter_for", ScriptedAdapter)
        ScriptedAdapter.scripts = {name: [] for name in providers}
        ScriptedAdapter.responses = self.responses = []
        self.scripts = ScriptedAdapter.scripts
        self.clock, self.sink = FrozenClock(), Sink()
        self.manager = Manager(transport=None, clock=self.clock, queue_timeout_s=1, rng=Steady())  # type: ignore[arg-type]
        self.pipeline = Pipeline(self.manager, self.sink, self.clock, max_retries=2, max_in_flight=10)
        self.caller = CallerSpec(
            **{
                "key_id": "k",
                "key_name": "key",
                "prefix": "sk",
                "team_id": "t",
                "team_name": "team",
                "scopes": frozenset({"chat", "models"}),
                "limits": limits or LimitSpec(),
                **caller,
            }
        )
        self.snapshot = Snapshot(
            version=7,
            loaded_at=0.0,
            callers={keys.digest(PEPPER, KEY.encode()): self.caller},
            models={"m": tuple(self.model(name) for name in providers)},
            providers={name: self.provider(name) for name in providers},
        )
        self.manager.apply(self.snapshot)

    def provider(self, name: str, **changes: Any) -> ProviderSpec:
        values = {"base_url": "http://vendor", "keys": (KeySpec(f"key-{name}", "", Secret("s")),), "breaker": BreakerSpec(3, 10)}
        return ProviderSpec(id=name, name=name, kind="scripted", **{**values, **changes})

    def model(self, name: str) -> ModelSpec:
        price = PriceSpec("p", "USD", 0.0, None, input=1_000_000, cached_input=0, cache_write=0, output=2_000_000)
        return ModelSpec(id=f"m-{name}", alias="m", model_id=f"vendor-{name}", provider_id=name, prices=(price,))

    def generation(self, *, stream: bool = False) -> Generation:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        request = openai_chat.parse(msgspec.json.encode(body))
        return Generation(self.pipeline, self.manager.view, self.caller, request, self.pipeline.request_id())

    @property
    def door(self) -> GenerationDoor:
        return GenerationDoor(Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=self.pipeline), openai_chat)

    def settled_in_full(self) -> bool:
        """Nothing is held any more: no slot, no lease, no concurrency."""
        runtimes = self.manager._runtimes.values()
        return (
            self.pipeline._in_flight == 0
            and self.manager.gate(self.caller).in_flight == 0
            and all(runtime.slots.in_flight == 0 for runtime in runtimes)
            and all(key.in_flight == 0 for runtime in runtimes for key in runtime._pool.keys)
            and all(response.closed for response in self.responses)
        )
