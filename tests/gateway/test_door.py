"""The HTTP door, driven as an ASGI server drives it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from core.errors import ProviderFault, ProviderLacksModel, ProviderNonsense, ProviderRejectedOurKey
from gateway.doors import openai_chat
from gateway.doors.http import Gateway, GenerationDoor
from monitoring.journal import AttemptOpened, AttemptSettled, RequestEnded
from tests.gateway.scripted import ANSWER, KEY, Bench, Stream

BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
STREAMED = BODY[:-1] + b',"stream":true}'
AUTH = (b"authorization", b"Bearer " + KEY.encode())


class Client:
    """`frames` are what the server hands the application; then it stays connected until `leave`."""

    def __init__(self, body: bytes = BODY, *, headers: tuple = (AUTH,), method: str = "POST", query: bytes = b"", parts: int = 1) -> None:
        self.scope = {"type": "http", "method": method, "headers": list(headers), "query_string": query, "path": "/v1/chat/completions"}
        size = max(1, -(-len(body) // parts))
        chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        self.frames = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        self.frames[-1]["more_body"] = False
        self.left = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.frames:
            return self.frames.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def call(self, door: GenerationDoor) -> Client:
        await door(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def error(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)["error"]

    @property
    def complete(self) -> bool:
        return not self.sent[-1].get("more_body")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_an_answer_and_its_headers(bench: Bench) -> None:
    bench.scripts["a"] = [ANSWER]
    client = await Client().call(bench.door)
    assert (client.status, client.body) == (200, ANSWER.body)
    expected = {
        b"x-llm-provider": b"a",
        b"x-llm-model": b"vendor-a",
        b"x-llm-alias": b"m",
        b"x-llm-config-version": b"7",
        b"x-llm-cost": b"0.00002 USD",
    }
    assert expected.items() <= client.headers.items()
    assert client.headers[b"x-request-id"].startswith(b"req_")
    assert client.headers[b"content-length"] == b"%d" % len(ANSWER.body)


async def test_the_books_are_closed_before_the_last_byte(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"data: 1\n\n")]
    client = Client(STREAMED)
    settled_when: dict[bytes, int] = {}

    async def send(message: dict[str, Any]) -> None:
        settled_when[message.get("body", b"")] = len(bench.sink.of(AttemptSettled))
        client.sent.append(message)

    await bench.door(client.scope, client.receive, send)
    assert settled_when[b"data: 1\n\n"] == 0
    assert settled_when[b"data: [DONE]\n\n"] == 1
    assert client.body == b"data: 1\n\n" + b"data: [DONE]\n\n"
    assert client.headers[b"content-type"].startswith(b"text/event-stream")
    assert client.complete


async def test_a_stream_that_breaks_ends_in_an_error_and_never_in_done(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"data: 1\n\n", ProviderNonsense("The vendor's stream broke off."))]
    client = await Client(STREAMED).call(bench.door)
    assert client.status == 200
    assert b"[DONE]" not in client.body
    assert client.body.startswith(b"data: 1\n\ndata: {")
    assert b'"code":"upstream_invalid_response"' in client.body
    assert client.complete


async def test_before_the_first_content_an_error_has_a_true_status(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(ProviderNonsense("HTML"))]
    bench.scripts["b"] = [Stream(ProviderNonsense("HTML")), Stream(ProviderNonsense("HTML"))]
    client = await Client(STREAMED).call(bench.door)
    assert client.status == 502
    assert client.error["code"] == "upstream_invalid_response"


async def test_a_client_that_leaves_ends_the_vendor_call(bench: Bench) -> None:
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def never() -> bytes:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()
        return b""

    bench.scripts["a"] = [Stream(b"data: 1\n\n", never)]
    client = Client(STREAMED)
    call = asyncio.create_task(client.call(bench.door))
    await waiting.wait()
    client.left.set()
    await call
    assert closed.is_set()
    assert [record.status for record in bench.sink.of(AttemptSettled)] == ["client_closed"]
    assert bench.sink.of(RequestEnded)[0].status_code == 499
    assert bench.settled_in_full()


async def gone_while(bench: Bench, in_the_way: Any) -> None:
    """Calls, leaves while the request has got as far as `in_the_way`, and waits until it is over."""
    client = Client()
    call = asyncio.create_task(client.call(bench.door))
    for _ in range(50):
        await asyncio.sleep(0)
    assert in_the_way()
    client.left.set()
    await call
    assert not client.sent
    assert bench.sink.of(RequestEnded)[0].status_code == 499


async def test_a_client_that_leaves_during_a_back_off_starts_no_other_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.retry.backoff_s", lambda *_: 1.9)
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models={"m": bench.snapshot.models["m"][:1]}))
    bench.scripts["a"] = [ProviderFault("503"), ANSWER]
    await gone_while(bench, lambda: bench.sink.of(AttemptSettled))
    assert (len(bench.sink.of(AttemptOpened)), len(bench.scripts["a"])) == (1, 1)
    assert bench.settled_in_full()


async def test_a_client_that_leaves_while_it_waits_for_a_slot_starts_no_call(bench: Bench) -> None:
    models = {"m": bench.snapshot.models["m"][:1]}
    providers = {"a": bench.provider("a", max_concurrency=1), "b": bench.provider("b")}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, models=models, providers=providers))
    bench.scripts["a"] = [ANSWER]
    slots = bench.manager._runtimes["a"].slots
    assert slots.try_take()
    await gone_while(bench, lambda: slots._waiting)
    slots.release()
    assert not bench.sink.of(AttemptOpened)
    assert slots.in_flight == 0


async def test_a_server_that_goes_down_settles_what_it_cuts(bench: Bench) -> None:
    started = asyncio.Event()

    async def never() -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    bench.scripts["a"] = [Stream(b"data: 1\n\n", never)]
    call = asyncio.create_task(Client(STREAMED).call(bench.door))
    await started.wait()
    call.cancel()
    client = await call
    assert b"server_busy" in client.body
    assert b"[DONE]" not in client.body
    assert [record.error_code for record in bench.sink.of(AttemptSettled)] == ["server_busy"]
    assert bench.settled_in_full()


async def test_a_bug_of_ours_is_an_answer_and_not_a_hang(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.scripts["a"] = []
    client = await Client().call(bench.door)
    assert (client.status, client.error["code"]) == (500, "server_error")
    assert bench.settled_in_full()


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (lambda: Client(headers=()), 401),
        (lambda: Client(headers=((b"authorization", b"Bearer wrong"),)), 401),
        (lambda: Client(query=b"key=x"), 401),
        (lambda: Client(method="GET"), 405),
        (lambda: Client(b"{"), 400),
        (lambda: Client(b"x" * 1001), 413),
        (lambda: Client(b"x" * 5000, parts=50), 413),
        (lambda: Client(headers=(AUTH, (b"content-length", b"100000"))), 413),
        (lambda: Client(BODY.replace(b'"m"', b'"other"')), 404),
    ],
)
async def test_refusals_speak_the_dialect(bench: Bench, client, status: int) -> None:
    refused = await client().call(bench.door)
    assert refused.status == status
    assert set(refused.error) == {"message", "type", "param", "code"}
    assert refused.headers[b"x-request-id"]
    assert bench.settled_in_full()


async def test_a_body_in_many_parts_is_read_whole(bench: Bench) -> None:
    bench.scripts["a"] = [ANSWER]
    assert (await Client(parts=7).call(bench.door)).status == 200


async def test_a_body_that_never_ends_is_a_408(bench: Bench) -> None:
    client = Client()
    client.frames = [{"type": "http.request", "body": b"{", "more_body": True}]
    door = GenerationDoor(Gateway(pepper=b"pepper", max_body_bytes=1000, body_timeout_s=0.01, pipeline=bench.pipeline), openai_chat)
    assert (await client.call(door)).status == 408


async def test_a_client_that_leaves_while_sending_is_not_answered(bench: Bench) -> None:
    client = Client()
    client.frames = [{"type": "http.request", "body": b"{", "more_body": True}]
    client.left.set()
    assert (await client.call(bench.door)).sent == []


async def test_not_ready_is_said_with_a_reason(bench: Bench) -> None:
    door = GenerationDoor(Gateway(pepper=b"", max_body_bytes=1, body_timeout_s=1, not_ready_because="it is early"), openai_chat)
    client = await Client().call(door)
    assert client.status == 503
    assert "it is early" in client.error["message"]
    assert client.headers[b"retry-after"] == b"1"


@pytest.mark.parametrize(("client", "status"), [(lambda: Client(b"{"), 400), (lambda: Client(b"x" * 1001), 413)])
async def test_a_known_caller_finds_its_refusals_in_the_log(bench: Bench, client, status: int) -> None:
    await client().call(bench.door)
    (logged,) = bench.sink.of(RequestEnded)
    assert (logged.status_code, logged.key_id, logged.alias, logged.attempts) == (status, "k", "", 0)


async def test_a_stranger_leaves_no_record(bench: Bench) -> None:
    await Client(headers=()).call(bench.door)
    assert bench.sink.records == []


@pytest.mark.parametrize("error", [ProviderRejectedOurKey("The key is refused."), ProviderLacksModel("No such model there.")])
async def test_what_only_an_administrator_can_mend_tells_sdks_not_to_ask_again(bench: Bench, error: Exception) -> None:
    bench.scripts["a"], bench.scripts["b"] = [error], [error]
    client = await Client().call(bench.door)
    assert (client.status, client.headers[b"x-should-retry"]) == (502, b"false")


async def test_a_failure_that_may_pass_leaves_it_to_the_sdk(bench: Bench) -> None:
    bench.scripts["a"] = bench.scripts["b"] = [ProviderNonsense("?") for _ in range(6)]
    assert b"x-should-retry" not in (await Client().call(bench.door)).headers
