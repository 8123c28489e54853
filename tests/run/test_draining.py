"""SIGTERM: not ready at once, nothing refused that was sent, whatever runs is finished or ended in its own words, and charged."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.run.serving import Served, events
from tests.run.test_workers import serving

pytestmark = pytest.mark.process
MARGIN_S = 20.0  # a third of the grace, or of the stream, that would be waited for otherwise


def test_during_the_delay_it_serves_all_the_same_and_an_idle_connection_is_answered_once_more(serve: Callable[..., Served]):
    served = serve(LLM_DRAIN_DELAY_S="2")
    with closing(served.connect()) as idle:
        idle.request("GET", "/health")
        idle.getresponse().read()
        served.process.terminate()
        served.until(lambda: served.get("/ready") == 503)
        assert served.get("/health") == 200
        with closing(served.connect()) as connection:
            response = served.ask(connection, "quick")
            assert (response.status, response.headers["connection"]) == (200, "close")
            assert events(response.read())[-1] == "[DONE]"
        with served.stream("slow") as stream:  # begins within the delay, ends after it
            served.until(lambda: served.get("/health") == 0)
            idle.request("GET", "/ready")
            response = idle.getresponse()
            assert (response.status, response.headers["connection"]) == (503, "close")
            assert b"shutting down" in response.read()
            assert events(stream.read())[-1] == "[DONE]"
    assert served.process.wait(60) == 0
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_outlasts_the_grace_is_ended_with_an_error_and_charged(serve: Callable[..., Served], workers: str):
    """A stream, and a body that has not come whole."""
    served = serve("--workers", workers, LLM_SHUTDOWN_GRACE_S="1")
    with served.stream("endless") as stream, closing(served.connect()) as sending:
        sending.putrequest("POST", "/v1/chat/completions")
        sending.putheader("Authorization", f"Bearer {served.prepared.api_key}")
        sending.putheader("Content-Length", "100")
        sending.endheaders(b"{")
        began = time.monotonic()
        served.process.terminate()
        refused = sending.getresponse()
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert json.loads(refused.read())["error"]["code"] == "server_busy"
        data = stream.read()
        assert served.process.wait(60) == 0
    assert time.monotonic() - began < 1 + MARGIN_S
    *pieces, last = events(data)
    assert last["error"]["code"] == "server_busy"
    assert "[DONE]" not in pieces
    ended, tokens = served.charged(stream.headers["x-request-id"])
    assert ended == "server_busy"
    sent = sum(bool(piece["choices"][0]["delta"].get("content")) for piece in pieces)
    assert sent <= tokens <= sent + 3  # the first ones came before
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_the_grace(serve: Callable[..., Served], workers: str):
    served = serve("--workers", workers, LLM_SHUTDOWN_GRACE_S="60")
    with served.stream("endless") as stream:
        served.process.terminate()
        served.until(lambda: served.get("/health") == 0)
        began = time.monotonic()
        served.process.terminate()
        assert events(stream.read())[-1]["error"]["code"] == "server_busy"
        assert served.process.wait(60) == 0
    assert time.monotonic() - began < MARGIN_S


def test_a_signal_to_the_whole_group_is_one_signal(serve: Callable[..., Served]):
    """As a terminal's Ctrl-C and a service manager send it: workers get it twice, from there and from their supervisor."""
    served = serve("--workers", "2")
    workers = served.workers()
    with served.stream("slow") as stream:
        for pid in (*workers, served.process.pid):
            os.kill(pid, signal.SIGINT)
        assert events(stream.read())[-1] == "[DONE]"
    assert served.process.wait(60) == 0


def test_a_worker_that_is_told_to_go_finishes_and_is_replaced(serve: Callable[..., Served]):
    served = serve("--workers", "2")
    workers = served.workers()
    with served.stream("slow") as stream:
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        assert events(stream.read())[-1] == "[DONE]"
    served.until(lambda: not workers & served.workers() and len(serving(served)) == 2)


# Sockets ------------------------------------------------------------------------------------------------------------


def socket_of(served: Served) -> Any:
    headers = {"Authorization": f"Bearer {served.prepared.api_key}"}
    return connect(f"ws://127.0.0.1:{served.port}/ws/generate", additional_headers=headers, proxy=None)


async def generate(socket: ClientConnection, model: str) -> None:
    request = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    await socket.send(json.dumps({"type": "generate", "id": "a", "request": request}))
    await socket.recv()


async def rest_of(socket: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """(frames, close code)."""
    frames: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(10):
            while True:
                frames.append(json.loads(await socket.recv()))
    except ConnectionClosed:
        return frames, socket.close_code


async def test_a_socket_finishes_what_runs_and_is_closed(serve: Callable[..., Served]):
    served = serve()
    async with socket_of(served) as busy, socket_of(served) as idle:
        await generate(busy, "slow")
        served.process.terminate()
        assert await rest_of(idle) == ([], 1012)
        frames, code = await rest_of(busy)
    assert (frames[-1]["type"], code) == ("done", 1012)
    assert await asyncio.to_thread(served.process.wait, 5) == 0
    assert "Traceback" not in served.log.read_text()


async def test_a_socket_that_outlasts_the_grace_is_told(serve: Callable[..., Served]):
    served = serve(LLM_SHUTDOWN_GRACE_S="1")
    async with socket_of(served) as socket:
        await generate(socket, "endless")
        served.process.terminate()
        frames, code = await rest_of(socket)
    assert (frames[-1]["type"], frames[-1]["error"]["code"], code) == ("error", "server_busy", 1012)
    assert await asyncio.to_thread(served.process.wait, 5) == 0
    log = served.log.read_text()
    assert "Traceback" not in log
