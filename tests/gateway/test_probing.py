"""Models that nobody calls are asked for a word, within a budget; what follows for who is asked first. Scripted, no sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from core import choice
from core.clock import FrozenClock
from core.config import PROBER, ModelSpec, RouteSpec
from core.errors import GatewayError, InvalidRequest, ProviderFault, ProviderLimited
from gateway.doors import openai_chat
from gateway.pipeline import Generation, Pipeline
from gateway.probing import Bounds, Known, Prober
from gateway.sharing.peers import Alone, Peers
from monitoring.journal import AttemptOpened, AttemptSettled, RequestEnded
from tests.gateway.neighbours import Town, processes, turns
from tests.gateway.scripted import ANSWER, Bench, Steady
from tests.gateway.test_choice import outcome

FAULT = ProviderFault("The provider failed.", vendor_status=500)
INTERVAL_S = 300.0
# What ANSWER costs at the bench's price, and about the most that a probe can: its body's bytes in, five tokens out.
COST, AT_MOST = 20, 94


class Books:
    """The ledger of these processes, as of this moment."""

    def __init__(self, *benches: Bench) -> None:
        self.benches = benches
        self.error: Exception | None = None
        self.asked = 0

    async def known(self, provider_id: str, models: Sequence[ModelSpec], since_s: float) -> Known:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        begun = [row for bench in self.benches for row in bench.sink.of(AttemptOpened) if row.provider_id == provider_id]
        called = {row.model_id for row in begun if row.started_at >= since_s}
        ours = {row.request_id for row in begun if row.key_id == PROBER.key_id}
        ended = [row for bench in self.benches for row in bench.sink.of(AttemptSettled) if row.request_id in ours]
        spent = sum(row.cost_reporting_micros or 0 for row in ended)
        return Known(spent, frozenset(model.id for model in models if model.model_id in called))


def allow(bench: Bench, *names: str, budget: int = 10_000, routes: tuple[RouteSpec, ...] = (RouteSpec("r", ("m",)),)) -> None:
    """Gives the providers `names` a budget, and the bench a route to its models."""
    specs = {
        name: msgspec.structs.replace(spec, probe_budget_micros=budget if name in names else 0)
        for name, spec in bench.snapshot.providers.items()
    }
    bench.snapshot = msgspec.structs.replace(bench.snapshot, providers=specs, routes={route.alias: route for route in routes})
    bench.manager.apply(bench.snapshot)


def prober(bench: Bench, books: Books | None = None, peers: Peers | None = None, timeout_s: float = 20.0) -> Prober:
    pipeline = Pipeline(bench.manager, bench.sink, bench.clock, max_retries=0, max_in_flight=10)
    bounds = Bounds(INTERVAL_S, timeout_s, 5)
    return Prober(pipeline, books or Books(bench), peers or Alone(bench.clock.monotonic), bounds, Steady())


async def looks(probing: Prober, bench: Bench, seconds: float) -> None:
    """As long as that passes, with a look every ten seconds."""
    for _ in range(int(seconds / 10)):
        bench.clock.advance(10)
        await probing.look()


def probes(bench: Bench) -> list[str]:
    """At which provider they were made."""
    return [row.provider_name for row in bench.sink.of(AttemptOpened) if row.key_id == PROBER.key_id]


def note(bench: Bench, name: str = "a") -> str:
    found: str = bench.manager.provider_states().get(name, {}).get("probes", {}).get("note", "")
    return found


def asks(bench: Bench, model: str = "r") -> Generation:
    request = openai_chat.parse(msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "hi"}]}))
    return Generation(bench.pipeline, bench.manager.view, bench.caller, request, bench.pipeline.request_id())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(monkeypatch)
    made.scripts.update(a=[ANSWER] * 50, b=[ANSWER] * 50)
    return made


# Who is asked -------------------------------------------------------------------------------------------------------


async def test_nobody_is_asked_who_has_no_budget(bench: Bench) -> None:
    allow(bench)
    books = Books(bench)
    await looks(prober(bench, books), bench, 2_000)
    assert probes(bench) == []
    assert books.asked == 0


async def test_a_quiet_model_of_a_route_is_asked_once_an_interval_and_no_team_pays(bench: Bench) -> None:
    allow(bench, "a")
    await looks(prober(bench), bench, 4 * INTERVAL_S)
    assert 3 <= len(probes(bench)) <= 4
    assert set(probes(bench)) == {"a"}
    opened, settled, ended = (bench.sink.of(kind)[0] for kind in (AttemptOpened, AttemptSettled, RequestEnded))
    assert (opened.team_id, opened.key_name, opened.alias, opened.model_id) == ("", "health probe", "m", "vendor-a")
    assert (settled.cost_micros, settled.charged_micros) == (COST, 0)
    assert (ended.dialect, ended.status_code, ended.key_id) == ("probe", 200, PROBER.key_id)
    assert bench.settled_in_full()


async def test_models_of_no_route_are_left_alone_until_their_calls_fail(bench: Bench) -> None:
    allow(bench, "a", routes=())
    probing = prober(bench)
    await looks(probing, bench, 2 * INTERVAL_S)
    assert probes(bench) == []
    bench.scripts["a"][:] = [FAULT] + [ANSWER] * 5
    assert await outcome(asks(bench, "m")) is None  # b answers
    await looks(probing, bench, 3 * INTERVAL_S)
    assert probes(bench) == ["a"]  # it is well again, and of no interest any more


async def test_calls_make_probes_needless(bench: Bench) -> None:
    allow(bench, "a")
    probing = prober(bench)
    for _ in range(10):
        assert await outcome(asks(bench)) is None
        await looks(probing, bench, INTERVAL_S / 2)
    assert probes(bench) == []


async def test_other_models_than_chat_and_fixed_answers_are_not_asked(bench: Bench) -> None:
    models = tuple(msgspec.structs.replace(model, model_type="embedding") for model in bench.snapshot.models["m"])
    bench.snapshot = msgspec.structs.replace(bench.snapshot, models={"m": models})
    allow(bench, "a", routes=(RouteSpec("r", ("m",), fixed_answer="Later."),))
    await looks(prober(bench), bench, 2 * INTERVAL_S)
    assert probes(bench) == []


async def test_the_trial_of_an_open_breaker_is_a_probe_once_its_time_is_up(bench: Bench) -> None:
    allow(bench, "a", routes=())
    bench.scripts["a"][:] = [FAULT] * 3 + [ANSWER]
    for _ in range(3):
        assert await outcome(asks(bench, "m")) is None
    (runtime,) = (runtime for runtime in bench.manager.runtimes() if runtime.spec.name == "a")
    assert runtime.breaker_states() == ["open"]
    await looks(prober(bench), bench, 2 * INTERVAL_S)
    assert probes(bench) == ["a"]
    assert runtime.breaker_states() == ["closed"]


# What it may cost ---------------------------------------------------------------------------------------------------


async def test_a_budget_that_is_spent_ends_them_for_the_day_and_says_so(bench: Bench) -> None:
    bench.clock.advance(86_400 - bench.clock.wall() % 86_400)  # midnight
    allow(bench, "a", budget=AT_MOST + COST)
    probing = prober(bench)
    await looks(probing, bench, 10 * INTERVAL_S)
    assert len(probes(bench)) == 2
    assert note(bench).startswith("Of today's budget for probes, 0.000114 USD, 0.00004 is spent and the next may cost ")
    await looks(probing, bench, 20 * INTERVAL_S)
    assert len(probes(bench)) == 2


async def test_what_the_ledger_does_not_know_yet_is_spent_all_the_same(bench: Bench) -> None:
    allow(bench, "a", budget=AT_MOST + COST)

    class Behind(Books):
        async def known(self, provider_id: str, models: Sequence[ModelSpec], since_s: float) -> Known:
            return Known(0, frozenset())

    await looks(prober(bench, Behind(bench)), bench, 10 * INTERVAL_S)
    assert len(probes(bench)) == 2


async def test_the_next_day_has_a_budget_of_its_own(bench: Bench) -> None:
    bench.clock.advance(86_400 - bench.clock.wall() % 86_400 - 2 * INTERVAL_S)
    allow(bench, "a", budget=AT_MOST)

    class OfToday(Books):
        async def known(self, provider_id: str, models: Sequence[ModelSpec], since_s: float) -> Known:
            known = await super().known(provider_id, models, since_s)
            return known if bench.clock.wall() < midnight else known._replace(spent_micros=0)

    midnight = bench.clock.wall() + 2 * INTERVAL_S
    probing = prober(bench, OfToday(bench))
    await looks(probing, bench, 2 * INTERVAL_S)
    assert len(probes(bench)) == 1
    await looks(probing, bench, 2 * INTERVAL_S)
    assert len(probes(bench)) == 2


async def test_without_a_price_nothing_is_asked_and_it_says_why(bench: Bench) -> None:
    models = tuple(msgspec.structs.replace(model, prices=()) for model in bench.snapshot.models["m"])
    bench.snapshot = msgspec.structs.replace(bench.snapshot, models={"m": models})
    allow(bench, "a")
    await looks(prober(bench), bench, 2 * INTERVAL_S)
    assert probes(bench) == []
    assert note(bench).startswith("The model m has no price in USD, so what a probe of it would cost is not known")


async def test_a_ledger_that_cannot_be_read_means_no_probe(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    allow(bench, "a")
    books = Books(bench)
    books.error = OSError("the database is away")
    await looks(prober(bench, books), bench, INTERVAL_S)
    assert probes(bench) == []
    assert "provider a is not probed: the ledger cannot be read (OSError: the database is away)" in caplog.text


# What follows -------------------------------------------------------------------------------------------------------


async def test_a_model_that_does_not_answer_is_asked_after_others_and_explain_says_why(bench: Bench) -> None:
    allow(bench, "a")
    bench.scripts["a"][:] = [FAULT]
    probing = prober(bench)
    await looks(probing, bench, INTERVAL_S)
    probed = bench.manager.provider_states()["a"]["probes"]
    assert [(each["model"], each["reason"]) for each in probed["failed"]] == [("vendor-a", "The provider failed.")]
    for model in ("m", "r"):
        generation = asks(bench, model)
        assert await outcome(generation) is None
        assert generation.provider_name == "b"
    decision = choice.read(bench.sink.of(RequestEnded)[-1].decision)
    assert decision is not None
    reasons = [(line.candidate.provider, line.reason) for line in choice.explained(decision)]
    assert reasons == [("b", "as listed"), ("a", "asked after the others: it did not answer when it was last probed")]
    bench.scripts["a"][:] = [ANSWER] * 3
    await looks(probing, bench, 2 * INTERVAL_S)
    assert bench.manager.provider_states() == {}
    generation = asks(bench)
    assert await outcome(generation) is None
    assert generation.provider_name == "a"


@pytest.mark.parametrize("error", [InvalidRequest("max_tokens is too small"), ProviderLimited("Slow down.", retry_after_s=1)])
async def test_what_says_nothing_of_the_model_is_no_sign(bench: Bench, error: GatewayError) -> None:
    allow(bench, "a")
    bench.scripts["a"][:] = [error]
    await looks(prober(bench), bench, INTERVAL_S)
    assert probes(bench) == ["a"]
    assert all(not runtime.standing.ill for runtime in bench.manager.runtimes())


async def test_a_model_that_is_silent_is_given_up(bench: Bench) -> None:
    allow(bench, "a")

    async def silence() -> Any:
        await asyncio.Event().wait()

    bench.scripts["a"][:] = [silence]
    await looks(prober(bench, timeout_s=0.01), bench, 100)
    assert "within 0.01 s" in bench.manager.provider_states()["a"]["probes"]["failed"][0]["reason"]
    assert bench.settled_in_full()


async def test_an_adapter_that_breaks_stops_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    allow(bench, "a", "b")
    bench.scripts["a"][:] = [AttributeError("chat_call")]
    await looks(prober(bench), bench, 100)
    assert sorted(probes(bench)) == ["a", "b"]
    assert bench.settled_in_full()
    assert "a probe failed" in caplog.text


@pytest.mark.parametrize("ends", ["answer", "reset", "no budget", "age", "model gone"])
async def test_what_ends_the_doubt(bench: Bench, ends: str) -> None:
    allow(bench, "a")
    bench.scripts["a"][:] = [FAULT]
    probing = prober(bench)
    await looks(probing, bench, 100)
    (runtime,) = (runtime for runtime in bench.manager.runtimes() if runtime.spec.name == "a")
    assert runtime.standing.ill
    if ends == "answer":
        bench.scripts.update(a=[ANSWER], b=[FAULT])
        assert await outcome(asks(bench)) is None
    elif ends == "reset":
        runtime.reset()
    elif ends == "no budget":
        allow(bench)
    elif ends == "age":
        bench.clock.advance(4 * INTERVAL_S)
        probing._forget([runtime], bench.snapshot)
    else:
        bench.snapshot = msgspec.structs.replace(bench.snapshot, models={"m": bench.snapshot.models["m"][1:]})
        bench.manager.apply(bench.snapshot)
        await probing.look()
    assert not runtime.standing.ill


async def test_a_probe_that_the_end_of_the_process_cuts_off_is_settled(bench: Bench) -> None:
    allow(bench, "a")

    async def silence() -> Any:
        await asyncio.Event().wait()

    bench.scripts["a"][:] = [silence]
    probing = prober(bench)
    bench.clock.advance(1)
    await probing.look()

    async def sleep(seconds: float) -> None:
        bench.clock.advance(100)
        await turns(1)

    probing.start(sleep)
    await turns()
    assert probes(bench) == ["a"]
    await probing.stop()
    assert bench.settled_in_full()
    assert [row.status for row in bench.sink.of(AttemptSettled)] == ["client_closed"]


async def test_with_an_interval_of_nothing_no_budget_helps(bench: Bench) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError("it waits for a look")

    allow(bench, "a")
    pipeline = Pipeline(bench.manager, bench.sink, bench.clock, max_retries=0, max_in_flight=10)
    probing = Prober(pipeline, Books(bench), Alone(), Bounds(0, 20, 5))
    probing.start(never)
    await turns()
    await probing.stop()
    assert probes(bench) == []


# Several processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_touch", [True, False])
async def test_of_several_processes_one_asks_and_all_know(monkeypatch: pytest.MonkeyPatch, in_touch: bool) -> None:
    """Those that share only the ledger do not ask twice either, unless they ask in the same moment."""
    town = Town(FrozenClock())
    three = processes(monkeypatch, town, 3)
    three[0].scripts.update(a=[FAULT] + [ANSWER] * 50, b=[ANSWER] * 50)
    books = Books(*three)
    probing = []
    for one in three:
        allow(one, "a")
        probing.append(prober(one, books, one.peers if in_touch else None))  # type: ignore[attr-defined]
    town.clock.advance(100)
    for each in probing:
        if in_touch:
            await asyncio.gather(*(each.look() for each in probing))
        else:
            await each.look()
    town.clock.advance(100)
    await asyncio.gather(*(each.look() for each in probing))
    await turns()
    assert [place for one in three for place in probes(one)] == ["a"]
    if in_touch:
        assert [set(runtime.standing.ill) for one in three for runtime in one.manager.runtimes() if runtime.spec.name == "a"] == [
            {"vendor-a"}
        ] * 3
        three[1].scripts.update(b=[FAULT])
        assert await outcome(asks(three[1])) is None
        await turns()
        assert not any(runtime.standing.ill for one in three for runtime in one.manager.runtimes())
