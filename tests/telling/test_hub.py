"""The hub and its queues, with a log that the test writes: bounds, markers, resuming. Nothing waits for a clock."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

from telling.events import Told
from telling.hub import MAX_RESUMED, MAX_WAITING, Hub, Listener, Log

MINE, OTHERS = frozenset({"task.key.1"}), frozenset({"task.key.2"})


class Written(Log):
    def __init__(self) -> None:
        self.told: list[Told] = []

    def write(self, topics: frozenset[str], count: int = 1) -> None:
        for _ in range(count):
            seq = (self.told[-1].seq if self.told else 0) + 1
            self.told.append(Told(seq, topics, json.dumps({"seq": seq, "type": "task"}).encode()))

    async def held(self) -> tuple[int, int]:
        return (self.told[0].seq, self.told[-1].seq) if self.told else (0, 0)

    async def after(self, seq: int, most: int, up_to: int | None = None) -> Sequence[Told]:
        found = [told for told in self.told if told.seq > seq and (up_to is None or told.seq <= up_to)]
        return found[:most]


async def frames(listener: Listener, count: int) -> list[dict[str, Any]]:
    """So many at least; what more there was at the same time goes back to where it was."""
    texts: list[bytes] = []
    while len(texts) < count:
        texts += await listener.next()
    listener._waiting.extendleft(reversed(texts[count:]))
    return [json.loads(text) for text in texts[:count]]


def waits(listener: Listener) -> bool:
    return bool(listener._resumed or listener._waiting or listener._missed_up_to is not None)


async def joined(hub: Hub, topics: frozenset[str] = MINE, since: int | None = None) -> Listener:
    listener = Listener(topics)
    hub.join(listener, since)
    await hub.look()
    return listener


async def test_each_hears_what_is_for_it_and_nothing_else() -> None:
    log = Written()
    log.write(MINE, 3)
    hub = Hub(log, 0)
    mine, both = await joined(hub), await joined(hub, MINE | OTHERS)
    log.write(MINE)
    log.write(OTHERS)
    log.write(MINE | OTHERS)
    await hub.look()
    assert await frames(mine, 3) == [{"type": "hello", "seq": 3}, {"seq": 4, "type": "task"}, {"seq": 6, "type": "task"}]
    assert [each["seq"] for each in await frames(both, 4)] == [3, 4, 5, 6]
    assert not waits(mine)
    hub.leave(mine)
    log.write(MINE)
    await hub.look()
    assert not waits(mine)


async def test_a_socket_that_does_not_read_has_a_bounded_queue_and_then_a_marker() -> None:
    log = Written()
    hub = Hub(log, 0)
    slow = await joined(hub)
    await frames(slow, 1)
    log.write(MINE, MAX_WAITING)
    await hub.look()
    assert len(slow._waiting) == MAX_WAITING
    log.write(MINE, 5)
    await hub.look()
    assert len(slow._waiting) == 0
    assert await frames(slow, 1) == [{"type": "resync", "seq": MAX_WAITING + 5}]
    log.write(MINE)
    await hub.look()
    assert await frames(slow, 1) == [{"seq": MAX_WAITING + 6, "type": "task"}]


async def test_whatever_is_read_when_there_is_no_gap_without_a_marker() -> None:
    log = Written()
    hub = Hub(log, 0)
    listener = await joined(hub)
    seen, up_to = [], 0
    await frames(listener, 1)
    for count in (40, 70, 1, 300, 100, 3, 101, 5):
        log.write(MINE, count)
        await hub.look()
        for _ in range(30):
            if not waits(listener):
                break
            (frame,) = await frames(listener, 1)
            seen.append(frame)
            assert frame["type"] == "resync" or frame["seq"] == up_to + 1, frame
            assert frame["seq"] > up_to
            up_to = frame["seq"]
    assert {frame["type"] for frame in seen} == {"task", "resync"}


async def test_resuming_tells_what_was_missed_then_what_comes() -> None:
    log = Written()
    log.write(MINE, 5)
    log.write(OTHERS)
    hub = Hub(log, 0)
    again = await joined(hub, since=3)
    log.write(MINE)
    await hub.look()
    assert [each["seq"] for each in await frames(again, 4)] == [6, 4, 5, 7]
    assert not waits(again)


async def test_resuming_where_the_log_no_longer_reaches_is_a_marker() -> None:
    log = Written()
    log.write(MINE, 20)
    del log.told[:10]
    hub = Hub(log, 0)
    for since, known in ((9, False), (10, True), (20, True), (21, False), (0, False)):
        listener = await joined(hub, since=since)
        heard = await frames(listener, 2 if since != 20 else 1)
        assert heard[0] == {"type": "hello", "seq": 20}
        if not known:
            assert heard[1] == {"type": "resync", "seq": 20}, since
        elif since != 20:
            assert heard[1]["seq"] == since + 1
    log.write(MINE, MAX_RESUMED + 1)
    assert await hub.look()
    await hub.look()
    listener = await joined(hub, since=20)
    assert (await frames(listener, 2))[1]["type"] == "resync"


async def test_who_may_see_more_or_less_from_now_on_does() -> None:
    log = Written()
    hub = Hub(log, 0)
    listener = await joined(hub)
    await frames(listener, 1)
    hub.move(listener, OTHERS)
    log.write(MINE)
    log.write(OTHERS)
    await hub.look()
    assert [each["seq"] for each in await frames(listener, 1)] == [2]
    assert not waits(listener)


async def test_who_leaves_before_being_let_in_is_not() -> None:
    log = Written()
    hub = Hub(log, 0)
    listener = Listener(MINE)
    hub.join(listener, None)
    hub.leave(listener)
    log.write(MINE)
    await hub.look()
    assert not waits(listener)


async def test_a_thousand_sockets_of_which_twenty_do_not_read() -> None:
    """What F50 asks of the queues: nobody's gap is without a marker, and those who do not read hold no more than anybody may."""
    log = Written()
    hub = Hub(log, 0)
    listeners = [Listener(MINE) for _ in range(1000)]
    for listener in listeners:
        hub.join(listener, None)
    await hub.look()
    reading, stuck = listeners[20:], listeners[:20]
    for _ in range(5):
        log.write(MINE, 50)
        await hub.look()
        for listener in reading:
            while waits(listener):
                await listener.next()
        assert max(len(listener._waiting) for listener in stuck) <= MAX_WAITING
    for listener in stuck:
        hello, marker = await frames(listener, 2)
        assert (hello["type"], marker) == ("hello", {"type": "resync", "seq": 250})
        assert not waits(listener)


async def test_telling_many_leaves_other_work_its_turns() -> None:
    log = Written()
    hub = Hub(log, 0)
    listeners = [await joined(hub) for _ in range(100)]
    log.write(MINE, 2)
    waited, woken = [0], [100]
    for listener in listeners:
        await listener.next()
        listener._news.clear()

    async def other_work() -> None:
        while waited[-1] < 200 or woken[-1] < 100:
            waited.append(sum(len(each._waiting) for each in listeners))
            woken.append(sum(each._news.is_set() for each in listeners))
            await asyncio.sleep(0)

    await asyncio.gather(hub.look(), other_work())
    assert max(later - before for before, later in itertools.pairwise(waited)) <= MAX_WAITING // 2
    assert max(later - before for before, later in itertools.pairwise(woken)) <= 5


async def test_what_comes_at_one_time_goes_out_together() -> None:
    log = Written()
    hub = Hub(log, 0)
    one, other = await joined(hub), await joined(hub)
    taken: list[list[bytes]] = []

    async def write() -> None:
        while True:
            taken.append(await one.next())

    writing = asyncio.create_task(write())
    log.write(MINE, 3)
    await hub.look()
    await asyncio.sleep(0)
    assert taken == [await other.next()]
    assert all(text is told.text for text, told in zip(taken[0][1:], log.told, strict=True))  # encoded once for all
    writing.cancel()


async def test_whoever_reads_gets_a_thousand_at_one_time_without_a_marker() -> None:
    log = Written()
    hub = Hub(log, 0)
    listener = await joined(hub)
    seen: list[bytes] = []

    async def write() -> None:
        while True:
            seen.extend(await listener.next())

    writing = asyncio.create_task(write())
    log.write(MINE, 1000)
    await hub.look()
    await asyncio.sleep(0)
    assert seen[1:] == [told.text for told in log.told]
    writing.cancel()


async def test_so_much_is_taken_at_once_and_no_more() -> None:
    listener = Listener(MINE)
    for seq in range(1, 6):
        listener.put(Told(seq, MINE, b"x" * 30_000))
    assert [len(await listener.next()) for _ in range(2)] == [3, 2]
