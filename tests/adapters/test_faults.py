"""Adapter and guarded transport together against a vendor that misbehaves, over real loopback sockets."""

from __future__ import annotations

import asyncio
import json
import resource
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core import errors
from core.config import TimeoutSpec
from core.outbound import Guard, GuardedTransport
from providers.adapters.registry import adapter_for
from tests.adapters.cast import KEY, SECRET, Heard, model, provider, quick, request
from tests.fault_vendor import FaultVendor

BODY = {"model": "alias", "messages": [{"role": "user", "content": "hi there"}]}
TIMEOUT, BROKEN, NONSENSE, FAULT = errors.ProviderTimeout, errors.ProviderUnreachable, errors.ProviderNonsense, errors.ProviderFault
BOTH = {
    "fault-stall": TIMEOUT,
    "fault-slow-first-byte@s=5": TIMEOUT,
    "fault-stall-midstream": TIMEOUT,
    "fault-drip": TIMEOUT,
    "fault-reset": BROKEN,
    "fault-reset-midstream": BROKEN,
    "fault-eof-midstream": BROKEN,
    "fault-no-done": NONSENSE,
    "fault-garbage-json": NONSENSE,
    "fault-html-200": NONSENSE,
    "fault-wrong-shape": NONSENSE,
    "fault-garbage-sse": NONSENSE,
    "fault-bad-utf8": NONSENSE,
    "fault-truncated-json": NONSENSE,
    "fault-huge-header": NONSENSE,
    "fault-huge-line@mb=64": NONSENSE,
    "fault-gzip-bomb@mb=64": NONSENSE,
    "fault-error-in-200": FAULT,
    "fault-error-midstream": FAULT,
    "fault-500": FAULT,
    "fault-503": FAULT,
    "fault-429@retry_after=3": errors.ProviderLimited,
    "fault-401": errors.ProviderRejectedOurKey,
    "fault-404": errors.ProviderLacksModel,
    "fault-echo-key": errors.ProviderRefused,
    "fault-redirect": NONSENSE,
    "no-such-model": errors.ProviderLacksModel,
}
FAST = TimeoutSpec(connect_s=2.0, first_byte_s=0.2, idle_s=0.2, total_s=0.5)
TIMED = {name for name, error in BOTH.items() if error is TIMEOUT}


@pytest.fixture
async def vendor() -> AsyncIterator[FaultVendor]:
    async with FaultVendor() as running:
        yield running


@pytest.fixture
async def transport(vendor: FaultVendor) -> AsyncIterator[GuardedTransport]:
    transport = GuardedTransport(Guard([("127.0.0.0/8", vendor.port)]))
    yield transport
    await transport.close()


class Outcome:
    """What one call gave: forwarded bytes and the reader, or the answer."""

    def __init__(self) -> None:
        self.forwarded = b""
        self.answer: Any = None
        self.reader: Any = None


async def ask(vendor: FaultVendor, transport: GuardedTransport, name: str, *, stream: bool, timeouts: TimeoutSpec, got: Outcome) -> Outcome:
    """One call, as the gateway makes it. Raises what the adapter or the transport raises; `got` keeps what came before."""
    adapter = adapter_for(provider("openai_compatible", vendor.base_url, timeouts=timeouts))
    asked = request({**BODY, "stream": stream}, wants_usage=True)
    response = await adapter.send(transport, adapter.chat_call(asked, model(name), SECRET))
    try:
        if response.status != 200:
            raise adapter.read_error(response.status, response.headers, await response.read(2**16))
        if not stream:
            got.answer = adapter.read_answer(await response.read(2 * 2**20), asked)
            return got
        got.reader = adapter.stream_reader(asked)
        while data := await response.next_chunk():
            got.forwarded += got.reader.feed(data)
        got.reader.finish()
        return got
    except errors.GatewayError:
        got.forwarded += got.reader.salvaged if got.reader else b""
        raise
    finally:
        response.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "error"), BOTH.items(), ids=BOTH)
async def test_a_fault_is_a_typed_error(vendor: FaultVendor, transport: GuardedTransport, name: str, error: type, stream: bool) -> None:
    with pytest.raises(errors.GatewayError) as caught:
        await ask(vendor, transport, name, stream=stream, timeouts=FAST if name in TIMED else quick(), got=Outcome())
    assert isinstance(caught.value, error)
    assert caught.value.message.endswith(".")
    assert KEY not in f"{caught.value.message}{caught.value.detail}"
    assert vendor.unexpected == []
    if name in TIMED:
        await left(vendor)


async def left(vendor: FaultVendor) -> None:
    """The vendor notices that we have gone, well within a second."""
    async with asyncio.timeout(1):
        while not vendor.ledger[-1]["client_gone"]:  # noqa: ASYNC110 — the vendor is a stranger: it has no event for us
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("name", "timeouts", "words"),
    [
        ("fault-stall", quick(first_byte_s=0.1), "begin to answer within 0.1 seconds"),
        ("fault-stall-midstream", quick(idle_s=0.1), "sent nothing for 0.1 seconds"),
        ("fault-drip", quick(idle_s=5, total_s=0.3), "not complete after 0.3 seconds"),
        ("fault-drip", quick(idle_s=0.2, total_s=30), "of the 32 bytes that it has to send for 0.2 seconds"),
    ],
)
async def test_a_timeout_says_which(vendor: FaultVendor, transport: GuardedTransport, name: str, timeouts: TimeoutSpec, words: str) -> None:
    with pytest.raises(errors.ProviderTimeout, match=words):
        await ask(vendor, transport, name, stream=True, timeouts=timeouts, got=Outcome())


async def test_a_slow_first_byte_within_the_limit_is_no_fault(vendor: FaultVendor, transport: GuardedTransport) -> None:
    timeouts = quick(first_byte_s=5.0, idle_s=0.3)
    got = await ask(vendor, transport, "fault-slow-first-byte@s=0.4", stream=True, timeouts=timeouts, got=Outcome())
    assert Heard(got.forwarded).finish == {0: "stop"}


@pytest.mark.parametrize(
    "name", ["fault-reset-midstream", "fault-eof-midstream", "fault-no-done", "fault-stall-midstream", "fault-error-midstream"]
)
async def test_what_came_before_a_midstream_fault_is_kept(vendor: FaultVendor, transport: GuardedTransport, name: str) -> None:
    got = Outcome()
    with pytest.raises(errors.ProviderError):
        await ask(vendor, transport, name, stream=True, timeouts=quick(idle_s=0.2), got=got)
    heard = Heard(got.forwarded)
    assert heard.text == f"echo:{vendor.ledger[-1]['echo']} t1 t2"
    assert got.reader.output_bytes == len(heard.text)
    assert got.reader.content_started
    assert not heard.done


@pytest.mark.parametrize("name", ["ok@tokens=9", "fault-split@tokens=9"])
async def test_a_stream_cut_at_odd_bytes_reads_like_a_whole_one(vendor: FaultVendor, transport: GuardedTransport, name: str) -> None:
    got = await ask(vendor, transport, name, stream=True, timeouts=quick(), got=Outcome())
    heard = Heard(got.forwarded)
    assert heard.text == f"echo:{vendor.ledger[-1]['echo']} " + " ".join(f"t{n}" for n in range(1, 9))
    assert heard.usage == {"prompt_tokens": 2, "completion_tokens": 9, "total_tokens": 11}
    assert (got.reader.usage.input, got.reader.usage.output) == (2, 9)
    assert got.reader.done


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["fault-no-usage", "fault-bad-usage"])
async def test_unusable_usage_is_no_usage(vendor: FaultVendor, transport: GuardedTransport, name: str, stream: bool) -> None:
    got = await ask(vendor, transport, name, stream=stream, timeouts=quick(), got=Outcome())
    assert (got.reader if stream else got.answer).usage is None
    assert (got.reader if stream else got.answer).output_bytes > 0


async def test_a_rate_limit_keeps_its_wait(vendor: FaultVendor, transport: GuardedTransport) -> None:
    with pytest.raises(errors.ProviderLimited) as caught:
        await ask(vendor, transport, "fault-429@retry_after=3", stream=False, timeouts=quick(), got=Outcome())
    assert caught.value.retry_after_s == 3


@pytest.mark.parametrize("name", ["fault-huge@mb=64", "fault-huge-line@mb=64", "fault-gzip-bomb@mb=256"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_huge_answer_stays_out_of_memory(vendor: FaultVendor, transport: GuardedTransport, name: str, stream: bool) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        if stream and name.startswith("fault-huge@"):  # all of it is well-formed: it is read to the end, and nothing piles up
            await drained(vendor, transport, name)
        else:
            with pytest.raises(errors.ProviderNonsense):
                await ask(vendor, transport, name, stream=stream, timeouts=quick(), got=Outcome())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10


async def drained(vendor: FaultVendor, transport: GuardedTransport, name: str) -> None:
    adapter = adapter_for(provider("openai_compatible", vendor.base_url, timeouts=quick()))
    asked = request({**BODY, "stream": True})
    response = await adapter.send(transport, adapter.chat_call(asked, model(name), SECRET))
    reader = adapter.stream_reader(asked)
    while data := await response.next_chunk():
        reader.feed(data)
    reader.finish()
    assert reader.output_bytes == 64 * 2**20


async def test_a_client_that_leaves_midstream_is_noticed_at_once(vendor: FaultVendor, transport: GuardedTransport) -> None:
    adapter = adapter_for(provider("openai_compatible", vendor.base_url, timeouts=quick()))
    call = adapter.chat_call(request({**BODY, "stream": True}), model("ok@tokens=1000,delay=0.01"), SECRET)
    response = await adapter.send(transport, call)
    await response.next_chunk()
    response.close()
    response.close()
    await left(vendor)
    assert 0 <= vendor.ledger[-1]["tokens_sent"] < 100


async def test_a_finished_answer_leaves_its_connection_for_the_next(vendor: FaultVendor, transport: GuardedTransport) -> None:
    for _ in range(3):
        await ask(vendor, transport, "ok", stream=True, timeouts=quick(), got=Outcome())
        await ask(vendor, transport, "ok", stream=False, timeouts=quick(), got=Outcome())
    assert len(vendor.tasks) == 1


async def test_the_vendor_sees_the_key_and_lists_its_models(vendor: FaultVendor, transport: GuardedTransport) -> None:
    await ask(vendor, transport, "ok", stream=False, timeouts=quick(), got=Outcome())
    assert vendor.ledger[-1]["key_last4"] == KEY[-4:]
    adapter = adapter_for(provider("openai_compatible", vendor.base_url))
    response = await adapter.send(transport, adapter.models_call(SECRET))
    assert "fault-stall" in adapter.read_models(await response.read(2**16))


async def test_a_body_over_a_megabyte_arrives_whole(vendor: FaultVendor, transport: GuardedTransport) -> None:
    adapter = adapter_for(provider("openai_compatible", vendor.base_url, timeouts=quick()))
    asked = request({"model": "alias", "messages": [{"role": "user", "content": "word " * 400_000}]})
    response = await adapter.send(transport, adapter.chat_call(asked, model("ok"), SECRET))
    assert json.loads(await response.read(2**16))["usage"]["prompt_tokens"] == 400_000


async def test_more_calls_than_the_vendor_takes_are_limited(vendor: FaultVendor, transport: GuardedTransport) -> None:
    async def one() -> str:
        try:
            await ask(vendor, transport, "ok@cap=2,delay=0.02", stream=False, timeouts=quick(), got=Outcome())
        except errors.ProviderLimited:
            return "limited"
        return "ok"

    assert sorted(await asyncio.gather(*(one() for _ in range(4)))) == ["limited", "limited", "ok", "ok"]
