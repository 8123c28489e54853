"""F49: five hundred clients ask the same at once. There is no cache of answers yet: what makes them one call is their Idempotency-Key."""

from __future__ import annotations

import asyncio
import uuid

from tests.faults.client import Client, request
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import new_row
from tests.faults.processes import until
from tests.faults.stage import Stage

CLIENTS = 500
TIMEOUT_S = 30.0


def test_f49_five_hundred_of_one_idempotency_key_at_once(stage: Stage, judge: Judge) -> None:
    """On two workers; once as whole answers, once as streams."""
    for stream in (False, True):
        alias = stage.model("ok@tokens=20,delay=0.02,ttfb=0.5")
        history = asyncio.run(herd(stage, alias, stream=stream))
        what, why = "streams" if stream else "whole answers", str(history.statuses())
        until(lambda alias=alias: charged(stage, alias), "what was bought is on record")
        calls, swapped = stage.vendor.calls(history[0].nonce), sum(row.swapped for row in history)
        judge("F49", f"upstream calls for 500 {what} of one Idempotency-Key (no exact cache yet)", len(calls), equals=1, why=why)
        judge("F49", f"{what}: charges", charged(stage, alias), equals=1, why=why)
        judge("F49", f"{what}: SWAP", swapped, at_most=0, why=why)
        judge("F49", f"{what}: clients that have the answer", len(history.ok), equals=CLIENTS, why=why)


def charged(stage: Stage, alias: str) -> int:
    return sum(used.alias == alias for used in stage.database.usage())


async def herd(stage: Stage, alias: str, *, stream: bool) -> History:
    """The same prompt, and so the same body, on a connection each."""
    prompt = f"nonce:{uuid.uuid4()}"
    headers = {"idempotency-key": prompt}
    rows = History()
    clients = [Client(stage.machine.port) for _ in range(CLIENTS)]
    for _ in clients:
        row = new_row(alias, stream)
        row.nonce = row.prompt = prompt
        rows.append(row)
    sent = request(rows[0], stage.machine.port, stage.key, headers, {})
    await asyncio.gather(*(client.ask(row, sent, TIMEOUT_S) for client, row in zip(clients, rows, strict=True)))
    for client in clients:
        client.close()
    return rows
