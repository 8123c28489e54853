"""What a connection leaves behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from core.errors import ProviderNonsense
from core.http1 import Chunks
from core.http1_connection import Answer
from tests.core.raw_server import OK, RawServer

BEGUN = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(kind: type) -> list[object]:
    # By `type`: `isinstance` asks a proxy of something that is gone, which others may have left, for its class, and that raises.
    return [each for each in gc.get_objects() if issubclass(type(each), kind)]


async def test_a_stream_that_is_cut_is_freed_at_once_and_not_by_the_collector() -> None:
    async with RawServer(BEGUN) as server:
        response = await server.post(b"{}")
        assert await response.next_chunk() == b"hi"
        response.close()
        del response
        await asyncio.sleep(0)
    assert alive(Chunks) == []


@pytest.mark.parametrize(
    "answer",
    [OK + b"X: " + b"x" * 300_000, b"no HTTP", BEGUN + b"no length\r\n", BEGUN + b"9" * 300_000, OK + b"Content-Length: 2, 3\r\n\r\nhi"],
    ids=["a head without end", "no head", "no chunk", "a length without end", "two lengths"],
)
async def test_nonsense_is_freed_at_once_and_not_by_the_collector(answer: bytes) -> None:
    async with RawServer(answer) as server:
        try:
            response = await server.post(b"{}")
            while await response.next_chunk():
                pass
        except ProviderNonsense as error:
            error.__traceback__ = None
        else:
            raise AssertionError("that was taken for an answer")
        await asyncio.sleep(0)
        response = None
        assert alive(Answer) == []
