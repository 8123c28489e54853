"""Server-sent events from raw bytes, cut anywhere, line endings mixed, by the letter of the standard.

Only the data of events is kept: comments, ids, retry hints and event names go. Lines end at LF, CR or CRLF and at nothing
else, because U+2028 and its kin may stand raw inside JSON, which is why `splitlines` has no place here.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from core.errors import ProviderNonsense

MAX_EVENT_BYTES = 2**20
_LF, _CR = 10, 13
_BOM = b"\xef\xbb\xbf"


class EventTooLong(ProviderNonsense):
    """A line or an event over the limit. `complete` are the events of the same read that came before it."""

    def __init__(self, limit: int, complete: list[bytes]) -> None:
        super().__init__(f"The provider sent an event longer than {limit} bytes.")
        self.complete = complete


class SseDecoder:
    """`canonical` says of the last `feed` that its input was exactly `data: X`, blank line, for each X it returned."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.canonical = False
        self._max = max_event_bytes
        self._started = False
        self._between = True
        self._after_cr = False
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0

    @property
    def pending(self) -> bool:
        """An event has begun and not ended."""
        return bool(self._data or self._line)

    def single(self, data: bytes) -> bytes | None:
        """The data of the one event that `data` is in its plainest form, by far the most frequent read; None = use `feed`."""
        size = len(data)
        if not (self._between and data[:6] == b"data: " and data.find(_LF) == size - 2 and data[-1] == _LF):
            return None
        if _CR in data or not 8 < size <= self._max:
            return None
        self._started = True
        return data[6:-2]

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that `data` completed, lines joined by LF. Raises EventTooLong; do not feed it after that."""
        if self._between and data[:6] == b"data: " and data[-2:] == b"\n\n" and _CR not in data and len(data) <= self._max:
            events = data[6:-2].split(b"\n\ndata: ")
            # Two line ends for each event and no more: no other field is among them.
            if data.count(_LF) == 2 * len(events) and b"" not in events:
                self.canonical = self._started = True
                return events
        self.canonical = False
        events = self._feed_lines(data)
        self._between = not (self._line or self._data or self._after_cr)
        return events

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data[-1:] == b"\r"
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        complete: list[bytes] = []
        first, *rest = data.split(b"\n")
        self._line += first
        for following in rest:
            self._check(len(self._line), complete)
            self._end_line(bytes(self._line), complete)
            self._line = bytearray(following)
        self._check(len(self._line), complete)
        return complete

    def _check(self, line_bytes: int, complete: list[bytes]) -> None:
        if line_bytes + self._data_bytes > self._max:
            raise EventTooLong(self._max, complete)

    def _end_line(self, line: bytes, complete: list[bytes]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                value = value.removeprefix(b" ")
                self._data.append(value)
                self._data_bytes += len(value) + 1
        elif self._data:
            event = b"\n".join(self._data)
            self._data, self._data_bytes = [], 0
            if event:
                complete.append(event)


def frame(event: bytes) -> bytes:
    """The wire form of one event with this data."""
    return b"data: " + event.replace(b"\n", b"\ndata: ") + b"\n\n"
