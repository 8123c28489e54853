"""An answer as bytes, for tests that look at what is not part of it: comments, the exact form, more than fits in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from tests.faults.client import request
from tests.faults.loads import new_row
from tests.faults.stage import Stage

_READ_BYTES = 2**18


class Raw(NamedTuple):
    """`body` is without its chunks' frames. `longest_silence_s`: between two reads, the one before the first byte included."""

    status: int
    body: bytes
    longest_silence_s: float


async def read_raw(
    stage: Stage, alias: str, prompt: str = "", *, stream: bool, idle_s: float = 30.0, skim: Callable[[bytes], None] | None = None
) -> Raw:
    """One request. Raises TimeoutError after `idle_s` of silence. With `skim` the body is given to it in its frames, and not kept."""
    loop = asyncio.get_running_loop()
    row = new_row(alias, stream)
    row.prompt = prompt or row.prompt
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.machine.port, limit=_READ_BYTES)
    writer.write(request(row, stage.machine.port, stage.key, {"connection": "close"}, {}))
    read, body, longest_s, since = bytearray(), bytearray(), 0.0, loop.time()
    try:
        while data := await asyncio.wait_for(reader.read(_READ_BYTES), idle_s):
            longest_s, since = max(longest_s, loop.time() - since), loop.time()
            if skim is None or b"\r\n\r\n" not in read:
                read += data
            else:
                skim(data)
    finally:
        writer.transport.abort()
    head, _, rest = bytes(read).partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower() or skim is not None:
        return Raw(int(head.split()[1]), rest, longest_s)
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        rest = rest[length + 2 :]
    return Raw(int(head.split()[1]), bytes(body), longest_s)
