"""F49: five hundred clients ask the same at once. What makes them one call is the cache of answers, or their Idempotency-Key."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.client import Client, request
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import new_row
from tests.faults.processes import until
from tests.faults.stage import Stage

CLIENTS = 500
TIMEOUT_S = 30.0
TTL_S = 4
MODEL = "ok@tokens=20,delay=0.02,ttfb=0.5"
# One process answers them all.
ROOM = {"LLM_MAX_STREAMS": "1000"}


@pytest.mark.short
@ON_SQLITE
def test_f49_five_hundred_cold_and_at_an_expiry(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(workers=1, env=ROOM)
    one_call(stage, judge, "in 1 process", stream=False)
    alias, prompt = stage.model(MODEL, cache_ttl_s=TTL_S), f"nonce:{uuid.uuid4()}"
    (asked,) = asyncio.run(herd(stage, alias, prompt, clients=1))
    time.sleep(TTL_S)  # from when it was made, which was before
    began_s = time.monotonic()
    history = asyncio.run(herd(stage, alias, prompt))
    expiries, why = int((time.monotonic() - began_s) // TTL_S), str(history.statuses())
    calls = len(stage.vendor.calls(prompt)) - 1
    judge("F49", "before an expiry: answered", int(asked.outcome == "ok"), equals=1, why=str(asked))
    judge(
        "F49",
        "upstream calls for 500 at an expiry, in 1 process, besides one for each TTL that they took",
        calls - expiries,
        at_most=1,
        why=why,
    )
    judge("F49", "at an expiry: SWAP", sum(row.swapped for row in history), at_most=0, why=why)
    judge("F49", "at an expiry: clients that have the answer", len(history.ok), equals=CLIENTS, why=why)


def test_f49_five_hundred_over_the_workers_of_a_machine(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(env=ROOM)
    for stream in (False, True):
        one_call(stage, judge, "over 2 workers", stream=stream)


def one_call(stage: Stage, judge: Judge, where: str, *, stream: bool) -> None:
    alias, prompt = stage.model(MODEL, cache_ttl_s=3600), f"nonce:{uuid.uuid4()}"
    history = asyncio.run(herd(stage, alias, prompt, stream=stream))
    what, why = f"{'streams' if stream else 'whole answers'} with the cache, {where}", str(history.statuses())
    until(lambda: charged(stage, alias), "what was bought is on record")
    judge("F49", f"upstream calls for 500 cold {what}", len(stage.vendor.calls(history[0].nonce)), equals=1, why=why)
    judge("F49", f"{what}: charges", charged(stage, alias), equals=1, why=why)
    judge("F49", f"{what}: SWAP", sum(row.swapped for row in history), at_most=0, why=why)
    judge("F49", f"{what}: clients that have the answer", len(history.ok), equals=CLIENTS, why=why)


def test_f49_five_hundred_of_one_idempotency_key_at_once(stage: Stage, judge: Judge) -> None:
    """On two workers; once as whole answers, once as streams."""
    for stream in (False, True):
        alias, prompt = stage.model(MODEL), f"nonce:{uuid.uuid4()}"
        history = asyncio.run(herd(stage, alias, prompt, {"idempotency-key": prompt}, stream=stream))
        what, why = "streams" if stream else "whole answers", str(history.statuses())
        until(lambda alias=alias: charged(stage, alias), "what was bought is on record")
        calls, swapped = stage.vendor.calls(history[0].nonce), sum(row.swapped for row in history)
        judge("F49", f"upstream calls for 500 {what} of one Idempotency-Key", len(calls), equals=1, why=why)
        judge("F49", f"{what}: charges", charged(stage, alias), equals=1, why=why)
        judge("F49", f"{what}: SWAP", swapped, at_most=0, why=why)
        judge("F49", f"{what}: clients that have the answer", len(history.ok), equals=CLIENTS, why=why)


def charged(stage: Stage, alias: str) -> int:
    return sum(used.alias == alias for used in stage.database.usage())


async def herd(
    stage: Stage, alias: str, prompt: str, headers: dict[str, str] | None = None, *, stream: bool = False, clients: int = CLIENTS
) -> History:
    """The same prompt, and so the same body, on a connection each."""
    rows = History()
    connections = [Client(stage.machine.port) for _ in range(clients)]
    for _ in connections:
        row = new_row(alias, stream)
        row.nonce = row.prompt = prompt
        rows.append(row)
    sent = request(rows[0], stage.machine.port, stage.key, headers or {}, {})
    await asyncio.gather(*(client.ask(row, sent, TIMEOUT_S) for client, row in zip(connections, rows, strict=True)))
    for client in connections:
        client.close()
    return rows
