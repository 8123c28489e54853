"""WS /ws/generate with an ordinary client: several generations at once, and each one's end is its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.control import ECHO, Control, unique, until
from tests.e2e.vendor import Vendor
from tests.e2e.wire import ERROR_KEYS, HELLO, asking

pytestmark = pytest.mark.process

Frames = list[dict[str, Any]]
ENDS = ("done", "error")


@asynccontextmanager
async def socket(control: Control, key: str | None = "", **headers: str) -> AsyncIterator[ClientConnection]:
    """`key` "" = the key that may do everything, None = no header."""
    sent = dict(headers)
    if key is not None:
        sent["Authorization"] = f"Bearer {key or control.key}"
    url = control.base_url.replace("http", "ws", 1) + "/ws/generate"
    async with connect(url, additional_headers=sent, proxy=None, open_timeout=10) as connection:
        yield connection


async def say(connection: ClientConnection, **value: Any) -> None:
    await connection.send(json.dumps(value))


async def hear(connection: ClientConnection, until_: Callable[[Frames], bool]) -> Frames:
    frames: Frames = []
    async with asyncio.timeout(10):
        while not until_(frames):
            frames.append(json.loads(await connection.recv()))
    return frames


def ended(*ids: str) -> Callable[[Frames], bool]:
    return lambda frames: {frame["id"] for frame in frames if frame["type"] in ENDS} >= set(ids)


def of(frames: Frames, id_: str) -> Frames:
    return [frame for frame in frames if frame["id"] == id_]


def text(frames: Frames) -> str:
    return "".join(frame["text"] for frame in frames if frame["type"] == "delta")


@pytest.fixture(scope="module")
def slow(control: Control, vendor: Vendor) -> str:
    """A model that takes its time: 200 tokens, 20 ms apart."""
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=200,delay=0.02")["alias"]
    control.apply()
    return alias


@pytest.fixture(scope="module")
def brisk(control: Control, vendor: Vendor) -> str:
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=20,delay=0.01")["alias"]
    control.apply()
    return alias


def request(model: str = ECHO, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, **fields}


async def test_a_generation_ends_with_usage_and_done(control: Control) -> None:
    async with socket(control) as connection:
        await say(connection, type="generate", id="1", request=request())
        frames = await hear(connection, ended("1"))
    assert {frame["id"] for frame in frames} == {"1"}
    kinds = [frame["type"] for frame in frames]
    assert kinds[-2:] == ["usage", "done"]
    assert set(kinds[:-2]) == {"delta"}
    assert text(frames)
    done, usage = frames[-1], frames[-2]["usage"]
    assert (done["finish_reason"], bool(done["model"]), bool(done["provider"])) == ("stop", True, True)
    (record,) = control.records(done["request_id"])
    assert (record["status"], record["output_tokens"]) == ("ok", usage["completion_tokens"])


async def test_the_key_may_come_in_the_first_frame(control: Control) -> None:
    async with socket(control, key=None) as connection:
        await say(connection, type="auth", key=control.key)
        await say(connection, type="generate", id="1", request=request())
        assert (await hear(connection, ended("1")))[-1]["type"] == "done"


async def test_without_a_key_nothing_is_generated(control: Control) -> None:
    async with socket(control, key=None) as connection:
        await say(connection, type="generate", id="1", request=request())
        (frame,) = await hear(connection, ended("1"))
        assert (frame["type"], frame["error"]["code"]) == ("error", "invalid_api_key")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4401


async def test_a_wrong_key_in_the_first_frame_closes_the_socket(control: Control) -> None:
    async with socket(control, key=None) as connection:
        await say(connection, type="auth", key="sk-llmc-wrong")
        assert json.loads(await connection.recv())["error"]["code"] == "invalid_api_key"
        with pytest.raises(ConnectionClosed):
            await connection.recv()


async def test_a_wrong_key_in_the_header_is_refused_before_the_socket_opens(control: Control) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with socket(control, key="sk-llmc-wrong"):
            pass
    assert caught.value.response.status_code == 403


async def test_a_key_in_the_url_is_refused(control: Control) -> None:
    url = control.base_url.replace("http", "ws", 1) + f"/ws/generate?key={control.key}"
    with pytest.raises(InvalidStatus):
        async with connect(url, proxy=None):
            pass


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_foreign_origin_is_refused(control: Control, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with socket(control, Origin=origin):
            pass
    assert caught.value.response.status_code == 403


async def test_the_own_origin_is_welcome(control: Control) -> None:
    async with socket(control, Origin=control.base_url) as connection:
        await say(connection, type="generate", id="1", request=request())
        assert (await hear(connection, ended("1")))[-1]["type"] == "done"


async def test_an_unknown_socket_is_refused(control: Control) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(control.base_url.replace("http", "ws", 1) + "/ws/other", proxy=None):
            pass
    assert caught.value.response.status_code == 403


async def test_generations_run_at_once_and_do_not_mix(control: Control, brisk: str) -> None:
    ids = ["a", "b", "c", "d"]
    async with socket(control) as connection:
        for id_ in ids:
            await say(connection, type="generate", id=id_, request=request(brisk))
        frames = await hear(connection, ended(*ids))
    for id_ in ids:
        assert of(frames, id_)[-1]["type"] == "done"
    assert len({text(of(frames, id_)) for id_ in ids}) == 1
    first_end = next(index for index, frame in enumerate(frames) if frame["type"] == "done")
    assert {frame["id"] for frame in frames[:first_end]} == set(ids), "one after the other"
    assert len({of(frames, id_)[-1]["request_id"] for id_ in ids}) == 4


async def test_cancelling_one_stops_its_vendor_call_and_no_other(control: Control, vendor: Vendor, slow: str, brisk: str) -> None:
    mark = unique("cancelled")
    async with socket(control) as connection:
        await say(connection, type="generate", id="slow", request=request(slow, messages=asking(mark)))
        await hear(connection, lambda frames: any(frame["type"] == "delta" and frame["text"] for frame in frames))
        await say(connection, type="generate", id="brisk", request=request(brisk))
        await say(connection, type="cancel", id="slow")
        frames = await hear(connection, ended("slow", "brisk"))
    assert of(frames, "brisk")[-1]["type"] == "done"
    last = of(frames, "slow")[-1]
    assert (last["type"], last["error"]["code"]) == ("error", "client_closed_request")
    until(lambda: vendor.was_left(mark), "the vendor is left")


async def test_leaving_stops_everything_that_runs_on_the_socket(control: Control, vendor: Vendor, slow: str) -> None:
    marks = [unique("left"), unique("left")]
    async with socket(control) as connection:
        for mark in marks:
            await say(connection, type="generate", id=mark, request=request(slow, messages=asking(mark)))
        await hear(connection, lambda frames: {frame["id"] for frame in frames if frame.get("text")} == set(marks))
    for mark in marks:
        until(lambda mark=mark: vendor.was_left(mark), "the vendor is left")


async def test_an_id_may_be_used_again_only_when_its_generation_has_ended(control: Control, brisk: str) -> None:
    async with socket(control) as connection:
        await say(connection, type="generate", id="1", request=request(brisk))
        await say(connection, type="generate", id="1", request=request(brisk))
        (refusal,) = [frame for frame in await hear(connection, ended("1")) if frame["type"] == "error"]
        assert (refusal["id"], refusal["error"]["param"]) == ("1", "id")
        done = await hear(connection, lambda frames: any(frame["type"] == "done" for frame in frames))
        assert text(done)
        await say(connection, type="generate", id="1", request=request(brisk))
        assert (await hear(connection, ended("1")))[-1]["type"] == "done"


@pytest.mark.parametrize(
    ("frame", "param", "code"),
    [
        ({"type": "generate", "request": {"model": ECHO, "messages": HELLO}}, "id", "invalid_request"),
        ({"type": "generate", "id": "1"}, None, "invalid_request"),
        ({"type": "generate", "id": "1", "request": {"model": ECHO}}, "messages", "invalid_request"),
        ({"type": "generate", "id": "1", "request": {"model": ECHO, "messages": HELLO, "n": 0}}, "n", "invalid_request"),
        ({"type": "generate", "id": "1", "request": {"model": "no-such-model", "messages": HELLO}}, "model", "model_not_found"),
        ({"type": "generate", "id": "1", "request": "hi"}, None, "invalid_request"),
        ({"type": "cancel", "id": "none"}, "id", "invalid_request"),
        ({"type": "sing", "id": "1"}, "type", "invalid_request"),
    ],
)
async def test_a_mistake_is_an_error_frame_and_the_socket_goes_on(
    control: Control, frame: dict[str, Any], param: str | None, code: str
) -> None:
    async with socket(control) as connection:
        await connection.send(json.dumps(frame))
        said = json.loads(await connection.recv())
        assert said["type"] == "error"
        assert said["id"] == frame.get("id", "")
        assert set(said["error"]) == ERROR_KEYS
        assert (said["error"]["param"], said["error"]["code"]) == (param, code)
        await say(connection, type="generate", id="after", request=request())
        assert (await hear(connection, ended("after")))[-1]["type"] == "done"


@pytest.mark.parametrize("frame", ["not json", "[]", '"hi"', "{}", '{"type": 5}', "[" * 100_000, b"\xff\x00"])
async def test_a_frame_that_is_none_is_answered_and_the_socket_closed(control: Control, frame: str | bytes) -> None:
    async with socket(control) as connection:
        await connection.send(frame)
        assert json.loads(await connection.recv())["error"]["code"] == "invalid_request"
        with pytest.raises(ConnectionClosed):
            await connection.recv()


@pytest.mark.parametrize("model", ["fault-500", "fault-garbage-json", "fault-no-done", "fault-error-midstream", "fault-reset-midstream"])
async def test_a_vendors_failure_is_an_error_frame_and_never_done(control: Control, vendor: Vendor, model: str) -> None:
    alias = control.model(control.provider(vendor.base_url), model)["alias"]
    control.apply()
    async with socket(control) as connection:
        await say(connection, type="generate", id="1", request=request(alias))
        frames = await hear(connection, ended("1"))
        assert frames[-1]["type"] == "error"
        assert set(frames[-1]["error"]) == ERROR_KEYS
        assert [frame for frame in frames if frame["type"] == "done"] == []


async def test_a_revoked_key_ends_here_too(control: Control) -> None:
    key = control.new_key()
    control.apply()
    async with socket(control, key=key["key"]) as connection:
        await say(connection, type="generate", id="1", request=request())
        assert (await hear(connection, ended("1")))[-1]["type"] == "done"
        control.call("DELETE", f"/api/v1/llm/keys/{key['id']}")
        until(lambda: control.forgot(key["key"]), "the revoked key is refused")
        await say(connection, type="generate", id="2", request=request())
        (frame,) = await hear(connection, ended("2"))
        assert (frame["type"], frame["error"]["code"]) == ("error", "invalid_api_key")
        with pytest.raises(ConnectionClosed):
            await connection.recv()


async def test_the_callers_limit_counts_generations(control: Control, slow: str) -> None:
    key = control.new_key(rate_limit={"max_concurrency": 1})["key"]
    control.apply()
    async with socket(control, key=key) as connection:
        await say(connection, type="generate", id="1", request=request(slow))
        await hear(connection, lambda frames: any(frame.get("text") for frame in frames))
        await say(connection, type="generate", id="2", request=request())
        frames = await hear(connection, ended("2"))
        assert of(frames, "2")[-1]["error"]["code"] == "rate_limit_exceeded"
        await say(connection, type="cancel", id="1")
        await hear(connection, ended("1"))
        await say(connection, type="generate", id="3", request=request())
        assert (await hear(connection, ended("3")))[-1]["type"] == "done"
