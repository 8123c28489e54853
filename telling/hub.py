"""One reader of the event log per process, and a bounded queue for each socket. Nothing here knows of sockets or of Django."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from telling.events import Told

_log = logging.getLogger(__name__)
MAX_WAITING = 100
MAX_RESUMED = 1_000
_AT_ONCE = 1_000
# So many puts before the loop's other work has its turn: whoever is woken at half of the room writes before it is full.
_PUT_IN_A_ROW = MAX_WAITING // 2
_WOKEN_IN_A_ROW, _PORTIONS, _PAUSE_S = 5, 100, 0.001
_TAKEN_BYTES = 64 * 2**10
_AFTER_FAILURE_S = 1.0


class Log:
    """How the hub reads. Both may raise."""

    async def held(self) -> tuple[int, int]:
        """The lowest and the highest number; (0, 0) = none."""
        raise NotImplementedError

    async def after(self, seq: int, most: int, up_to: int | None = None) -> Sequence[Told]:
        raise NotImplementedError


class Listener:
    """What waits for one socket: at most MAX_WAITING texts. One more, and they give way to a single marker: {"type": "resync", "seq"}
    says that events up to that number may be missing. What comes while the marker waits moves its number on."""

    def __init__(self, topics: frozenset[str]) -> None:
        self.topics = topics
        self._resumed: deque[bytes] = deque()
        self._waiting: deque[bytes] = deque()
        self._missed_up_to: int | None = None
        self._news = asyncio.Event()

    def put(self, told: Told) -> None:
        """Wakes nobody before half of the room is taken: what comes at one time is to go out together. See `wake`."""
        if self._missed_up_to is not None or len(self._waiting) >= MAX_WAITING:
            self.resync(told.seq)
            return
        self._waiting.append(told.text)
        if len(self._waiting) == MAX_WAITING // 2:
            self.wake()

    def wake(self) -> None:
        self._news.set()

    def resync(self, seq: int) -> None:
        self._waiting.clear()
        self._missed_up_to = seq
        self.wake()

    def resume(self, texts: Sequence[bytes]) -> None:
        """Before anything that is put."""
        self._resumed.extend(texts)
        self.wake()

    async def next(self) -> list[bytes]:
        """All that waits, in order and at least one text; the rest stays once there are _TAKEN_BYTES."""
        while True:
            taken, size = [], 0
            while size < _TAKEN_BYTES and (text := self._first()) is not None:
                taken.append(text)
                size += len(text)
            if taken:
                return taken
            self._news.clear()
            await self._news.wait()

    def _first(self) -> bytes | None:
        if self._resumed:
            return self._resumed.popleft()
        if self._missed_up_to is not None:
            seq, self._missed_up_to = self._missed_up_to, None
            return msgspec.json.encode({"type": "resync", "seq": seq})
        return self._waiting.popleft() if self._waiting else None


class Hub:
    """Reads every `poll_s` while anybody listens: that, and a tenth of a second where many listen, is how late an event may be."""

    def __init__(self, log: Log, poll_s: float) -> None:
        self._log = log
        self._poll_s = poll_s
        self._joining: list[tuple[Listener, int | None]] = []
        self._listeners: dict[str, set[Listener]] = {}
        self._seq: int | None = None  # None: nobody has listened for a while
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._forever())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def join(self, listener: Listener, since: int | None) -> None:
        """It is told {"type": "hello", "seq"} first, then what came after `since`, then what comes. None = only what comes."""
        self._joining.append((listener, since))
        self._wanted.set()

    def leave(self, listener: Listener) -> None:
        """Idempotent."""
        self._joining = [each for each in self._joining if each[0] is not listener]
        self.move(listener, frozenset(), left=True)

    def move(self, listener: Listener, topics: frozenset[str], *, left: bool = False) -> None:
        """It may see other things from now on."""
        known = any(listener in self._listeners.get(topic, ()) for topic in listener.topics)
        for topic in listener.topics:
            found = self._listeners.get(topic)
            if found is not None:
                found.discard(listener)
                if not found:
                    del self._listeners[topic]
        listener.topics = topics
        if known and not left:
            self._add(listener)

    async def _forever(self) -> None:
        while True:
            try:
                if not self._listeners and not self._joining:
                    self._seq = None
                    self._wanted.clear()
                    await self._wanted.wait()
                more = await self.look()
            except Exception as exc:
                _log.warning("events cannot be read (%s: %s); trying again", type(exc).__name__, " ".join(str(exc).split()))
                await asyncio.sleep(_AFTER_FAILURE_S)
                continue
            if not more:
                self._wanted.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._wanted.wait()

    async def look(self) -> bool:
        """Passes on what is new, then lets in who waits. True: there may be more."""
        low, high = await self._log.held() if self._joining or self._seq is None else (0, 0)
        if self._seq is None:
            self._seq = high
        found = await self._log.after(self._seq, _AT_ONCE)
        await self._tell(found)
        while self._joining:
            listener, since = self._joining[0]
            missed = await self._missed(listener, since, low)
            if not self._joining or self._joining[0][0] is not listener:
                continue  # it has left meanwhile
            del self._joining[0]
            listener.resume([msgspec.json.encode({"type": "hello", "seq": self._seq}), *(missed or ())])
            if missed is None:
                listener.resync(self._seq)
            self._add(listener)
        return len(found) >= _AT_ONCE

    async def _tell(self, found: Sequence[Told]) -> None:
        heard: set[Listener] = set()
        puts = 0
        for told in found:
            for listener in set[Listener]().union(*(self._listeners.get(topic, ()) for topic in told.topics)):
                listener.put(told)
                heard.add(listener)
                puts += 1
                if not puts % _PUT_IN_A_ROW:
                    await asyncio.sleep(0)
            self._seq = told.seq
        await self._wake(heard)

    async def _wake(self, heard: set[Listener]) -> None:
        """A few at a time, over a tenth of a second where they are many: a write to all in one go would be a pause in every stream."""
        in_a_row = max(_WOKEN_IN_A_ROW, len(heard) // _PORTIONS)
        for number, listener in enumerate(heard, 1):
            listener.wake()
            if not number % in_a_row:
                await asyncio.sleep(min(self._poll_s, _PAUSE_S))

    async def _missed(self, listener: Listener, since: int | None, low: int) -> list[bytes] | None:
        """What it may see of what came after `since`; None where that is not known any more, or too much."""
        assert self._seq is not None
        if since is None or since == self._seq:
            return []
        if since > self._seq or since < low - 1:
            return None
        found = await self._log.after(since, MAX_RESUMED + 1, self._seq)
        return None if len(found) > MAX_RESUMED else [told.text for told in found if told.topics & listener.topics]

    def _add(self, listener: Listener) -> None:
        for topic in listener.topics:
            self._listeners.setdefault(topic, set()).add(listener)
