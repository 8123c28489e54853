"""Vendors that had no calls are asked for their list of models; what follows for who is asked first. Scripted, no network, no sleeping."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from core import choice
from core.clock import FrozenClock
from core.config import KeySpec, RouteSpec
from core.errors import GatewayError, ProviderUnreachable
from core.secrets import Secret
from gateway.listing import Lister
from gateway.sharing.peers import Alone, Peers
from tests.gateway.neighbours import Town, processes, turns
from tests.gateway.scripted import ANSWER, Bench, Steady
from tests.gateway.test_choice import ChoiceBench
from tests.gateway.test_choice import outcome as outcome_of

LIST = msgspec.json.encode({"object": "list", "data": [{"id": "m"}]})
AWAY = ProviderUnreachable("The provider cannot be reached.")


class Answered:
    content_type, headers = "application/json", {"content-type": "application/json"}

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self._body = status, body

    async def read(self, limit: int) -> bytes:
        return self._body

    def close(self) -> None:
        pass


class Vendors:
    """A transport. `says` by host: a status, a body, or an exception; whoever is not in it gives a list."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {}
        self.asked: list[tuple[str, str]] = []

    async def open(self, call: Any, timeouts: Any) -> Answered:
        host = call.url.split("/")[2]
        self.asked.append((host, call.headers.get("Authorization", "")))
        said = self.says.get(host, LIST)
        if isinstance(said, dict):
            said = said[call.headers["Authorization"]]
        if isinstance(said, Exception):
            raise said
        return Answered(said, b"") if isinstance(said, int) else Answered(200, said)

    async def close(self) -> None:
        pass


def lister(bench: Bench, vendors: Vendors, interval_s: float = 100.0, peers: Peers | None = None) -> Lister:
    """Each provider of `bench` is at a host of its name."""
    specs = bench.snapshot.providers.items()
    placed = {name: msgspec.structs.replace(spec, kind="openai", base_url=f"http://{name}") for name, spec in specs}
    bench.snapshot = msgspec.structs.replace(bench.snapshot, providers=placed)
    bench.manager.apply(bench.snapshot)
    for runtime in bench.manager.runtimes():
        runtime.bare_transport = vendors  # type: ignore[assignment]
    return Lister(bench.manager.runtimes, peers or Alone(bench.clock.monotonic), bench.clock, interval_s, 5.0, Steady())


def doubts(bench: Bench) -> str:
    return "".join(runtime.spec.name for runtime in bench.manager.runtimes() if runtime.standing.doubt)


async def outcome(bench: Bench) -> GatewayError | None:
    return await outcome_of(bench.generation())


@pytest.fixture
def vendors() -> Vendors:
    return Vendors()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_only_who_had_no_call_for_the_interval_is_asked(bench: Bench, vendors: Vendors) -> None:
    looking = lister(bench, vendors)
    bench.clock.advance(99)
    bench.scripts["a"] = [ANSWER]
    assert await outcome(bench) is None
    await looking.look()
    assert not vendors.asked
    bench.clock.advance(1)
    await looking.look()
    assert vendors.asked == [("b", "Bearer s")]
    await looking.look()
    assert len(vendors.asked) == 1
    bench.clock.advance(99)
    await looking.look()
    assert [host for host, _ in vendors.asked] == ["b", "a"]


async def test_with_an_interval_of_nothing_nobody_is_asked(bench: Bench, vendors: Vendors) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError("it waits for a look")

    looking = lister(bench, vendors, 0)
    looking.start(never)
    await turns()
    await looking.stop()
    assert not vendors.asked


async def test_the_loop_looks_again_after_each_sleep_and_ends(bench: Bench, vendors: Vendors) -> None:
    async def sleep(seconds: float) -> None:
        await turns(1)
        bench.clock.advance(seconds)

    looking = lister(bench, vendors, 10)
    looking.start(sleep)
    await turns(100)
    await looking.stop()
    assert {"a", "b"} == {host for host, _ in vendors.asked}
    assert len(vendors.asked) >= 4


async def test_providers_configured_together_are_not_asked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, providers="abcdefgh")
    monkeypatch.setattr(bench.manager, "_rng", random.Random(7))
    bench.manager._runtimes.clear()
    bench.manager.apply(bench.snapshot)
    spreads = [runtime.standing.spread for runtime in bench.manager.runtimes()]
    assert len(set(spreads)) == 8
    assert all(0.75 <= spread <= 1.25 for spread in spreads)


async def test_a_list_that_is_not_given_puts_the_provider_behind_others_until_it_is(bench: Bench, vendors: Vendors) -> None:
    looking = lister(bench, vendors)
    vendors.says["a"] = AWAY
    bench.clock.advance(100)
    await looking.look()
    assert doubts(bench) == "a"
    state = bench.manager.provider_states()["a"]
    assert state == {"breakers": [], "rests": [], "listing": {"reason": AWAY.message, "since": round(bench.clock.wall())}}
    bench.scripts["b"] = [ANSWER]
    generation = bench.generation()
    assert await outcome_of(generation) is None
    assert generation.provider_name == "b"
    del vendors.says["a"]
    bench.clock.advance(30)  # sooner than after the interval
    await looking.look()
    assert doubts(bench) == ""
    assert bench.manager.provider_states() == {}


async def test_the_last_one_is_asked_all_the_same_and_an_answer_ends_the_doubt(bench: Bench, vendors: Vendors) -> None:
    looking = lister(bench, vendors)
    vendors.says = {"a": AWAY, "b": AWAY}
    bench.clock.advance(100)
    await looking.look()
    assert doubts(bench) == "ab"
    bench.scripts["a"] = [ANSWER]
    generation = bench.generation()
    assert await outcome_of(generation) is None
    assert generation.provider_name == "a"
    assert doubts(bench) == "b"
    assert bench.settled_in_full()


@pytest.mark.parametrize("said", [401, 403, 404, 405, 429, 501, 500, b"<html>", b"{}"])
async def test_what_comes_from_a_server_that_is_there_is_no_sign(bench: Bench, vendors: Vendors, said: Any) -> None:
    looking = lister(bench, vendors)
    vendors.says["a"] = said
    bench.clock.advance(100)
    await looking.look()
    assert vendors.asked
    assert doubts(bench) == ""


async def test_a_fault_counts_of_a_server_that_has_given_its_list_before(bench: Bench, vendors: Vendors) -> None:
    looking = lister(bench, vendors)
    bench.clock.advance(100)
    await looking.look()
    vendors.says = {"a": 503, "b": 501}
    bench.clock.advance(100)
    await looking.look()
    assert doubts(bench) == "a"


async def test_a_key_that_is_refused_is_passed_over(bench: Bench, vendors: Vendors) -> None:
    keys = tuple(KeySpec(f"k{number}", "", Secret(f"s{number}")) for number in range(9))
    bench.snapshot = msgspec.structs.replace(bench.snapshot, providers={**bench.snapshot.providers, "a": bench.provider("a", keys=keys)})
    looking = lister(bench, vendors)
    vendors.says["a"] = {"Bearer s0": 401, "Bearer s1": AWAY}
    bench.clock.advance(100)
    await looking.look()
    assert doubts(bench) == "a"
    vendors.says["a"] = 401
    vendors.asked.clear()
    bench.clock.advance(100)
    await looking.look()
    assert len([host for host, _ in vendors.asked if host == "a"]) == 3


async def test_a_call_that_is_answered_meanwhile_says_more(bench: Bench, vendors: Vendors) -> None:
    looking = lister(bench, vendors)
    bench.clock.advance(100)
    bench.scripts["a"] = [ANSWER]

    class Slow(Vendors):
        async def open(self, call: Any, timeouts: Any) -> Answered:
            bench.clock.advance(1)
            assert await outcome(bench) is None
            raise AWAY

    next(iter(bench.manager.runtimes())).bare_transport = Slow()  # type: ignore[assignment]
    await looking.look()
    assert doubts(bench) == ""


async def test_a_vendor_that_is_silent_is_given_up(bench: Bench, vendors: Vendors) -> None:
    class Silent(Vendors):
        async def open(self, call: Any, timeouts: Any) -> Answered:
            await asyncio.Event().wait()
            raise AssertionError

    looking = lister(bench, vendors)
    looking._timeout_s = 0.01
    next(iter(bench.manager.runtimes())).bare_transport = Silent()  # type: ignore[assignment]
    bench.clock.advance(100)
    await looking.look()
    assert doubts(bench) == "a"
    assert "within 0.01 s" in bench.manager.provider_states()["a"]["listing"]["reason"]


async def test_an_adapter_that_breaks_stops_nothing(bench: Bench, vendors: Vendors, caplog: pytest.LogCaptureFixture) -> None:
    looking = lister(bench, vendors)
    vendors.says["a"] = AttributeError("models_call")
    bench.clock.advance(100)
    await looking.look()
    assert {host for host, _ in vendors.asked} == {"a", "b"}
    assert doubts(bench) == ""
    assert "provider a could not be asked" in caplog.text


async def test_a_reset_and_a_new_address_end_the_doubt(bench: Bench, vendors: Vendors) -> None:
    looking = lister(bench, vendors)
    for ends in ("reset", "moves"):
        vendors.says["a"] = AWAY
        bench.clock.advance(100)
        await looking.look()
        assert doubts(bench) == "a"
        runtime = next(iter(bench.manager.runtimes()))
        if ends == "reset":
            runtime.reset()
        else:
            runtime.apply(msgspec.structs.replace(runtime.spec, base_url="http://elsewhere"))
        assert doubts(bench) == ""


# Several processes --------------------------------------------------------------------------------------------------


async def test_one_process_asks_and_all_know(monkeypatch: pytest.MonkeyPatch, vendors: Vendors) -> None:
    town = Town(FrozenClock())
    pair = processes(monkeypatch, town, 2, providers="a")
    looking = [lister(one, vendors, peers=one.peers) for one in pair]  # type: ignore[attr-defined]
    vendors.says["a"] = AWAY
    town.clock.advance(100)
    for each in looking:
        await each.look()
    await turns()
    assert len(vendors.asked) == 1
    assert [doubts(one) for one in pair] == ["a", "a"]
    pair[1].scripts["a"] = [ANSWER]
    assert await outcome(pair[1]) is None
    await turns()
    assert [doubts(one) for one in pair] == ["", ""]


async def test_a_process_whose_calls_are_answered_does_not_believe_it_and_says_so(
    monkeypatch: pytest.MonkeyPatch, vendors: Vendors
) -> None:
    town = Town(FrozenClock())
    pair = processes(monkeypatch, town, 2, providers="a")
    looking = [lister(one, vendors, peers=one.peers) for one in pair]  # type: ignore[attr-defined]
    vendors.says["a"] = AWAY
    town.clock.advance(100)
    pair[1].scripts["a"] = [ANSWER]
    assert await outcome(pair[1]) is None
    await looking[0].look()
    await turns()
    assert [doubts(one) for one in pair] == ["", ""]


# Who is asked first -------------------------------------------------------------------------------------------------


async def test_a_route_asks_the_doubted_after_all_that_do_not_stand_in(monkeypatch: pytest.MonkeyPatch, vendors: Vendors) -> None:
    bench = ChoiceBench(monkeypatch, RouteSpec("r", ("a", "b"), "d", "Later.", fallbacks=("c",)))
    looking = lister(bench, vendors)
    vendors.says = {"a": AWAY, "b": AWAY}
    bench.clock.advance(100)
    await looking.look()
    assert await bench.first() == "c"
    assert [bench.decision.candidates[index].provider for index in bench.decision.order] == ["c", "a", "b", "d", "fixed-answer"]
    reasons = {line.candidate.provider: line.reason for line in choice.explained(bench.decision)}
    assert reasons["a"].startswith("asked after the others: it did not give its list")
    assert reasons["c"] == "as listed"
    assert bench.settled_in_full()
