"""What a failed call leaves behind: a trace of what the vendor sent, for the log alone, none of its memory, and less time."""

from __future__ import annotations

import gc
import weakref
from traceback import walk_tb
from typing import Any

import msgspec
import pytest

from core.chat import Answer, WireCall
from core.config import KeySpec, TimeoutSpec
from core.errors import GatewayError, ProviderFault, ProviderNonsense
from core.secrets import Secret
from gateway.pipeline import Generation
from tests.gateway.scripted import ANSWER, Bench, Reader, Response, ScriptedAdapter, Stream

PAGE = b"<html>Welcome, sk-planted-0123456789, to the captive portal</html>" + b" " * 2000 + b"end"
KEY = KeySpec("key-a", "", Secret("planted"))


class Page(Response):
    async def read(self, limit: int) -> bytes:
        return PAGE


class Nonsense(Reader):
    def feed(self, data: bytes) -> bytes:
        raise ProviderNonsense("No answer.", detail="a page")


def refuse(*_: Any) -> Answer:
    raise ProviderNonsense("No answer.", detail="a page")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
    bench = Bench(monkeypatch, providers="a")
    provider = bench.provider("a", keys=(KEY,))
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, providers={"a": provider}))
    return bench


async def failure(generation: Generation) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await generation.start()
    generation.end(raised.value)
    return raised.value


async def test_what_came_instead_of_an_answer_is_quoted_for_the_log(alone: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedAdapter, "read_answer", refuse)
    alone.scripts["a"] = [Page(None)] * 3
    error = await failure(alone.generation())
    assert error.detail is not None
    assert error.detail.startswith("a page: <html>Welcome, ****, to the captive portal</html>")
    assert len(error.detail) <= len("a page: ") + 512
    assert "portal" not in error.message


async def test_what_came_instead_of_an_event_is_quoted_too(alone: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedAdapter, "stream_reader", lambda self, request: Nonsense(self._stream))
    alone.scripts["a"] = [Stream(b"our key is planted") for _ in range(3)]
    assert (await failure(alone.generation(stream=True))).detail == "a page: our key is ****"


async def test_a_failed_answer_is_not_kept_while_the_next_call_lasts(alone: Bench) -> None:
    first = ProviderNonsense("No answer.")
    kept: list[str] = []

    async def second() -> Answer:
        kept.extend(frame.f_code.co_name for error in (first, first.__context__) if error for frame, _ in walk_tb(error.__traceback__))
        return ANSWER

    async def failing() -> Answer:
        try:
            raise ValueError("what the decoder said, with the answer in its frames")
        except ValueError:
            raise first from None

    alone.scripts["a"] = [failing, second]
    generation = alone.generation()
    await generation.start()
    generation.end(None)
    assert "failing" not in kept


class Slow:
    """A transport on which every call takes `seconds` and fails; `bounds` are what it was given."""

    def __init__(self, bench: Bench, seconds: float) -> None:
        self.bounds: list[TimeoutSpec] = []
        self._clock, self._seconds = bench.clock, seconds

    async def open(self, call: WireCall, timeouts: TimeoutSpec) -> Response:
        self.bounds.append(timeouts)
        self._clock.advance(self._seconds)
        raise ProviderFault("Not today.")


async def test_all_calls_of_a_request_share_its_time(alone: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = TimeoutSpec(connect_s=3, total_s=10)
    provider = alone.provider("a", timeouts=timeouts)
    alone.manager.apply(msgspec.structs.replace(alone.snapshot, providers={"a": provider}))
    alone.manager._runtimes["a"].transport = slow = Slow(alone, 4.5)  # type: ignore[assignment]
    monkeypatch.setattr(ScriptedAdapter, "send", lambda self, transport, call: transport.open(call, timeouts))
    await failure(alone.generation())
    assert [(bounds.connect_s, bounds.total_s) for bounds in slow.bounds] == [(3, 10), (3, 5.5), (1, 1)]


class Megabytes:
    """Stands for what had been read of an answer when it failed."""


@pytest.mark.parametrize("providers", ["a", "ab"], ids=["told to the caller", "another answers"])
async def test_what_was_read_of_it_is_freed_at_once_and_not_by_the_collector(monkeypatch: pytest.MonkeyPatch, providers: str) -> None:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
    bench, held = Bench(monkeypatch, providers=providers), []

    async def fail() -> None:
        read = Megabytes()
        held.append(weakref.ref(read))
        raise ProviderNonsense("No answer.")

    bench.scripts["a"], bench.scripts["b"] = [fail] * 3, [ANSWER]

    async def ask() -> None:
        generation, error = bench.generation(), None
        try:
            await generation.start()
        except GatewayError as failed:
            error = failed
        generation.end(error)

    gc.collect()
    gc.disable()
    try:
        await ask()
        assert held
        assert [ref() for ref in held] == [None] * len(held)
    finally:
        gc.enable()
