"""Claims, messages and values between workers of one machine. Each `MachinePeers` here has files of its own open, as a worker has."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from core.clock import FrozenClock
from gateway.sharing.machine_laid import Laid
from gateway.sharing.machine_peers import MachinePeers

MAX_LAID_BYTES = 2**20
Start = Callable[[], Awaitable[MachinePeers]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are told apart by their ids; here by when they were made."""
    monkeypatch.setattr(MachinePeers, "_name", property(lambda peers: f"worker-{id(peers)}"))


@pytest.fixture
async def start(tmp_path: Path, names: None) -> AsyncIterator[Start]:
    started: list[MachinePeers] = []

    async def one() -> MachinePeers:
        started.append(MachinePeers(tmp_path, b"secret" * 8, time.time, MAX_LAID_BYTES))
        await started[-1].start()
        return started[-1]

    yield one
    for peers in started:
        await peers.stop()


async def test_a_name_belongs_to_one_until_it_is_released_or_its_holder_ends(start: Start) -> None:
    first, second = await start(), await start()
    assert await first.claim("n", 60)
    assert not await second.claim("n", 60)
    assert not await first.claim("n", 60)
    assert await second.claim("another", 60)
    second.release("n")  # not its own
    assert not await second.claim("n", 60)
    first.release("n")
    assert await second.claim("n", 60)
    await second.stop()
    assert await first.claim("n", 60)


async def test_a_claim_ends_with_its_time(start: Start) -> None:
    first, second = await start(), await start()
    assert await first.claim("n", 0.0)
    await asyncio.sleep(0.01)
    assert await second.claim("n", 60)


async def test_what_is_told_reaches_every_other_worker_and_each_kind_its_listener(start: Start) -> None:
    first, second, third = await start(), await start(), await start()
    heard: dict[str, list[Any]] = {"first": [], "second": [], "third": [], "other": []}
    first.listen("k", heard["first"].append)
    second.listen("k", heard["second"].append)
    third.listen("k", heard["third"].append)
    second.listen("other", heard["other"].append)
    for number in range(100):  # more than a kernel may hold at once
        first.tell("k", {"number": number})
        await asyncio.sleep(0)
    first.tell("other", {})
    await until(lambda: bool(heard["other"]) and len(heard["third"]) == 100)
    assert sorted(message["number"] for message in heard["second"]) == list(range(100))
    assert heard["first"] == []


async def test_a_message_that_is_too_long_or_not_understood_is_logged_and_nothing_else(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await start(), await start()
    heard: list[Any] = []

    def hear(message: Any) -> None:
        heard.append(message)
        raise ValueError("no")

    second.listen("k", hear)
    first.tell("k", {"text": "x" * 70_000})
    assert "too long" in caplog.text
    first.tell("k", {"number": 1})
    first.tell("k", {"number": 2})
    await until(lambda: len(heard) == 2)
    assert "not understood" in caplog.text


async def test_the_socket_of_a_worker_that_died_is_removed(start: Start, tmp_path: Path) -> None:
    first, second = await start(), await start()
    assert second._socket is not None
    asyncio.get_running_loop().remove_reader(second._socket)
    second._socket.close()
    first.tell("k", {})
    assert len(os.listdir(tmp_path / "sockets")) == 1
    second._socket = None
    first.tell("k", {})


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    assert true()


async def test_what_one_lays_down_another_finds(start: Start) -> None:
    first, second = await start(), await start()
    await first.lay("n", b"value", 60)
    assert await second.look("n") == b"value"
    assert await second.look("another") is None


# Without a loop -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


def laid(folder: Path, clock: FrozenClock, secret: bytes = b"s" * 32, max_bytes: int = MAX_LAID_BYTES) -> Laid:
    made = Laid(folder / "laid", secret, clock.wall, max_bytes)
    made.open()
    return made


def test_values_are_sealed_their_names_hashed_and_their_time_kept(tmp_path: Path, clock: FrozenClock) -> None:
    first, second, stranger = laid(tmp_path, clock), laid(tmp_path, clock), laid(tmp_path, clock, b"t" * 32)
    first.put("a name", b"a private answer", 10)
    (file,) = (tmp_path / "laid").iterdir()
    assert b"private" not in file.read_bytes()
    assert "name" not in file.name
    assert file.stat().st_mode & 0o777 == 0o600
    assert second.get("a name") == b"a private answer"
    assert stranger.get("a name") is None
    clock.advance(10)
    assert second.get("a name") is None


@pytest.mark.parametrize("place", [0, 10, 30])
def test_a_value_that_was_altered_or_cut_is_none(tmp_path: Path, clock: FrozenClock, place: int) -> None:
    one = laid(tmp_path, clock)
    one.put("n", b"a private answer", 10)
    (file,) = (tmp_path / "laid").iterdir()
    sealed = bytearray(file.read_bytes())
    sealed[place] ^= 1
    file.write_bytes(sealed)
    assert one.get("n") is None
    file.write_bytes(sealed[:place])
    assert one.get("n") is None


def test_the_oldest_make_way_and_the_bound_holds(tmp_path: Path, clock: FrozenClock) -> None:
    one = laid(tmp_path, clock)
    for number in range(600):
        one.put(f"{number}", bytes(3000), 1000)
    used = sum(-(-file.stat().st_size // 4096) * 4096 for file in (tmp_path / "laid").iterdir())
    assert used <= MAX_LAID_BYTES * 17 // 16
    assert one.get("599") == bytes(3000)
    assert one.get("0") is None
    one.put("large", bytes(MAX_LAID_BYTES // 8), 1000)
    assert one.get("large") is None


def test_values_whose_time_is_over_make_room_first(tmp_path: Path, clock: FrozenClock) -> None:
    one = laid(tmp_path, clock)
    one.put("kept", b"v", 1000)
    for number in range(100):
        one.put(f"{number}", b"v", 1)
    clock.advance(1)
    for number in range(16):
        one.put(f"new {number}", b"v", 1000)
    assert one.get("kept") == b"v"
    assert len(list((tmp_path / "laid").iterdir())) < 60
