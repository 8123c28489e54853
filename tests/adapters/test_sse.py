"""Server-sent events, byte by byte, against a second, slower reading of the same standard."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapters.sse import EventTooLong, SseDecoder, frame


def read(stream: bytes, size: int = 0) -> list[bytes]:
    decoder = SseDecoder()
    parts = [stream[start : start + size] for start in range(0, len(stream), size)] if size else [stream]
    return [event for part in parts for event in decoder.feed(part)]


def by_the_book(stream: bytes) -> list[bytes]:
    """Whole stream at once, one character at a time."""
    lines, line, position = [], b"", 0
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    while position < len(stream):
        char = stream[position : position + 1]
        position += 1
        if char in (b"\r", b"\n"):
            lines.append(line)
            line = b""
            position += char == b"\r" and stream[position : position + 1] == b"\n"
        else:
            line += char
    events, data = [], []
    for line in lines:
        field, _, value = line.partition(b":")
        if not line:
            events.append(b"\n".join(data))
            data = []
        elif field == b"data":
            data.append(value[1:] if value.startswith(b" ") else value)
    return [event for event in events if event]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_ending_and_every_cut(end: bytes, size: int) -> None:
    lines = [
        b": hi",
        b"event: x",
        b"data: one",
        b"id: 7",
        b"",
        b"data:two",
        b"data:  three",
        b"",
        b"retry: 1",
        b"data",
        b"",
        b"data: \xe4\xbd\xa0",
        b"",
        b"",
    ]
    assert read(end.join(lines), size) == [b"one", b"two\n three", b"\xe4\xbd\xa0"]


@pytest.mark.parametrize("raw", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_no_other_character_ends_a_line(raw: str) -> None:
    text = f"a{raw}b".encode()
    assert read(b"data: " + text + b"\n\n") == [text]
    assert read(b"data: " + text + b"\n\n", 1) == [text]


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_byte_order_mark_is_dropped_only_at_the_start(size: int) -> None:
    assert read(b"\xef\xbb\xbfdata: 1\n\ndata: \xef\xbb\xbf2\n\n", size) == [b"1", b"\xef\xbb\xbf2"]
    assert read(b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", size) == [b"1"]


def test_an_event_without_its_blank_line_never_happened() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: 1\n") == []
    assert decoder.pending
    assert decoder.feed(b"\n") == [b"1"]
    assert not decoder.pending


FIELDS = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b": c",
        b"event: e",
        b"id: 1",
        b"x",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"{}",
        b"data: {}\n\n",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(FIELDS, max_size=30), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_any_stream_in_any_pieces_reads_by_the_book(parts: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(parts)
    expected = by_the_book(stream)
    decoder, events, position, step = SseDecoder(), [], 0, 0
    while position < len(stream):
        piece = stream[position : position + sizes[step % len(sizes)]]
        position, step = position + len(piece), step + 1
        single = decoder.single(piece)
        events += [single] if single is not None else decoder.feed(piece)
    assert events == expected
    assert read(stream) == expected


def test_the_plainest_form_is_known_as_such() -> None:
    decoder = SseDecoder()
    assert decoder.single(b'data: {"a": 1}\n\n') == b'{"a": 1}'
    assert decoder.feed(b"data: 1\n\ndata: 2\n\n") == [b"1", b"2"]
    assert decoder.canonical
    assert decoder.feed(b"data:1\n\n") == [b"1"]
    assert not decoder.canonical
    assert decoder.single(b"data: 1\nid: 2\n\n") is None
    assert decoder.single(b"data: 1\n\ndata: 2\n\n") is None


def test_a_line_over_the_limit_gives_up_what_came_before() -> None:
    decoder = SseDecoder(max_event_bytes=20)
    with pytest.raises(EventTooLong) as caught:
        decoder.feed(b"data: 1\n\ndata: 2\n\ndata: " + b"x" * 21)
    assert caught.value.complete == [b"1", b"2"]


def test_an_endless_event_of_short_lines_is_over_the_limit_too() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    for _ in range(19):
        decoder.feed(b"data:xxxx\n")
    with pytest.raises(EventTooLong):
        decoder.feed(b"data:xxxx\n")


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    decoder = SseDecoder(max_event_bytes=20)
    assert sum(len(decoder.feed(b"data: xxxx\n\n")) for _ in range(100)) == 100
    assert sum(len(decoder.feed(b"data:xxxx\r\n\r\n")) for _ in range(100)) == 100


def test_a_frame_reads_back() -> None:
    assert read(frame(b'{"a":\n1}')) == [b'{"a":\n1}']
