"""Budgets in the life of a request: what is reserved, charged and given back, whatever the end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from access.budget_rules import MAX_LIMIT
from core.chat import Usage
from core.config import BudgetSpec, ExchangeRateSpec, PriceSpec
from core.errors import (
    AccountingUnavailable,
    BudgetExhausted,
    ClientGone,
    ModelUnpriced,
    ProviderFault,
)
from core.money import RATE_SCALE
from gateway import spending
from gateway.budget import Budgets
from gateway.doors import completions, embeddings, openai_chat
from gateway.pipeline import Generation
from monitoring.journal import AttemptOpened, AttemptSettled
from tests.gateway.scripted import ANSWER, Bench, Stream
from tests.gateway.test_budget import FakeBank

COST = 10 * 1 + 5 * 2  # of scripted.USAGE at the price of scripted.Bench, in micro-units
MONEY = BudgetSpec("b", "The monthly money budget of team team", "team", "t", "money", 10_000, "month", "USD")


@pytest.fixture
def bank() -> FakeBank:
    return FakeBank()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def limited(bench: Bench, bank: FakeBank, *specs: BudgetSpec, **snapshot: Any) -> None:
    bench.snapshot = msgspec.structs.replace(bench.snapshot, budgets=specs, **snapshot)
    bench.manager.apply(bench.snapshot)
    budgets = bench.pipeline.budgets = Budgets(bank, bench.clock, lease_s=60, timeout_s=5)
    bench.pipeline.budget_output_tokens = 100
    budgets.apply(bench.snapshot)


def free(bench: Bench, budget: str = "b") -> int:
    assert bench.pipeline.budgets is not None
    lease = bench.pipeline.budgets._accounts[budget].lease
    return lease.granted - lease.free


async def whole(bench: Bench, **fields: Any) -> Generation:
    generation = asked(bench, **fields)
    try:
        await generation.start()
    except Exception as error:
        generation.end(error)  # type: ignore[arg-type]
        raise
    generation.end(None)
    return generation


def asked(bench: Bench, **fields: Any) -> Generation:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    request = openai_chat.parse(msgspec.json.encode(body))
    return Generation(bench.pipeline, bench.manager.view, bench.caller, request, bench.pipeline.request_id())


def charges(bench: Bench) -> list[tuple[int, ...]]:
    return [record.charges for record in bench.sink.of(AttemptSettled)]


async def test_an_answer_costs_what_it_cost(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, MONEY)
    bench.scripts["a"] = [ANSWER]
    await whole(bench, max_tokens=50)
    (opened,) = bench.sink.of(AttemptOpened)
    body_bytes = len(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}))
    assert opened.holds[0].reserved == body_bytes * 1 + 50 * 2
    assert charges(bench) == [(COST,)]
    assert free(bench) == COST


async def test_nothing_is_sent_beyond_the_budget(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, msgspec.structs.replace(MONEY, limit=100))
    bench.scripts["a"] = [ANSWER]
    with pytest.raises(BudgetExhausted, match=r"0\.0 USD of 0\.0001 USD are used; this request may need up to 0\.000"):
        await whole(bench)
    assert bench.scripts["a"] == [ANSWER]
    assert not bench.sink.of(AttemptOpened)


@pytest.mark.parametrize(("kind", "used"), [("tokens", 15), ("requests", 1)])
async def test_tokens_and_requests(bench: Bench, bank: FakeBank, kind: str, used: int) -> None:
    limited(bench, bank, msgspec.structs.replace(MONEY, kind=kind, currency="", limit=1000))
    bench.scripts["a"] = [ANSWER]
    await whole(bench)
    assert charges(bench) == [(used,)]


async def test_all_that_apply_are_charged(bench: Bench, bank: FakeBank) -> None:
    change = msgspec.structs.replace
    scopes = {"key": "k", "team": "t", "provider": "a", "user": "ann"}
    specs = [change(MONEY, id=scope, scope=scope, holder=holder, hard=False) for scope, holder in scopes.items()]
    others = [change(spec, id=f"not-{spec.id}", holder="other") for spec in specs]
    limited(bench, bank, *specs, *others)
    bench.scripts["a"] = [ANSWER, ANSWER]
    await whole(bench, user="ann")
    await whole(bench)
    assert [[hold.budget_id for hold in opened.holds] for opened in bench.sink.of(AttemptOpened)] == [
        [*scopes],
        ["key", "team", "provider"],
    ]


async def test_a_client_that_leaves_is_charged_for_what_it_got(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, MONEY)
    bench.scripts["a"] = [Stream(b"12345678", b"12345678")]
    generation = asked(bench, stream=True)
    await generation.start()
    await generation.next_piece()
    so_far = generation.so_far(bench.clock.monotonic())
    generation.end(ClientGone("left"))
    request = generation._request
    expected = request.estimated_input_tokens * 1 + 2 * 2
    assert (so_far.charges, charges(bench)) == ((expected,), [(expected,)])
    assert free(bench) == expected


async def test_a_failure_gives_everything_back(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, MONEY)
    bench.scripts |= {"a": [ProviderFault("down")] * 3, "b": [ProviderFault("down")] * 3}
    with pytest.raises(ProviderFault):
        await whole(bench)
    assert set(charges(bench)) == {()}
    assert free(bench) == 0


async def test_a_retried_attempt_is_our_cost_and_the_caller_pays_once(
    bench: Bench, bank: FakeBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = msgspec.structs.replace(MONEY, id="p", scope="provider", holder="a", hard=False)
    limited(bench, bank, MONEY, ours)
    bench.scripts |= {"a": [ProviderFault("after it had counted")], "b": [ANSWER]}
    monkeypatch.setattr("gateway.settlement._usage", lambda attempt, request, error: Usage(input=7))
    await whole(bench)
    assert charges(bench) == [(0, 7), (7,)]
    assert free(bench) == 7


async def test_without_a_price_the_next_of_the_chain_is_asked(bench: Bench, bank: FakeBank) -> None:
    unpriced = msgspec.structs.replace(bench.model("a"), prices=())
    limited(bench, bank, MONEY, models={"m": (unpriced, bench.model("b"))})
    bench.scripts["b"] = [ANSWER]
    generation = await whole(bench)
    assert generation.provider_name == "b"
    assert len(bench.sink.of(AttemptOpened)) == 1


async def test_without_any_price_it_is_refused_by_name(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, MONEY, models={"m": (msgspec.structs.replace(bench.model("a"), prices=()),)})
    with pytest.raises(
        ModelUnpriced, match="'m' at provider a has no price in USD, and The monthly money budget of team team limits money"
    ):
        await whole(bench)
    limited(bench, bank, msgspec.structs.replace(MONEY, hard=False), models={"m": (msgspec.structs.replace(bench.model("a"), prices=()),)})
    bench.scripts["a"] = [ANSWER]
    await whole(bench)


async def test_what_we_may_spend_at_one_provider_leaves_the_others(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, msgspec.structs.replace(MONEY, scope="provider", holder="a", limit=1))
    bench.scripts["b"] = [ANSWER]
    assert (await whole(bench)).provider_name == "b"


async def test_a_journal_that_cannot_be_written_holds_nothing_back(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, MONEY)
    bench.scripts["a"], bench.sink.broken = [ANSWER], True
    with pytest.raises(AccountingUnavailable):
        await whole(bench)
    assert free(bench) == 0


async def test_who_is_cancelled_while_waiting_for_a_lease_holds_nothing(bench: Bench, bank: FakeBank) -> None:
    limited(bench, bank, MONEY)
    bank.hold = asyncio.Event()
    waiting = asyncio.create_task(whole(bench))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    bank.hold.set()
    assert bench.pipeline.budgets is not None
    for _ in range(3):
        await bench.pipeline.budgets.tend()
    assert bank.granted == 0


# The most that it can cost -------------------------------------------------------------------------------------------


def most(bench: Bench, spec: BudgetSpec, **model: Any) -> int | None:
    target = bench.manager.view.targets["m"][0]
    target = msgspec.structs.replace(target, model=msgspec.structs.replace(target.model, **model))
    tokens = spending.Tokens(1000, 100)
    return spending._most_money(spec, tokens, target, bench.caller, bench.snapshot, 1e9)


def price(**values: Any) -> PriceSpec:
    return PriceSpec(**{"id": "p", "currency": "USD", "valid_from": 0.0, "valid_to": None, "input": 10, "cached_input": 1, "output": 20,
                        "cache_write": 0, **values})  # fmt: skip


def test_the_dearest_bucket_tier_and_size(bench: Bench) -> None:
    prices = (price(input=3_000_000, output=1), price(service_tier="priority", cache_write=9_000_000), price(reasoning=80_000_000))
    assert most(bench, MONEY, prices=prices) == 1000 * 9 + 1
    assert most(bench, MONEY, prices=(prices[0],)) == 3001
    assert most(bench, MONEY, prices=(prices[2],)) == 8001
    assert most(bench, MONEY, prices=(prices[1],)) is None
    assert most(bench, MONEY, prices=(price(valid_from=2e9),)) is None


def test_discounts_markups_and_other_currencies(bench: Bench) -> None:
    bench.caller = msgspec.structs.replace(bench.caller, price_adjustment_bp=1000)
    in_yuan = (price(currency="CNY", input=1_000_000, output=0),)
    assert most(bench, MONEY, prices=in_yuan) is None
    rates = {"CNY": (ExchangeRateSpec(0.0, RATE_SCALE // 4, "0.25"),)}
    bench.snapshot = msgspec.structs.replace(bench.snapshot, exchange_rates=rates)
    assert most(bench, MONEY, prices=in_yuan) == 275
    assert most(bench, msgspec.structs.replace(MONEY, scope="provider"), prices=in_yuan) == 250
    inverse = {"CNY": (ExchangeRateSpec(0.0, 3 * RATE_SCALE, "1/3", inverse=True),)}
    with_inverse = msgspec.structs.replace(bench.snapshot, exchange_rates=inverse)
    provider, bench.snapshot, before = msgspec.structs.replace(MONEY, scope="provider"), with_inverse, bench.snapshot
    assert most(bench, provider, prices=in_yuan) == 334  # a third of a thousand, rounded up
    bench.snapshot = before
    assert most(bench, msgspec.structs.replace(MONEY, currency="CNY"), prices=in_yuan) == 1100
    assert most(bench, msgspec.structs.replace(MONEY, currency="EUR"), prices=in_yuan) is None
    assert most(bench, msgspec.structs.replace(MONEY, currency="EUR"), prices=(price(input=0, output=0, cached_input=0),)) == 0


@pytest.mark.parametrize(
    ("fields", "window", "tokens"),
    [
        ({"max_tokens": 7}, 0, (72, 7)),
        ({"max_tokens": 7, "n": 3}, 0, (78, 21)),
        ({}, 0, (57, 4096)),
        ({}, 50, (50, 4096)),
    ],
)
def test_the_most_tokens(bench: Bench, fields: dict[str, Any], window: int, tokens: tuple[int, int]) -> None:
    request = asked(bench, **fields)._request
    assert spending.worst_case(request, bench.model("a"), window, 4096) == tokens
    short = msgspec.structs.replace(bench.model("a"), max_output_tokens=5)
    assert spending.worst_case(request, short, window, 4096).output == 5 * fields.get("n", 1)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("hi", 1), (["hi"], 1), (["hi", "you"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), (["hi"] * 300, 300)],
)
def test_each_of_several_prompts_has_an_answer_and_a_window_of_its_own(bench: Bench, prompt: Any, prompts: int) -> None:
    completion = completions.parse(msgspec.json.encode({"model": "m", "prompt": prompt, "max_tokens": 7, "n": 2}))
    assert spending.worst_case(completion, bench.model("a"), 3, 4096) == (3 * prompts, 7 * 2 * prompts)
    texts = embeddings.parse(msgspec.json.encode({"model": "m", "input": prompt}))
    assert spending.worst_case(texts, bench.model("a"), 3, 4096) == (3 * prompts, 0)


async def test_what_a_soft_budget_reserves_fits_the_books_whatever_is_asked_for(bench: Bench, bank: FakeBank) -> None:
    """A row that does not fit its column is refused by the database, and the charge with it."""
    limited(bench, bank, msgspec.structs.replace(MONEY, hard=False))
    bench.pipeline.budget_output_tokens = 10**19
    bench.scripts["a"] = [ANSWER]
    await whole(bench)
    assert MAX_LIMIT < bench.sink.of(AttemptOpened)[0].holds[0].reserved < 2**63
    assert charges(bench) == [(COST,)]


@pytest.mark.parametrize(
    ("fields", "user"),
    [({}, ""), ({"user": "ann"}, "ann"), ({"metadata": {"user_id": "bob"}}, "bob"), ({"user": 7}, ""), ({"metadata": 1}, "")],
)
def test_whom_a_request_names(bench: Bench, fields: dict[str, Any], user: str) -> None:
    parsed = asked(bench)._request
    parsed.fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    assert spending.user_of(parsed) == user
