"""Calling a vendor on an admin's behalf: the same adapter and guarded transport as a real request, a few short calls.

Synchronous outside, one event loop for the length of the call inside. Nothing here is metered to a caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from django.conf import settings

from core.chat import Answer, ChatRequest, Usage, WireCall
from core.clock import Clock, SystemClock
from core.config import KeySpec, ModelSpec, ProviderSpec, TimeoutSpec
from core.errors import (
    ConfigurationError,
    GatewayError,
    OutboundRefused,
    ProviderError,
    ProviderRefused,
    ProviderRejectedOurKey,
    ProviderUnreachable,
)
from core.outbound import Guard, GuardedTransport, Transport
from core.secrets import Secret
from providers.adapters import registry
from providers.adapters.base import Adapter

DEADLINE_S = 15.0
_ANSWER_BYTES = 8 * 2**20
_MAX_OUTPUT_TOKENS = 16
_NO_SUCH_ROUTE = (404, 405, 501)

Result = Literal["pass", "fail", "not_offered"]


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """One thing that was tried. `detail` is a plain sentence for the admin."""

    name: str
    result: Result
    detail: str


@dataclass(slots=True)
class ConnectionReport:
    """`ok`: something was answered and nothing failed. `latency_ms` is that of the last call that was answered, 0 = none."""

    checks: list[ConnectionCheck] = field(default_factory=list)
    latency_ms: int = 0
    tokens_used: int = 0

    @property
    def ok(self) -> bool:
        results = {check.result for check in self.checks}
        return "fail" not in results and "pass" in results

    def add(self, name: str, result: Result, detail: str) -> None:
        self.checks.append(ConnectionCheck(name, result, detail))


def try_out(spec: ProviderSpec, model_ids: Iterable[str], clock: Clock = SystemClock()) -> ConnectionReport:  # noqa: B008  (no state)
    """Lists the vendor's models with each key, then asks one of `model_ids` for a few tokens. Takes DEADLINE_S at most."""
    report = ConnectionReport()
    asyncio.run(_try_out(_hurried(spec), list(model_ids), report, clock))
    return report


def list_models(spec: ProviderSpec) -> list[str]:
    """The vendor's model ids, sorted. A refused key is passed over for the next. Raises GatewayError."""
    return asyncio.run(_list_with_any_key(_hurried(spec)))


def in_plain_words(error: GatewayError, spec: ProviderSpec) -> str:
    """For admins, who may know addresses and what to do about them; callers get `error.message` alone."""
    if isinstance(error, ProviderRejectedOurKey):
        return f"The vendor refused the key ({error.vendor_status})."
    if isinstance(error, OutboundRefused) and error.detail:
        return f"{error.message} ({error.detail})"
    if isinstance(error, ProviderUnreachable):
        return f"Nothing listens at {spec.base_url}." if _was_refused(error) else f"{error.message} ({urlsplit(spec.base_url).netloc})"
    status = error.vendor_status if isinstance(error, ProviderError) else 0
    return f"{error.message} (HTTP {status})" if status else error.message


def _was_refused(error: ProviderUnreachable) -> bool:
    return isinstance(getattr(error.__cause__, "os_error", None), ConnectionRefusedError)


def _hurried(spec: ProviderSpec) -> ProviderSpec:
    """The provider's own timeouts, none beyond what an admin waits for."""
    wanted = spec.timeouts
    return msgspec.structs.replace(
        spec,
        timeouts=TimeoutSpec(
            connect_s=min(wanted.connect_s, DEADLINE_S),
            first_byte_s=min(wanted.first_byte_s, DEADLINE_S),
            idle_s=min(wanted.idle_s, DEADLINE_S),
            total_s=min(wanted.total_s, DEADLINE_S),
        ),
    )


@asynccontextmanager
async def _transport() -> AsyncIterator[Transport]:
    transport = GuardedTransport(Guard(settings.OUTBOUND_ALLOW), max_connections=4)
    try:
        yield transport
    finally:
        await transport.close()


async def _answer(adapter: Adapter, transport: Transport, call: WireCall) -> bytes:
    """The body of a 2xx answer. Raises GatewayError."""
    response = await adapter.send(transport, call)
    try:
        body = await response.read(_ANSWER_BYTES)
        if not 200 <= response.status < 300:
            raise adapter.read_error(response.status, response.headers, body)
        return body
    finally:
        response.close()


async def _models(adapter: Adapter, transport: Transport, secret: Secret | None) -> list[str]:
    return adapter.read_models(await _answer(adapter, transport, adapter.models_call(secret)))


async def _list_with_any_key(spec: ProviderSpec) -> list[str]:
    adapter = registry.adapter_for(spec)
    secrets: list[Secret | None] = [key.secret for key in spec.keys] or [None]
    async with _transport() as transport:
        for secret in secrets[:-1]:
            try:
                return await _models(adapter, transport, secret)
            except ProviderRejectedOurKey:
                continue
        return await _models(adapter, transport, secrets[-1])


class _Trial:
    """One connection test under way: what is asked with, and the report it fills."""

    def __init__(self, spec: ProviderSpec, transport: Transport, report: ConnectionReport, clock: Clock) -> None:
        self._spec = spec
        self._transport = transport
        self._adapter = registry.adapter_for(spec)
        self._report = report
        self._clock = clock

    async def run(self, model_ids: list[str]) -> None:
        keys: list[KeySpec | None] = [*self._spec.keys] or [None]
        listed: list[str] = []
        good: list[KeySpec | None] = []
        for key in keys:
            found = await self._try_listing(key, "models" if len(keys) == 1 else f"models, key …{key.last4 if key else ''}")
            if found is not None:
                listed = found or listed
                good.append(key)
        model_id = _chosen(model_ids, listed)
        if model_id is None:
            self._report.add("chat", "not_offered", "No chat model is configured for this provider: sync its models, then test again.")
        elif good:
            await self._try_chat(good[0], model_id)

    async def _try_listing(self, key: KeySpec | None, name: str) -> list[str] | None:
        """The models, [] where the vendor has no such list; None where `key` is of no use."""
        started_s = self._clock.monotonic()
        try:
            listed = await _models(self._adapter, self._transport, key.secret if key else None)
        except GatewayError as error:
            if getattr(error, "vendor_status", 0) in _NO_SUCH_ROUTE:
                self._report.add(name, "not_offered", "The vendor offers no list of models .")
                return []
            self._report.add(name, "fail", in_plain_words(error, self._spec))
            return None
        self._answered(started_s)
        self._report.add(name, "pass", f"The vendor lists {len(listed)} model{'' if len(listed) == 1 else 's'}.")
        return listed

    async def _try_chat(self, key: KeySpec | None, model_id: str) -> None:
        started_s = self._clock.monotonic()
        model = ModelSpec(id="", alias=model_id, model_id=model_id, provider_id=self._spec.id)
        secret = key.secret if key else None
        try:
            try:
                answer = await self._chat(model, secret, "max_tokens")
            except ProviderRefused:
                # OpenAI's reasoning models know the limit only by its newer name, most other servers only by the older.
                answer = await self._chat(model, secret, "max_completion_tokens")
        except GatewayError as error:
            self._report.add("chat", "fail", f"{model_id}: {in_plain_words(error, self._spec)}")
            return
        self._answered(started_s)
        self._report.tokens_used += (answer.usage or Usage()).total_tokens
        self._report.add("chat", "pass", f"{model_id} answered.")

    async def _chat(self, model: ModelSpec, secret: Secret | None, limit_name: str) -> Answer:
        call = self._adapter.chat_call(_short_request(model.model_id, limit_name), model, secret)
        return self._adapter.read_answer(await _answer(self._adapter, self._transport, call))

    def _answered(self, started_s: float) -> None:
        self._report.latency_ms = round((self._clock.monotonic() - started_s) * 1000)


def _chosen(model_ids: list[str], listed: list[str]) -> str | None:
    """A configured model; else the only one there is. Of many unknown ones, which may be no chat models, none is guessed."""
    if model_ids:
        return next((model_id for model_id in model_ids if model_id in listed), model_ids[0])
    return listed[0] if len(listed) == 1 else None


def _short_request(model_id: str, limit_name: str) -> ChatRequest:
    body = {"model": model_id, "messages": [{"role": "user", "content": "Say OK."}], limit_name: _MAX_OUTPUT_TOKENS}
    return ChatRequest(
        dialect="openai",
        model=model_id,
        stream=False,
        wants_usage=True,
        max_output_tokens=_MAX_OUTPUT_TOKENS,
        body_bytes=len(msgspec.json.encode(body)),
        fields={name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()},
    )


async def _try_out(spec: ProviderSpec, model_ids: list[str], report: ConnectionReport, clock: Clock) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S), _transport() as transport:
            await _Trial(spec, transport, report, clock).run(model_ids)
    except ConfigurationError as error:
        report.add("adapter", "fail", str(error))
    except TimeoutError:
        report.add("time", "fail", f"The test was stopped after {DEADLINE_S:g} seconds.")
