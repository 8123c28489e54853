"""Trace contexts as clients send them and vendors get them, and what is told of a request that has ended."""

from __future__ import annotations

import re

import pytest

from core.errors import ProviderFault
from gateway.tracing import Trace, begun
from monitoring.journal import RequestEnded
from tests.gateway.scripted import ANSWER, Bench

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def of(parent: str, state: str = "", ratio: float = 1.0) -> Trace:
    headers = [(b"traceparent", parent.encode()), (b"tracestate", state.encode())]
    return begun([(name, value) for name, value in headers if value], ratio)


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False), ("03", True)])
def test_a_clients_trace_goes_on_with_its_own_decision(flags: str, sampled: bool) -> None:
    trace = of(f"00-{TRACE}-{PARENT}-{flags}", "vendor=1", ratio=0.5)
    assert (f"{trace.trace_id:032x}", f"{trace.parent_id:016x}", trace.sampled) == (TRACE, PARENT, sampled)
    first, second = trace.next_attempt(), trace.next_attempt()
    assert first["tracestate"] == "vendor=1"
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-0{int(sampled)}", first["traceparent"])
    assert len({PARENT, f"{trace.span_id:016x}", first["traceparent"][36:52], second["traceparent"][36:52]}) == 4


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "garbage",
        f"00-{TRACE}-{PARENT}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_what_cannot_be_read_begins_a_trace(parent: str) -> None:
    trace = of(parent, "vendor=1")
    assert trace.parent_id == 0
    assert f"{trace.trace_id:032x}" != TRACE
    assert "tracestate" not in trace.next_attempt()


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert f"{of(f'01-{TRACE}-{PARENT}-01-what-comes').trace_id:032x}" == TRACE


def test_the_ratio_decides_where_nobody_has() -> None:
    assert all(of("", ratio=1.0).sampled for _ in range(100))
    assert not any(of("", ratio=0.0).sampled for _ in range(100))
    assert 300 < sum(of("", ratio=0.5).sampled for _ in range(1000)) < 700


@pytest.mark.parametrize("state", ["x=" + "y" * 600, "näme=1"])
def test_a_state_that_no_vendor_should_get_stays_here(state: str) -> None:
    assert "tracestate" not in of(f"00-{TRACE}-{PARENT}-01", state).next_attempt()


class Told:
    def __init__(self, ratio: float = 1.0) -> None:
        self.ratio = ratio
        self.of: list[tuple[Trace, RequestEnded]] = []

    def ended(self, trace: Trace, request: RequestEnded) -> None:
        self.of.append((trace, request))


async def test_every_attempt_is_told_of_once_its_request_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    told = bench.pipeline.tracer = Told()
    bench.scripts["a"] += [ProviderFault("The provider failed.")]
    bench.scripts["b"] += [ANSWER]
    generation = bench.generation()
    await generation.start()
    assert told.of == []
    generation.end(None)
    [(trace, request)] = told.of
    assert [(span.target.provider.name, span.settled.error_code) for span in trace.attempts] == [("a", "upstream_error"), ("b", "")]
    assert len({trace.span_id, *(span.span_id for span in trace.attempts)}) == 3
    assert request.attempts == 2


async def test_of_an_unsampled_request_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    told = bench.pipeline.tracer = Told(ratio=0.0)
    bench.scripts["a"] += [ANSWER]
    generation = bench.generation()
    await generation.start()
    generation.end(None)
    assert told.of == []
