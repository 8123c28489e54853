"""Streams that are silent for long: what is said meanwhile, and what an error is from then on."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from core.errors import ProviderFault, ProviderNonsense
from gateway.doors import anthropic_messages, openai_chat
from gateway.doors.exchange import Timers
from gateway.doors.http import Gateway, GenerationDoor
from gateway.doors.keep_alive import KeepAlive, timer
from monitoring.journal import AttemptOpened, RequestEnded
from tests.gateway.scripted import ANSWER, KEY, PEPPER, Bench, Stream
from tests.gateway.test_door import BODY, STREAMED, Client
from tests.gateway.test_idempotency import keyed

COMMENT = b": keep-alive\n\n"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 0)
    return Bench(monkeypatch)


def gateway_of(bench: Bench, keep_alive_s: float = 15.0) -> Gateway:
    return Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline, timers=Timers(keep_alive_s))


class Time:
    """Lets the timers of a gateway run out without waiting for them."""

    def __init__(self, gateway: Gateway) -> None:
        self._timers = gateway.timers

    async def silence(self, intervals: int = 1) -> None:
        for due in list(self._timers.unwatched._waiting):
            self._timers.unwatched.discard(due)
            due.overdue()
        for _ in range(intervals):
            for due in list(self._timers.silent._waiting if self._timers.silent else ()):
                due.overdue()
            for _ in range(5):
                await asyncio.sleep(0)


def quiet_step(time: Time, answer: Any, intervals: int = 1) -> Any:
    async def step() -> Any:
        await time.silence(intervals)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return step


async def streamed(bench: Bench, *steps: Any, b: Any = ()) -> Client:
    """Each of `steps` is what the first target does after a silence of two intervals."""
    gateway = gateway_of(bench)
    time = Time(gateway)
    bench.scripts["a"] = [quiet_step(time, step, 2) for step in steps]
    bench.scripts["b"] = list(b)
    return await Client(STREAMED).call(GenerationDoor(gateway, openai_chat))


async def test_a_stream_that_is_not_there_yet_is_kept_alive(bench: Bench) -> None:
    client = await streamed(bench, Stream(b"data: 1\n\n"))
    assert client.body == COMMENT * 2 + b"data: 1\n\n" + b"data: [DONE]\n\n"
    assert (client.status, client.headers[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
    assert client.headers[b"x-llm-provider"] == b"a"
    assert client.complete
    assert bench.settled_in_full()


async def test_a_stream_that_falls_silent_is_kept_alive_between_its_events(bench: Bench) -> None:
    gateway = gateway_of(bench)
    bench.scripts["a"] = [Stream(b"data: 1\n\n", quiet_step(Time(gateway), b"data: 2\n\n", 3), b"data: 3\n\n")]
    client = await Client(STREAMED).call(GenerationDoor(gateway, openai_chat))
    assert client.body == b"data: 1\n\n" + COMMENT * 3 + b"data: 2\n\ndata: 3\n\n" + b"data: [DONE]\n\n"


async def test_anthropics_clients_get_a_ping(bench: Bench) -> None:
    gateway = gateway_of(bench)
    bench.scripts["a"] = [quiet_step(Time(gateway), Stream(b"event: x\n\n"))]
    body = b'{"model":"m","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"hi"}]}'
    client = await Client(body).call(GenerationDoor(gateway, anthropic_messages))
    assert client.body.startswith(b'event: ping\ndata: {"type": "ping"}\n\nevent: x\n\n')


async def test_after_a_comment_a_failure_is_an_event_of_the_stream(bench: Bench) -> None:
    client = await streamed(bench, ProviderNonsense("HTML"), b=[ProviderNonsense("HTML")] * 3)
    assert client.status == 200
    assert client.body.startswith(COMMENT * 2 + b"data: {")
    assert b'"code":"upstream_invalid_response"' in client.body
    assert b"[DONE]" not in client.body
    assert client.complete
    assert bench.sink.of(RequestEnded)[0].status_code == 502


async def test_after_a_comment_another_target_may_still_answer(bench: Bench) -> None:
    client = await streamed(bench, ProviderFault("503"), b=[Stream(b"data: b\n\n")])
    assert client.body == COMMENT * 2 + b"data: b\n\n" + b"data: [DONE]\n\n"
    assert len(bench.sink.of(AttemptOpened)) == 2


async def test_who_is_in_time_hears_nothing(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"data: 1\n\n")]
    gateway = gateway_of(bench)
    client = await Client(STREAMED).call(GenerationDoor(gateway, openai_chat))
    assert COMMENT not in client.body
    assert gateway.timers.silent is not None
    assert not gateway.timers.silent._waiting


async def test_a_whole_answer_is_waited_for_in_silence(bench: Bench) -> None:
    gateway = gateway_of(bench)
    bench.scripts["a"] = [quiet_step(Time(gateway), ANSWER, 3)]
    client = await Client(BODY).call(GenerationDoor(gateway, openai_chat))
    assert client.body == ANSWER.body


async def test_0_is_never(bench: Bench) -> None:
    gateway = gateway_of(bench, 0)
    bench.scripts["a"] = [quiet_step(Time(gateway), Stream(b"data: 1\n\n"), 3)]
    client = await Client(STREAMED).call(GenerationDoor(gateway, openai_chat))
    assert client.body == b"data: 1\n\n" + b"data: [DONE]\n\n"


async def test_a_client_that_does_not_read_is_told_once(bench: Bench) -> None:
    gateway, go = gateway_of(bench), asyncio.Event()
    time = Time(gateway)
    client = Client(STREAMED)

    async def stuck(message: dict[str, Any]) -> None:
        if message.get("body") == COMMENT:
            await go.wait()
        client.sent.append(message)

    async def step() -> Any:
        await time.silence(3)
        go.set()
        return Stream(b"data: 1\n\n")

    bench.scripts["a"] = [step]
    await GenerationDoor(gateway, openai_chat)(client.scope, client.receive, stuck)
    assert client.body == COMMENT + b"data: 1\n\n" + b"data: [DONE]\n\n"


@pytest.mark.parametrize("end", [b"", ProviderNonsense("The stream broke off.")])
async def test_nothing_is_said_after_the_end(bench: Bench, end: Any) -> None:
    gateway, go = gateway_of(bench), asyncio.Event()
    time = Time(gateway)
    client = Client(STREAMED)

    async def slow(message: dict[str, Any]) -> None:
        if message.get("body") == COMMENT:
            await go.wait()
        client.sent.append(message)

    async def step() -> Any:
        await time.silence()
        asyncio.get_running_loop().call_later(0.01, go.set)
        if isinstance(end, Exception):
            raise end
        return end

    bench.scripts["a"] = [Stream(b"data: 1\n\n", step)]
    await GenerationDoor(gateway, openai_chat)(client.scope, client.receive, slow)
    assert client.body.startswith(b"data: 1\n\n" + COMMENT + b"data: ")
    assert client.complete


async def test_it_comes_after_its_time(bench: Bench) -> None:
    """By the timers themselves: nothing sooner than asked for."""
    gateway = gateway_of(bench, 0.2)
    loop = asyncio.get_running_loop()
    said: list[float] = []
    client = Client(STREAMED)

    async def send(message: dict[str, Any]) -> None:
        client.sent.append(message)
        if message.get("body") == COMMENT:
            said.append(loop.time())
            if len(said) == 2:
                enough.set()

    enough = asyncio.Event()

    async def step() -> Any:
        await enough.wait()
        return Stream(b"data: 1\n\n")

    bench.scripts["a"] = [step]
    began = loop.time()
    await GenerationDoor(gateway, openai_chat)(client.scope, client.receive, send)
    assert said[0] - began >= 0.2
    assert said[1] - said[0] >= 0.2


async def test_a_client_that_leaves_while_it_is_kept_alive_ends_the_call(bench: Bench) -> None:
    gateway, started = gateway_of(bench), asyncio.Event()
    time = Time(gateway)

    async def never() -> Any:
        await time.silence()
        started.set()
        await asyncio.Event().wait()

    bench.scripts["a"] = [never]
    client = Client(STREAMED)
    call = asyncio.create_task(client.call(GenerationDoor(gateway, openai_chat)))
    await started.wait()
    client.left.set()
    await call
    assert bench.sink.of(RequestEnded)[0].status_code == 499
    assert bench.settled_in_full()


async def test_a_kept_answer_is_the_same_with_its_comments(bench: Bench) -> None:
    gateway = gateway_of(bench)
    bench.scripts["a"] = [quiet_step(Time(gateway), Stream(b"data: 1\n\n"))]
    door = GenerationDoor(gateway, openai_chat)
    first, second = await keyed(body=STREAMED).call(door), await keyed(body=STREAMED).call(door)
    assert first.body == second.body == COMMENT + b"data: 1\n\n" + b"data: [DONE]\n\n"


# The official SDKs --------------------------------------------------------------------------------------------------


def chunk(text: str) -> bytes:
    return (
        b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"%s"},'
        b'"finish_reason":null}]}\n\n' % text.encode()
    )


async def test_openais_sdk_reads_over_comments_and_finds_the_error(bench: Bench) -> None:
    gateway = gateway_of(bench)
    time = Time(gateway)
    door = GenerationDoor(gateway, openai_chat)
    bench.scripts["a"] = [
        quiet_step(time, Stream(chunk("a"), quiet_step(time, chunk("b"), 2))),
        quiet_step(time, Stream(chunk("a"), quiet_step(time, ProviderNonsense("The stream broke off.")))),
        quiet_step(time, ProviderNonsense("HTML")),
    ]
    bench.scripts["b"] = [ProviderNonsense("HTML")] * 3

    async def read() -> str:
        stream = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in stream])

    transport = httpx2.ASGITransport(app=door)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(api_key=KEY, base_url="http://gateway/v1", http_client=http, max_retries=0)
        assert await read() == "ab"
        for _ in range(2):
            with pytest.raises(openai.APIError) as caught:
                await read()
            assert caught.value.code == "upstream_invalid_response"


async def test_anthropics_sdk_reads_over_pings(bench: Bench) -> None:
    gateway = gateway_of(bench)
    time = Time(gateway)
    events = [
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m",'
        b'"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":0}}}\n\n',
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}\n\n',
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"output_tokens":1}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]
    bench.scripts["a"] = [quiet_step(time, Stream(events[0], *(quiet_step(time, event) for event in events[1:])))]
    transport = httpx2.ASGITransport(app=GenerationDoor(gateway, anthropic_messages))  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport) as http:
        client = anthropic.AsyncAnthropic(auth_token=KEY, base_url="http://gateway", http_client=http, max_retries=0)
        async with client.messages.stream(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}]) as stream:
            assert (await stream.get_final_message()).content[0].text == "hi"  # type: ignore[union-attr]


async def test_the_timer_may_come_just_when_something_has_been_said() -> None:
    may_speak, said = asyncio.Event(), []

    async def say() -> None:
        await may_speak.wait()
        said.append(1)

    keep_alive = KeepAlive(say, asyncio.get_running_loop().time(), 10.0, timer(10.0))
    keep_alive.overdue()
    settling = asyncio.create_task(keep_alive.settled())
    await asyncio.sleep(0)
    assert keep_alive._saying is not None
    keep_alive._saying.add_done_callback(lambda _: keep_alive.overdue())
    may_speak.set()
    await settling
    assert (said, keep_alive.busy) == ([1, 1], False)
    keep_alive.abort()


async def test_an_error_whose_client_does_not_read_is_followed_by_nothing(bench: Bench) -> None:
    """Answers of earlier requests on the same connection may hold up the head of this one for longer than the interval."""
    gateway = gateway_of(bench)
    bench.scripts["a"] = bench.scripts["b"] = [ProviderNonsense("HTML")] * 3
    client, time, asked = Client(STREAMED), Time(gateway), []
    take = client.send

    async def held_up(message: Any) -> None:
        asked.append(message["type"])
        if len(asked) == 1:
            await time.silence(2)
        await take(message)

    client.send = held_up  # type: ignore[method-assign]
    await client.call(GenerationDoor(gateway, openai_chat))
    assert asked == ["http.response.start", "http.response.body"]
    assert client.status == 502


async def test_a_client_that_leaves_while_it_is_told_of_a_failure_changes_nothing_any_more(bench: Bench) -> None:
    gateway = gateway_of(bench)

    async def late() -> Any:
        await Time(gateway).silence()  # from here on the client is watched
        raise ProviderNonsense("HTML")

    bench.scripts["a"] = bench.scripts["b"] = [late] * 3
    client = Client()
    take = client.send

    async def held_up(message: Any) -> None:
        client.left.set()
        for _ in range(5):
            await asyncio.sleep(0)
        await take(message)

    client.send = held_up  # type: ignore[method-assign]
    await client.call(GenerationDoor(gateway, openai_chat))
    assert (client.status, client.complete) == (502, True)
    assert bench.settled_in_full()


@pytest.mark.parametrize("leaves", [True, False], ids=["the client leaves", "the client stays"])
async def test_a_stream_that_took_its_time_is_freed_at_once_and_not_by_the_collector(bench: Bench, leaves: bool) -> None:
    gateway = gateway_of(bench)
    held: list[weakref.ref[Client]] = []

    async def late() -> bytes:
        await Time(gateway).silence()  # from here on there are a watch and a keep-alive
        if leaves:
            held[0]().left.set()  # type: ignore[union-attr]
            await asyncio.Event().wait()
        return b"data: 2\n\n"

    bench.scripts["a"] = [Stream(b"data: 1\n\n", late)]

    async def ask() -> None:
        client = Client(STREAMED)
        held.append(weakref.ref(client))
        await client.call(GenerationDoor(gateway, openai_chat))

    gc.collect()
    gc.disable()
    try:
        await asyncio.create_task(ask())
        for _ in range(5):  # what was cancelled ends
            await asyncio.sleep(0)
        assert held[0]() is None
    finally:
        gc.enable()
