"""Exact bytes in, and what is made of them: the same however they are cut, and an error wherever readers could differ."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import http1, http1_connection
from core.errors import OutboundRefused
from core.http1 import Malformed, Origin, RequestForm
from core.http1_connection import Answer, Broken, Connection

ORIGIN = Origin("http", "vendor.test", 80)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Wire:
    """The transport and the owner of one connection, without a socket."""

    def __init__(self, method: str = "POST") -> None:
        self.aborted = self.paused = False
        self.freed_count = self.gone_count = 0
        self.written = b""
        self.loop = asyncio.new_event_loop()
        self.loop.close()  # nothing here may wait
        self.connection = Connection(ORIGIN, socket.socket.__new__(socket.socket), self.loop)
        self.connection.owner = self
        self.connection.connection_made(self)  # type: ignore[arg-type]
        self.answer: Answer = self.connection.send(method, b"head", b"body")

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def freed(self, connection: Connection) -> None:
        self.freed_count += 1

    def gone(self, connection: Connection) -> None:
        self.gone_count += 1

    def receive(self, *pieces: bytes, eof: bool = False) -> Wire:
        for piece in pieces:
            if not self.connection.gone:
                self.connection.data_received(piece)
        if eof:
            self.connection.eof_received()
            self.connection.connection_lost(None)
        return self

    @property
    def result(self) -> tuple[Any, ...]:
        answer = self.answer
        return answer.status, answer.fields, answer.take(), answer.complete, type(answer.failure)


WHOLE = {
    "counted": (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "empty": (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    "chunked": (CHUNKED + b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n", b"hello world"),
    "chunked, capital": (HEAD + b"transfer-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", b"hi"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nhi", b"hi"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b""),
    "odd spaces": (HEAD + b"Content-Length:\t 2 \t\r\nX-Empty:\r\nX-Latin: caf\xe9\r\n\r\nhi", b"hi"),
    "body of line breaks": (HEAD + b"Content-Length: 4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
}
UNTIL_CLOSE = {
    "to the end": (HEAD + b"\r\nhello", b"hello"),
    "1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
    "1.0, nothing": (b"HTTP/1.0 200 OK\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", WHOLE)
def test_cut_at_any_byte_or_at_every_byte_an_answer_is_the_same(name: str) -> None:
    data, body = WHOLE[name]
    whole = Wire().receive(data).result
    assert whole[2:] == (body, True, type(None))
    for cut in range(1, len(data)):
        assert Wire().receive(data[:cut], data[cut:]).result == whole, cut
    assert Wire().receive(*(data[n : n + 1] for n in range(len(data)))).result == whole


@pytest.mark.parametrize("name", UNTIL_CLOSE)
def test_an_answer_may_end_with_its_connection(name: str) -> None:
    data, body = UNTIL_CLOSE[name]
    for cut in range(1, len(data)):
        wire = Wire().receive(data[:cut], data[cut:])
        assert not wire.answer.complete
        assert wire.receive(eof=True).result[2:] == (body, True, type(None))
        assert (wire.freed_count, wire.gone_count) == (0, 1)


@given(st.sampled_from([data for data, _ in WHOLE.values()]), st.lists(st.integers(1, 40)))
def test_cut_anywhere_an_answer_is_the_same(data: bytes, sizes: list[int]) -> None:
    pieces, rest = [], data
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    pieces = [piece for piece in [*pieces, rest] if piece]
    assert Wire().receive(*pieces).result == Wire().receive(data).result


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.lists(st.integers(1, 200)))
def test_chunks_come_out_as_they_were_put_in(chunks: list[bytes], sizes: list[int]) -> None:
    data = CHUNKED + b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    wire = Wire()
    for size in sizes:
        wire.receive(data[:size]) if data else None
        data = data[size:]
    wire.receive(data) if data else None
    assert wire.result[2:] == (b"".join(chunks), True, type(None))


@given(st.binary(max_size=400), st.sampled_from([b"", b"HTTP/1.1 ", HEAD, HEAD + b"Content-Length: 3\r\n", CHUNKED]))
def test_no_bytes_raise_anything_but_the_two_errors(noise: bytes, begin: bytes) -> None:
    wire = Wire().receive(*(piece for piece in (begin, noise) if piece), eof=True)
    assert wire.connection.gone
    assert wire.answer.complete or type(wire.answer.failure) in (Malformed, Broken)
    assert wire.gone_count == 1


MALFORMED = {
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "tls": b"\x15\x03\x01\x00\x02\x02\x16",
    "no status": b"HTTP/1.1 banana\r\n\r\n",
    "short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 0": b"HTTP/1.1 000 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "small letters": b"http/1.1 200 OK\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "empty line first": b"\r\n" + HEAD + b"Content-Length: 2\r\n\r\nhi",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "one bare LF": HEAD + b"X: y\nContent-Length: 2\r\n\r\nhi",
    "bare CR": HEAD + b"X: y\rContent-Length: 2\r\n\r\nhi",
    "NUL": HEAD + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nhi",
    "NUL in a name": HEAD + b"X\x00: b\r\nContent-Length: 2\r\n\r\nhi",
    "folded": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
    "folded length": HEAD + b"Content-Length:\r\n 2\r\n\r\nhi",
    "space before the colon": HEAD + b"Content-Length : 2\r\n\r\nhi",
    "space before the name": HEAD + b" Content-Length: 2\r\n\r\nhi",
    "no colon": HEAD + b"Content-Length 2\r\n\r\nhi",
    "no name": HEAD + b": 2\r\n\r\nhi",
    "name in Latin": HEAD + b"caf\xe9: 2\r\n\r\nhi",
    "length and chunked": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    "two lengths in one": HEAD + b"Content-Length: 2, 3\r\n\r\nhi!",
    "length with a sign": HEAD + b"Content-Length: +2\r\n\r\nhi",
    "negative length": HEAD + b"Content-Length: -2\r\n\r\nhi",
    "hexadecimal length": HEAD + b"Content-Length: 0x2\r\n\r\nhi",
    "length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "length in other digits": HEAD + b"Content-Length: \xb2\r\n\r\nhi",
    "no length": HEAD + b"Content-Length:\r\n\r\nhi",
    "endless length": HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhi",
    "coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding after": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\nhi",
    "coding with a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "interim without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 11 + HEAD + b"Content-Length: 2\r\n\r\nhi",
    "many fields": HEAD + b"X: y\r\n" * 101 + b"\r\n",
    "a long field": HEAD + b"X: " + b"y" * http1.MAX_HEADER_BYTES + b"\r\n\r\n",
    "a long head": HEAD + (b"X: " + b"y" * 10_000 + b"\r\n") * 7 + b"\r\n",
    "a head without end": HEAD + (b"X: " + b"y" * 10_000 + b"\r\n") * 7,
    "a field without end": HEAD + b"X: " + b"y" * 100_000,
    "chunk size with a sign": CHUNKED + b"+2\r\nhi\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-1\r\n",
    "empty chunk size": CHUNKED + b"\r\nhi\r\n0\r\n\r\n",
    "space after the chunk size": CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n",
    "chunk size with LF": CHUNKED + b"2\nhi\r\n0\r\n\r\n",
    "chunk ends with LF": CHUNKED + b"2\r\nhi\n0\r\n\r\n",
    "chunk longer than said": CHUNKED + b"2\r\nhi!\r\n0\r\n\r\n",
    "chunk size over 64 bits": CHUNKED + b"f" * 17 + b"\r\nhi",
    "LF in an extension": CHUNKED + b"2;a\nb\r\nhi\r\n0\r\n\r\n",
    "NUL in an extension": CHUNKED + b"2;\x00\r\nhi\r\n0\r\n\r\n",
    "an extension without end": CHUNKED + b"2;" + b"a" * 20_000,
    "folded trailer": CHUNKED + b"2\r\nhi\r\n0\r\nX: y\r\n z\r\n\r\n",
    "length in a trailer": CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 3\r\n\r\nabc",
    "many trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * 110 + b"\r\n",
    "a long trailer": CHUNKED + b"0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_http_is_refused_and_its_connection_is_not_used_again(name: str) -> None:
    data = MALFORMED[name]
    for size in (len(data), 7, 1) if len(data) < 1000 else (len(data), 1000):
        pieces = (data[n : n + size] for n in range(0, len(data), size))
        wire = Wire().receive(*pieces)
        assert type(wire.answer.failure) is Malformed
        assert wire.aborted
        assert wire.connection.gone
        assert (wire.freed_count, wire.gone_count) == (0, 1)
        assert not wire.answer.complete


CUT_SHORT = [
    b"",
    b"HTTP",
    HEAD + b"Content-Length: 5",
    HEAD + b"Content-Length: 5\r\n\r\nhell",
    CHUNKED,
    CHUNKED + b"5\r\nhel",
    CHUNKED + b"5\r\nhello\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
]


@pytest.mark.parametrize("data", CUT_SHORT)
def test_an_answer_that_stops_in_the_middle_is_broken(data: bytes) -> None:
    wire = Wire().receive(*([data] if data else []), eof=True)
    assert isinstance(wire.answer.failure, Broken)
    assert wire.answer.failure.untouched == (not data)
    assert (wire.freed_count, wire.gone_count) == (0, 1)


def test_a_reset_is_not_the_end_of_an_answer_that_ends_with_its_connection() -> None:
    wire = Wire().receive(HEAD + b"\r\nhello")
    wire.connection.connection_lost(ConnectionResetError(104, "reset"))
    assert isinstance(wire.answer.failure, Broken)


COUNTED, ENDED = WHOLE["counted"][0], CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("data", [COUNTED, ENDED, WHOLE["empty"][0], WHOLE["no content"][0], WHOLE["interim"][0]])
def test_a_whole_answer_frees_its_connection_before_its_body_is_taken(data: bytes) -> None:
    wire = Wire().receive(data)
    assert (wire.freed_count, wire.aborted) == (1, False)
    wire.answer.abort()  # has no say any more
    assert not wire.aborted


@pytest.mark.parametrize("last", [b"0\r\n\r\n", b"\r\n", b"\n"])
def test_an_end_of_chunks_in_pieces_frees_the_connection_too(last: bytes) -> None:
    assert Wire().receive(ENDED.removesuffix(last), last).freed_count == 1


@pytest.mark.parametrize(
    "data",
    [
        *(
            whole + surplus
            for whole in (COUNTED, ENDED, WHOLE["no content"][0])
            for surplus in (b"x", b"\r\n", b"\n", b"\0", COUNTED, ENDED)
        ),
        ENDED + b"\r\n0\r\n\r\n",
        ENDED.removesuffix(b"\r\n") + b"Connection: close\r\nX: 0\r\n\r\n",
        ENDED.removesuffix(b"\r\n") + b"Transfer-Encoding: 0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nConnection: x, Close\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_connection_with_anything_left_on_it_is_closed_and_the_answer_stands(data: bytes) -> None:
    wire = Wire().receive(data)
    assert wire.answer.complete
    assert wire.answer.take() in (b"hello", b"")
    assert (wire.freed_count, wire.gone_count, wire.aborted) == (0, 1, True)


def test_trailers_that_come_in_pieces_close_the_connection_too() -> None:
    wire = Wire().receive(ENDED.removesuffix(b"\r\n"), b"Connection: close\r\n", b"\r\n")
    assert (wire.answer.complete, wire.freed_count, wire.aborted) == (True, 0, True)


@pytest.mark.parametrize("last", [b"\r\n", b"\n", b"0\r\n\r\n"])
def test_surplus_after_an_end_in_pieces_is_seen(last: bytes) -> None:
    wire = Wire().receive(ENDED.removesuffix(last), last + b"\r\n")
    assert (wire.answer.complete, wire.freed_count) == (True, 0)


def test_bytes_that_come_while_idle_close_the_connection() -> None:
    wire = Wire().receive(COUNTED, b"HTTP/1.1 200 OK\r\n")
    assert (wire.freed_count, wire.gone_count, wire.aborted) == (1, 1, True)


def test_an_answer_to_head_has_no_body() -> None:
    wire = Wire("HEAD").receive(HEAD + b"Content-Length: 5\r\n\r\n")
    assert wire.result[2:] == (b"", True, type(None))
    assert wire.freed_count == 0


def test_one_connection_serves_chunked_and_counted_answers_in_turn() -> None:
    wire = Wire()
    for data in (ENDED, COUNTED, ENDED, ENDED, WHOLE["interim"][0], ENDED):
        wire.receive(data)
        assert wire.answer.complete
        assert wire.answer.take() in (b"hello", b"hi")
        wire.answer = wire.connection.send("POST", b"", b"")
    assert wire.freed_count == 6


@pytest.mark.parametrize("head", [HEAD + b"Content-Length: 10000000\r\n\r\n", HEAD + b"\r\n"])
def test_reading_stops_while_nobody_takes_what_was_read(head: bytes) -> None:
    wire = Wire().receive(head)
    read = 0
    while not wire.paused:
        wire.receive(b"x" * 10_000)
        read += 10_000
    assert http1_connection.MAX_BUFFERED_BYTES < read < http1_connection.MAX_BUFFERED_BYTES + 20_000
    assert len(wire.answer.take()) == read - 10_000
    assert not wire.paused
    assert (len(wire.answer.take()), wire.answer.take()) == (10_000, b"")


def test_what_came_in_one_read_is_given_in_bounded_pieces_in_order() -> None:
    sent = random.Random(1).randbytes(250_000)
    wire = Wire().receive(HEAD + b"Content-Length: 260000\r\n\r\n", b"x" * 10_000, sent)
    taken = b""
    while data := wire.answer.take():
        taken += data
        assert len(data) <= http1_connection.MAX_BUFFERED_BYTES
    assert taken == b"x" * 10_000 + sent


def test_reading_goes_on_once_little_enough_is_left() -> None:
    wire = Wire().receive(HEAD + b"Content-Length: 1000000\r\n\r\n", b"x" * 250_000)
    left, paused = 250_000, []
    while data := wire.answer.take():
        left -= len(data)
        paused.append((wire.paused, left > http1_connection.MAX_BUFFERED_BYTES))
    assert [is_paused for is_paused, _ in paused] == [much for _, much in paused]
    assert paused[0] == (True, True)
    assert paused[-1] == (False, False)


def test_a_connection_that_was_paused_reads_again_when_it_is_free() -> None:
    wire = Wire().receive(HEAD + b"Content-Length: 600000\r\n\r\n", b"x" * 300_000)
    assert wire.paused
    wire.receive(b"x" * 300_000)  # what TLS had decrypted already
    assert (wire.paused, wire.freed_count) == (False, 1)
    assert sum(map(len, iter(wire.answer.take, b""))) == 600_000


def upload_of(size: int) -> tuple[Wire, Any]:
    wire = Wire()
    body = b"x" * size
    wire.answer = wire.connection.send("POST", b"", body)
    wire.written = b""
    return wire, wire.connection.upload(wire.answer, body)


def test_an_upload_waits_for_the_peer_and_goes_on_where_it_stopped() -> None:
    wire, upload = upload_of(4 * 2**20)
    wire.connection.pause_writing()
    upload.send(None)
    assert len(wire.written) < 2**20
    wire.connection.resume_writing()
    with pytest.raises(StopIteration):
        upload.send(None)
    assert len(wire.written) == 4 * 2**20
    assert wire.receive(COUNTED).freed_count == 1


@pytest.mark.parametrize("ends", [lambda wire: wire.receive(COUNTED), lambda wire: wire.receive(eof=True)])
def test_an_upload_ends_with_an_early_answer_and_so_does_its_connection(ends: Any) -> None:
    wire, upload = upload_of(4 * 2**20)
    wire.connection.pause_writing()
    upload.send(None)
    ends(wire)
    with pytest.raises(StopIteration):
        upload.send(None)
    assert len(wire.written) < 2**20
    assert (wire.freed_count, wire.gone_count) == (0, 1)


def form(*names: str, has_body: bool = True, target: str = "/v1/a%2Fb?x=1", host: str = "[::1]:8080") -> RequestForm:
    return RequestForm("POST", target, host, names, has_body=has_body)


def test_a_request_head_is_spelled_out() -> None:
    assert form("Content-Type", "X-%s").filled(["application/json", "100%s"], 12) == (
        b"POST /v1/a%2Fb?x=1 HTTP/1.1\r\nHost: [::1]:8080\r\nAccept-Encoding: identity\r\nUser-Agent: llmcontrol\r\n"
        b"Content-Type: application/json\r\nX-%s: 100%s\r\nContent-Length: 12\r\n\r\n"
    )


def test_what_the_caller_gives_replaces_what_we_would_say() -> None:
    head = form("user-agent", "HOST", "accept-Encoding", has_body=False).filled(["me", "there", "gzip"], 0)
    assert head == b"POST /v1/a%2Fb?x=1 HTTP/1.1\r\nuser-agent: me\r\nHOST: there\r\naccept-Encoding: gzip\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y", "a\rb", "a\r\n", "a\0b", "a – b", "\ud800"])
def test_a_header_value_that_http_cannot_carry_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(OutboundRefused) as caught:
        form("Authorization").filled(["Bearer sk-secret" + value], 0)
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "sk-secret" not in f"{shown!r}{shown}{getattr(shown, 'detail', '')}{getattr(shown, 'object', '')}"
        shown = shown.__cause__ or shown.__context__


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "é", "Content-Length", "transfer-encoding"])
def test_a_header_name_that_may_not_be_sent_is_refused(name: str) -> None:
    with pytest.raises(OutboundRefused):
        form(name)


def test_names_that_vendors_make_up_do_not_fill_the_memory() -> None:
    for n in range(3000):
        http1.parsed_head(b"HTTP/1.1 200 OK\r\nX-%d: y" % n)
    assert len(http1._names) <= 1024
