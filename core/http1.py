"""The grammar of HTTP/1.1 as a client speaks it. Pure: bytes in, values out.

Strict, because what is read here is not ours: whatever two readers could understand differently is refused (RFC 9112,
sections 2.2, 5 and 6.3). A head is gathered whole and held against the grammar before anything in it is believed. Chunked
bodies go through llhttp (httptools): 0.1 µs a chunk, where Python takes 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from httptools import HttpParserError, HttpResponseParser

from core.errors import OutboundRefused

MAX_HEADER_BYTES = 16 * 2**10  # one field, its name and value
MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 2**10  # a whole head: the status line and its fields
_MAX_NAMES = 1024

UNTIL_CLOSE = -1
CHUNKED = -2
_WITHOUT_BODY = (204, 304)
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?")
_BEGIN = b"HTTP/1."
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_OURS = frozenset({"content-length", "transfer-encoding"})

_names: dict[str, str] = {}  # spellings of field names met so far, each checked once → lower case


class Malformed(Exception):
    """What came is not valid HTTP. The text repeats nothing of it."""


class Origin(NamedTuple):
    """Where a connection leads. `host` is a name or an IP address without brackets. `ca`: certificates (PEM) of the authorities
    that may vouch for it; "" = the system's. A connection that one has vouched for is none to be trusted by another's word."""

    scheme: str
    host: str
    port: int
    ca: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Head(NamedTuple):
    """`fields`: lower-case names, repeated ones joined by a comma. `minor`: the 1 of HTTP/1.1."""

    status: int
    fields: dict[str, str]
    minor: int


class RequestForm:
    """The head of all requests that differ in nothing but header values. Made once, filled in for each."""

    def __init__(self, method: str, target: str, host: str, names: Iterable[str], *, has_body: bool) -> None:
        """`target` is path and query, percent-encoded. Raises OutboundRefused for a header name that may not be sent."""
        names = tuple(names)
        given = {name.lower() for name in names}
        if given & _OURS or not all(_TOKEN.fullmatch(name) for name in (method, *names)):
            raise OutboundRefused("A header for the provider has a name that may not be sent; check the provider's options.")
        ours = {"Host": host, "Accept-Encoding": "identity", "User-Agent": "llmcontrol"}
        fixed = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in ours.items() if name.lower() not in given)]
        lines = [line.replace("%", "%%") for line in fixed] + [name.replace("%", "%%") + ": %s" for name in names]
        lines += ["Content-Length: %d"] if has_body else []
        self._template = "\r\n".join([*lines, "", ""])
        self._line_breaks = len(lines) + 1
        self._has_body = has_body

    def filled(self, values: Iterable[str], body_bytes: int) -> bytes:
        """Raises OutboundRefused for a value that would not stay on its line. The text repeats no value: it may be a key."""
        text = self._template % ((*values, body_bytes) if self._has_body else (*values,))
        if text.count("\n") != self._line_breaks or text.count("\r") != self._line_breaks:
            raise OutboundRefused("A header for the provider holds a line break; check the provider's key and options.")
        try:
            if "\0" not in text:
                return text.encode("latin-1")
        except UnicodeEncodeError:
            pass  # raised below instead, because this one carries the value
        raise OutboundRefused("A header for the provider holds a character that HTTP cannot carry; check the provider's key and options.")


def check_begun(data: bytes) -> None:
    """For the beginning of a head. Raises Malformed as soon as it cannot become one, so that nobody waits for its end."""
    if data[: len(_BEGIN)] != _BEGIN[: len(data)]:
        raise Malformed("no HTTP/1 status line")
    if len(data) > MAX_HEAD_BYTES:
        raise Malformed(f"a head of more than {MAX_HEAD_BYTES} bytes")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise Malformed("a line break without CR")


def parsed_head(data: bytes) -> Head:
    """`data` is a head without its last empty line. Raises Malformed."""
    if len(data) > MAX_HEAD_BYTES:
        raise Malformed(f"a head of more than {MAX_HEAD_BYTES} bytes")
    text = data.decode("latin-1")
    lines = text.split("\r\n")
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise Malformed("a stray CR, LF or NUL in the head")
    if breaks > MAX_HEADERS:
        raise Malformed(f"more than {MAX_HEADERS} header fields")
    if len(text) > MAX_HEADER_BYTES and any(len(line) > MAX_HEADER_BYTES for line in lines):
        raise Malformed(f"a header field of more than {MAX_HEADER_BYTES} bytes")
    matched = _STATUS_LINE.fullmatch(lines[0])
    if matched is None:
        raise Malformed("no HTTP/1 status line")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise Malformed("a header line without a colon")
        known = _names.get(name) or _field_name(name)
        value = value.strip(" \t")
        fields[known] = f"{fields[known]}, {value}" if known in fields else value
    return Head(int(matched[2]), fields, int(matched[1]))


def _field_name(name: str) -> str:
    """A name with a space before the colon, or a folded line, is none."""
    if not _TOKEN.fullmatch(name):
        raise Malformed("a header name that is none")
    lower = name.lower()
    if len(_names) < _MAX_NAMES:
        _names[name] = lower
    return lower


def framing(head: Head, method: str) -> tuple[int, bool]:
    """The length of the body in bytes, or UNTIL_CLOSE or CHUNKED; and whether the connection may be used again after it.

    Raises Malformed where two readers could differ. A comma in a length means that there were several.
    """
    fields = head.fields
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    persistent = head.minor == 1 and "close" not in fields.get("connection", "").lower()
    if length is not None and (coding is not None or not length.isdecimal() or len(length) > 18):
        raise Malformed("a body with two lengths, or with one that is no number")
    if coding is not None and (coding.lower() != "chunked" or head.minor == 0):
        raise Malformed("a transfer coding that was not asked for")
    if method == "HEAD" or head.status in _WITHOUT_BODY:
        return 0, persistent and coding is None and length in (None, "0")
    if coding is not None:
        return CHUNKED, persistent
    return (UNTIL_CLOSE, False) if length is None else (int(length), persistent)


class Chunks:
    """Chunked bodies of one connection, one after the other. llhttp sees a head of ours and then the vendor's body."""

    def __init__(self) -> None:
        self.ended = self.clean = False
        self._pieces: list[bytes] = []
        self._trailers = self._overhead_bytes = 0
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)

    def begin(self) -> None:
        self.ended = self.clean = False
        self._parser.feed_data(_CHUNKED_HEAD)
        self._trailers = self._overhead_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """The body bytes in `data`. Sets `ended`, and `clean` if neither trailers nor anything after the end came. Raises Malformed."""
        try:
            self._parser.feed_data(data)
        except HttpParserError as exc:
            if not self.ended:
                raise Malformed(f"a chunked body: {exc}") from None
            data = b""  # what is wrong comes after the end
        pieces = self._pieces
        if self.ended:
            # llhttp skips empty lines between messages, so only an end that is the last thing read shows that none came.
            # And it heeds trailers: after a `Connection: close` among them it would refuse the next answer.
            self.clean = not self._trailers and (data.endswith(b"0\r\n\r\n") or data in (b"\r\n", b"\n"))
        elif not pieces:
            self._overhead_bytes += len(data)
            if self._overhead_bytes > MAX_HEADER_BYTES:
                raise Malformed(f"more than {MAX_HEADER_BYTES} bytes of chunk extensions or trailers")
        else:
            self._overhead_bytes = 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    def close(self) -> None:
        """No more comes. The parser knows its owner: together they would wait for the collector."""
        del self._parser

    # What llhttp calls

    def on_message_begin(self) -> None:
        if self.ended:
            raise Malformed("something after the end")  # stops llhttp, so that it is not read as another answer

    def on_message_complete(self) -> None:
        self.ended = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A trailer. Checked and dropped."""
        self._trailers += 1
        if self._trailers > MAX_HEADERS or len(name) + len(value) > MAX_HEADER_BYTES:
            raise Malformed("too many or too long trailers")
