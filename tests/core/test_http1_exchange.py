"""Whole exchanges over real sockets, reuse, cancellation, bounds on memory, uploads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core import errors, http1_connection
from tests.adapters.cast import quick
from tests.core.raw_server import HI, LOOPS, OK, RawServer, on


@LOOPS
def test_calls_one_after_the_other_share_a_connection(loop: Any) -> None:
    async def scenario() -> None:
        chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        async with RawServer(HI, chunked, HI, OK + b"Content-Length: 0\r\n\r\n", HI) as server:
            for expected in (b"hi", b"hi", b"hi", b"", b"hi"):
                response = await server.post(b'{"a": 1}')
                assert await response.read(10) == expected
                response.close()
            assert len(server.connections) == 1
            assert server.requests[0].startswith(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)
            assert server.requests[0].endswith(b'\r\nContent-Length: 8\r\n\r\n{"a": 1}')

    on(loop, scenario())


@LOOPS
@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", OK + b"Connection: close\r\n\r\n"])
def test_an_answer_may_end_with_its_connection(loop: Any, head: bytes) -> None:
    async def scenario() -> None:
        async with RawServer(head + b"hello" * 100_000, close=True) as server:
            for _ in range(2):
                assert await (await server.get()).read(10**6) == b"hello" * 100_000
            assert len(server.connections) == 2

    on(loop, scenario())


@LOOPS
def test_an_answer_that_is_cut_short_is_unreachable(loop: Any) -> None:
    async def scenario() -> None:
        async with RawServer(OK + b"Content-Length: 100\r\n\r\nhello", close=True) as server:
            with pytest.raises(errors.ProviderUnreachable, match="broke before its answer was complete"):
                await (await server.get()).read(100)

    on(loop, scenario())


async def test_an_answer_that_was_not_read_to_its_end_costs_the_connection() -> None:
    async with RawServer(OK + b"Content-Length: 3\r\n\r\nhi", HI) as server:
        (await server.get()).close()
        assert await (await server.get()).read(2) == b"hi"
        assert len(server.connections) == 2


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    async with RawServer(HI) as server:
        for _ in range(2):
            assert await (await server.post(b"")).read(2) == b"hi"
            server.connections[-1].close()
            await server.until(lambda: not server.transport._pool._open)
        assert len(server.connections) == 2


async def test_the_socket_itself_is_asked_after_a_while() -> None:
    async with RawServer(HI) as server:
        assert await (await server.get()).read(2) == b"hi"
        pool = server.transport._pool
        (connection,) = pool._open
        now = asyncio.get_running_loop().time()
        assert connection.usable(now + 10)
        connection._transport.pause_reading()  # the loop learns nothing from here on
        server.connections[0].write(b"x")
        await server.until(lambda: not connection.usable(now + 10))
        assert connection.usable(now)
        connection._transport.resume_reading()


async def test_what_can_be_asked_twice_is_asked_again_when_an_idle_connection_dies() -> None:
    async with RawServer(HI, None, HI, None) as server:
        for _ in range(2):
            assert await (await server.get()).read(2) == b"hi"
        assert len(server.connections) == 2
        with pytest.raises(errors.ProviderUnreachable, match="broke"):  # once, not for ever
            await server.get()
        assert len(server.connections) == 3


async def test_a_generation_is_never_asked_for_twice() -> None:
    async with RawServer(HI, None, HI) as server:
        assert await (await server.post(b"{}")).read(2) == b"hi"
        with pytest.raises(errors.ProviderUnreachable, match="broke"):
            await server.post(b"{}")
        assert len(server.requests) == 2


async def test_an_answer_that_has_begun_is_not_asked_for_twice() -> None:
    async with RawServer(HI, b"HTTP/1.1 200", HI) as server:
        assert await (await server.get()).read(2) == b"hi"
        waiting = asyncio.ensure_future(server.get())
        await server.until(lambda: len(server.requests) == 2)
        server.connections[0].close()
        with pytest.raises(errors.ProviderUnreachable, match="broke"):
            await waiting


async def test_a_new_connection_that_dies_is_not_tried_again() -> None:
    async with RawServer(b"", close=True) as server:
        with pytest.raises(errors.ProviderUnreachable, match="broke"):
            await server.get()
        assert len(server.connections) == 1


async def test_a_cancelled_call_takes_its_connection_with_it() -> None:
    async with RawServer(b"", OK + b"Content-Length: 3\r\n\r\nhi", HI) as server:
        waiting = asyncio.ensure_future(server.get())
        await server.until(lambda: server.requests)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        response = await server.get()
        assert await response.next_chunk() == b"hi"
        reading = asyncio.ensure_future(response.next_chunk())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not server.transport._pool._open
        assert await (await server.get()).read(2) == b"hi"
        assert len(server.connections) == 3


async def test_cancelled_after_its_answer_came_a_call_leaves_the_connection_to_the_next() -> None:
    async with RawServer(HI, b"", HI) as server:
        assert await (await server.get()).read(2) == b"hi"
        first = asyncio.ensure_future(server.get())
        await server.until(lambda: len(server.requests) == 2)
        (connection,) = server.transport._pool._open
        connection.data_received(HI)  # whole, and the connection is free at once
        second = server.transport._pool.take(connection.origin)
        assert second is connection
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not connection.gone


async def test_waiting_for_the_pool_counts_as_connecting() -> None:
    async with RawServer(OK + b"Content-Length: 3\r\n\r\nhi", max_per_host=1) as server:
        response = await server.get()
        with pytest.raises(errors.ProviderTimeout, match=r"No connection to the provider within 0\.05 seconds"):
            await server.get(quick(connect_s=0.05))
        response.close()
        (await server.get(quick(connect_s=2))).close()


@LOOPS
def test_a_slow_reader_does_not_fill_the_memory(loop: Any) -> None:
    async def scenario() -> None:
        size = 30 * 2**20
        async with RawServer(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size) as server:
            response = await server.get()
            for _ in range(50):
                await asyncio.sleep(0.001)
            most = received = 0
            while data := await response.next_chunk():
                most, received = max(most, len(data)), received + len(data)
                await asyncio.sleep(0)
            assert received == size
            assert most <= http1_connection.MAX_BUFFERED_BYTES

    on(loop, scenario())


@LOOPS
def test_a_large_body_arrives_whole(loop: Any) -> None:
    async def scenario() -> None:
        body = bytes(range(256)) * 2**15  # 8 MiB
        async with RawServer(HI) as server:
            for _ in range(2):
                assert await (await server.post(body, quick(first_byte_s=20, total_s=20))).read(2) == b"hi"
            assert [request[-len(body) :] == body for request in server.requests] == [True, True]
            assert len(server.connections) == 1

    on(loop, scenario())


@LOOPS
def test_an_answer_before_the_end_of_the_upload_is_the_answer(loop: Any) -> None:
    async def scenario() -> None:
        async with RawServer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno", early=True) as server:
            response = await server.post(b"x" * (64 * 2**20), quick(first_byte_s=20, total_s=20))
            assert (response.status, await response.read(10)) == (413, b"no")
            assert not server.transport._pool._open

    on(loop, scenario())


async def test_an_answer_that_turns_out_to_be_malformed_stays_so() -> None:
    async with RawServer(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n") as server:
        response = await server.get()
        for _ in range(2):
            with pytest.raises(errors.ProviderNonsense, match="not valid HTTP"):
                await response.next_chunk()
        assert not server.transport._pool._open


async def test_many_calls_at_once_stay_within_the_limit_and_get_their_own_answers() -> None:
    async with RawServer(HI, max_per_host=3) as server:

        async def one() -> bytes:
            return await (await server.get()).read(10)

        assert await asyncio.gather(*(one() for _ in range(50))) == [b"hi"] * 50
        assert len(server.connections) == 3


async def test_a_name_is_asked_for_once_by_all_who_want_it_and_then_kept() -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        await asyncio.sleep(0)
        return ["127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        call = server.call(host="vendor.test")
        responses = await asyncio.gather(*(server.transport.open(call, quick()) for _ in range(5)))
        assert [await response.read(2) for response in responses] == [b"hi"] * 5
        assert asked == ["vendor.test"]
        assert b"Host: vendor.test:%d\r\n" % server.port in server.requests[0]


async def test_who_gives_up_waiting_for_a_name_does_not_take_it_from_the_others() -> None:
    answered = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        await answered.wait()
        return ["127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        call = server.call(host="vendor.test")
        first, second = (asyncio.ensure_future(server.transport.open(call, quick())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        answered.set()
        assert await (await second).read(2) == b"hi"
        assert first.cancelled()


async def test_a_name_that_was_not_found_is_asked_for_again() -> None:
    answers = [OSError("not yet"), None]

    async def resolve(host: str, port: int) -> list[str]:
        if error := answers.pop(0):
            raise error
        return ["127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        call = server.call(host="vendor.test")
        with pytest.raises(errors.ProviderUnreachable, match="does not resolve"):
            await server.transport.open(call, quick())
        assert await (await server.transport.open(call, quick())).read(2) == b"hi"


async def test_an_address_that_does_not_answer_is_followed_by_the_next() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.3", "127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        assert await (await server.transport.open(server.call(host="vendor.test"), quick())).read(2) == b"hi"
