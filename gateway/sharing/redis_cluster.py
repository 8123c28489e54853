"""The shared limits, asked of one Redis by one script: see `redis_script` for what it decides, `cluster` for what is promised.

While one round trip is under way, further takes gather and go together as the next. There are no tasks and locks for it:
what arrives calls what follows. A single Redis is meant (6 or later; one may fail over); every key has the hash tag {llmc},
so that a Redis Cluster would keep them on one node.

From the first failure on `up` is False and whoever waits is told; a connection is tried again in the background. What was
to be given back meanwhile is lost for buckets (they count too much until they refill), while slots are told anew with each
beat, a second apart: also to a Redis that has forgotten everything.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis
import msgspec

from gateway.sharing.cluster import ClusterDown, Line, Taken, placed
from gateway.sharing.redis_address import Address
from gateway.sharing.redis_keeper import Keeper, Sleep
from gateway.sharing.redis_link import TIMEOUT_S, Command, Link, Unreachable
from gateway.sharing.redis_script import PREFIX, TAKE
from monitoring import metrics

_log = logging.getLogger(__name__)
_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()
_BEAT_S = 1.0
# So much goes in one round trip: the script holds up whoever else uses this Redis.
_MAX_BATCH = 64
_answers = msgspec.msgpack.Decoder(list[msgspec.Raw])
_taken = msgspec.msgpack.Decoder(tuple[bool, tuple[float, ...], tuple[float, ...], tuple[float, ...]])
_living = msgspec.msgpack.Decoder(list[str])


class _Asked:
    """One take that waits for its answer until `deadline`, on the loop's clock."""

    __slots__ = ("deadline", "future", "lines")

    def __init__(self, lines: Sequence[Line], loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self.lines = lines
        self.future: asyncio.Future[Taken] = loop.create_future()
        self.deadline = loop.time() + timeout_s


class RedisCluster:
    """`machine` and `process` say who this is: slots belong to a process, and processes of one machine share what is local.

    `on_machines` is told how many machines live, when that changes; while Redis is away the last number stays.
    """

    def __init__(
        self,
        address: Address,
        machine: str,
        process: str,
        on_machines: Callable[[int], None],
        sleep: Sleep = asyncio.sleep,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.machines = 1
        self._timeout_s = timeout_s
        self._address = address
        self._process = f"{machine}:{process}"
        self._on_machines = on_machines
        self._keeper = Keeper(address, self._greet, self._lost, self._say_away, sleep=sleep)
        self._up_gauge = metrics.REDIS_UP.labels(address.shown)
        self._waiting: list[_Asked] = []
        self._asked: list[_Asked] = []
        self._back: list[Line] = []
        # Slots that this process holds, by name; a name at 0 is yet to be told.
        self._held: dict[str, int] = {}
        self._batch = 0
        self._flushing = self._beat_is_due = self._away = False

    @property
    def up(self) -> bool:
        return self._keeper.link is not None

    async def start(self) -> None:
        """Tries to reach Redis before it returns, for a second at most."""
        self._loop = asyncio.get_running_loop()
        self._up_gauge.set(0)
        await self._keeper.start()

    async def stop(self) -> None:
        """Gives up this process' slots at once, where Redis hears it."""
        link = self._keeper.link
        self._keeper.link = None  # nobody asks any more
        self._stop_waiting()
        for _ in range(10):
            if link is not None and link.busy:
                await asyncio.sleep(TIMEOUT_S / 10)
        if link is not None and not link.closed and not link.busy:
            try:
                await link.request(self._command([("bye", list(self._held))]))
            except Unreachable:
                pass
        if link is not None:
            link.close()
        await self._keeper.stop()

    async def take(self, lines: Sequence[Line]) -> Taken:
        """See `Cluster`."""
        if self._keeper.link is None:
            raise ClusterDown
        asked = _Asked(lines, self._loop, self._timeout_s)
        self._waiting.append(asked)
        self._soon(self._keeper.link)
        try:
            return await asked.future
        except asyncio.CancelledError:
            # Where the answer is still to come, `_answer` finds that nobody waits for it.
            if not asked.future.cancelled() and asked.future.exception() is None:
                self._undo(lines, asked.future.result())
            raise

    def give_back(self, lines: Iterable[Line]) -> None:
        """See `Cluster`."""
        if self._keeper.link is None:
            self._release(lines)
        else:
            self._back += lines
            self._soon(self._keeper.link)

    def hold(self, lines: Iterable[Line]) -> None:
        """See `Cluster`."""
        for line in lines:
            if line.kind == "slots":
                self._held[line.name] = self._held.get(line.name, 0) + 1

    def _release(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if line.kind == "slots":
                self._held[line.name] = max(0, self._held.get(line.name, 0) - 1)

    def _soon(self, link: Link) -> None:
        """Those who ask in the same turn of the loop go together."""
        if not self._flushing and not link.busy:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        link = self._keeper.link
        if link is None or link.busy or not (self._waiting or self._back or self._beat_is_due):
            return
        operations: list[tuple[str, Any]] = []
        if self._back:
            operations.append(("give", self._back))
            self._release(self._back)
            self._back = []
        told: dict[str, int] | None = None
        if self._beat_is_due:
            self._beat_is_due = False
            told = dict(self._held)  # as it is after what is given back here, and before what is taken here
            operations.append(("beat", told))
        self._asked, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
        operations += [("take", asked.lines) for asked in self._asked]
        deadline = self._asked[0].deadline if self._asked else self._loop.time() + self._timeout_s
        command = self._command(operations)
        link.ask([command], functools.partial(self._answered, link, command, told, deadline), deadline)

    def _answered(self, link: Link, command: Command, told: dict[str, int] | None, deadline: float, answers: list[Any]) -> None:
        (answer,) = answers
        if isinstance(answer, hiredis.ReplyError):
            if str(answer).startswith("NOSCRIPT"):
                again = functools.partial(self._answered, link, command, told, deadline)
                link.ask([("EVAL", TAKE, *command[2:])], again, deadline)
            else:
                link.refuse(answer)
            return
        found = _answers.decode(answer)
        if told is not None:
            self._beaten(found.pop(0), told)
        answered, self._asked = self._asked, []
        for asked, taken in zip(answered, found, strict=False):  # after `stop` nobody asks: `bye` gives back what was taken
            self._answer(asked, Taken(*_taken.decode(taken)))
        self._flush()

    def _command(self, operations: Sequence[tuple[str, Any]]) -> Command:
        self._batch += 1
        payload = msgspec.msgpack.encode((self._process, f"{self._process}:{self._batch}", operations))
        return ("EVALSHA", _SHA, 1, f"{PREFIX}live", payload)

    def _answer(self, asked: _Asked, taken: Taken) -> None:
        if taken.admitted:
            self.hold(asked.lines)
        if asked.future.done():
            self._undo(asked.lines, taken)
        else:
            asked.future.set_result(taken)

    def _undo(self, lines: Sequence[Line], taken: Taken) -> None:
        if taken.admitted:
            self.give_back(placed(lines, taken))

    def _beat(self, link: Link) -> None:
        """For as long as `link` is the one."""
        if self._keeper.link is link:
            self._loop.call_later(_BEAT_S, self._beat, link)
            self._beat_is_due = True
            self._soon(link)

    def _beaten(self, living: msgspec.Raw, told: dict[str, int]) -> None:
        for name, count in told.items():
            if not count and not self._held.get(name):
                self._held.pop(name, None)
        machines = len({process.rpartition(":")[0] for process in _living.decode(living)}) or 1
        if machines != self.machines:
            self.machines = machines
            self._on_machines(machines)

    async def _greet(self, link: Link) -> None:
        """A beat is a write: a Redis that cannot be written to is not up."""
        told = dict(self._held)
        _, answer = await link.request(("SCRIPT", "LOAD", TAKE), self._command([("beat", told)]))
        self._beaten(_answers.decode(answer)[0], told)
        self._loop.call_later(_BEAT_S, self._beat, link)
        self._up_gauge.set(1)
        self._away = False
        _log.info("redis at %s answers: limits hold for all machines together", self._address.shown)

    def _lost(self, reason: str) -> None:
        """The first failure: nobody waits any longer."""
        self._up_gauge.set(0)
        self._say_away(reason)
        self._stop_waiting()

    def _say_away(self, reason: str) -> None:
        """Once. That it is still away, for whatever reason, is no news."""
        if not self._away:
            text = "redis at %s is away: %s. Until it is back, this machine serves by its part of each limit: 1 / %d"
            _log.warning(text, self._address.shown, reason, self.machines)
        self._away = True

    def _stop_waiting(self) -> None:
        self._beat_is_due = False
        self._release(self._back)
        waiting, self._asked, self._waiting, self._back = [*self._asked, *self._waiting], [], [], []
        for asked in waiting:
            # Redis may have counted it all the same: the next beat tells it otherwise.
            for line in asked.lines:
                if line.kind == "slots":
                    self._held.setdefault(line.name, 0)
            if not asked.future.done():
                asked.future.set_exception(ClusterDown())
