"""Compressed answers over real sockets, from vendors that were asked for none."""

from __future__ import annotations

import gzip
import zlib

import pytest

from core import errors
from tests.core.raw_server import OK, RawServer


def packed(coding: str, data: bytes) -> bytes:
    match coding:
        case "gzip" | "x-gzip":
            return gzip.compress(data)
        case "deflate":
            return zlib.compress(data)
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "Deflate"])
async def test_a_compressed_answer_is_inflated_piecewise(coding: str) -> None:
    text = b"".join(b"%d " % n for n in range(100_000))
    for body in {packed(coding.lower(), text), packed("raw" if coding == "deflate" else coding.lower(), text)}:
        answer = OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body)) + body
        async with RawServer(answer) as server:
            assert await (await server.get()).read(2**20) == text
            response = await server.get()
            pieces = []
            while piece := await response.next_chunk():
                pieces.append(piece)
            assert b"".join(pieces) == text
            assert max(map(len, pieces)) <= 2**16
            assert len(server.connections) == 1


async def test_what_zlib_holds_back_is_not_lost() -> None:
    """Without a checksum behind it, the last of the input may be used up while output is still to come."""
    for surplus in range(1, 2000, 37):
        text = b" " * (2**16 + surplus)
        body = packed("raw", text)
        async with RawServer(OK + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as server:
            assert await (await server.get()).read(2**20) == text


async def test_a_bomb_goes_off_within_the_limit() -> None:
    body = gzip.compress(b" " * 2**27)
    async with RawServer(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as server:
        with pytest.raises(errors.ProviderNonsense, match="longer than 1000000 bytes"):
            await (await server.get()).read(10**6)


@pytest.mark.parametrize(
    ("coding", "body", "says"),
    [
        (b"br", b"abc", "compressed as 'br'"),
        (b"gzip, gzip", b"abc", "compressed as 'gzip, gzip'"),
        (b"gzip", b"not gzip", "cannot be inflated"),
        (b"deflate", b"\xff\xff\xff", "cannot be inflated"),
        (b"gzip", gzip.compress(b"hello", mtime=0)[:-3], "ends in the middle"),
        (b"gzip", gzip.compress(b"hello", mtime=0) + b"more", "goes on after the end"),
        (b"gzip", gzip.compress(b"hello", mtime=0) * 2, "goes on after the end"),
    ],
)
async def test_a_coding_that_is_unknown_or_damaged_is_nonsense(coding: bytes, body: bytes, says: str) -> None:
    async with RawServer(OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)) + body) as server:
        with pytest.raises(errors.ProviderNonsense, match=says):
            await (await server.get()).read(1000)


@pytest.mark.parametrize("coding", [b"gzip", b"br"])
async def test_no_body_needs_no_inflating(coding: bytes) -> None:
    async with RawServer(OK + b"Content-Encoding: %s\r\nContent-Length: 0\r\n\r\n" % coding) as server:
        assert await (await server.get()).read(10) == b""
