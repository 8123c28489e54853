"""What a connection leaves behind."""

from __future__ import annotations

import asyncio
import gc

from core.http1 import Chunks
from tests.core.raw_server import OK, RawServer

BEGUN = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"


async def test_a_stream_that_is_cut_is_freed_at_once_and_not_by_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with RawServer(BEGUN) as server:
            response = await server.post(b"{}")
            assert await response.next_chunk() == b"hi"
            response.close()
            del response
            await asyncio.sleep(0)
        assert [each for each in gc.get_objects() if isinstance(each, Chunks)] == []
    finally:
        gc.enable()
