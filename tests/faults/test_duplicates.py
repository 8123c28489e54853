"""F43: one Idempotency-Key fifty times at once is one execution, one charge and one answer, wherever the requests arrive."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import pytest

from tests.faults.backends import ON_POSTGRES
from tests.faults.client import Client, request
from tests.faults.history import History, Row
from tests.faults.judge import Judge
from tests.faults.loads import new_row
from tests.faults.processes import clients_of, until
from tests.faults.stage import Stage

AT_ONCE = 50
MODEL = "ok@tokens=20,ttfb=0.3,delay=0.02"


@pytest.mark.short
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_f43_fifty_at_once_over_the_workers_of_a_machine(stage: Stage, judge: Judge, stream: bool) -> None:
    one_execution(stage, judge, stream, "over 2 workers")


@ON_POSTGRES
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_f43_fifty_at_once_over_two_machines(new_stage: Callable[..., Stage], judge: Judge, stream: bool) -> None:
    one_execution(new_stage(machines=2), judge, stream, "over 2 machines")


def one_execution(stage: Stage, judge: Judge, stream: bool, where: str) -> None:
    how = f"{'streamed' if stream else 'whole'}, {where}"
    alias, key = stage.model(MODEL), str(uuid.uuid4())
    history = at_once(stage, alias, key, stream)
    late = at_once(stage, alias, key, stream, prompt=history[0].prompt)
    everything = History([*history, *late])
    figures = stage.check(everything)
    stats = stage.vendor.stats()
    charged = [used for used in stage.database.usage() if used.output_tokens]
    answers = {(row.text, row.finish_reason, str(row.usage)) for row in everything.ok}
    others = [row for row in everything if row.outcome != "ok" and row.status != 409]
    judge("F43", f"upstream calls, {how}", stats["total"], equals=1, why=figures.explain())
    judge("F43", f"idempotency_repeats, {how}", stats["idempotency_repeats"], at_most=0, why=figures.explain())
    judge("F43", f"charges, {how}", len(charged), equals=1, why=figures.explain())
    judge("F43", f"different answers, {how}", len(answers), equals=1, why=figures.explain())
    judge("F43", f"neither the answer nor a 409, {how}", len(others), at_most=0, why=figures.explain())
    judge("F43", f"answered afterwards, {how}", len(late.ok), equals=AT_ONCE, why=figures.explain())
    other = at_once(stage, alias, key, stream, prompt="something else")
    judge("F43", f"another body that is not a 422, {how}", sum(row.status != 422 for row in other), at_most=0, why=str(other.statuses()))


def at_once(stage: Stage, alias: str, key: str, stream: bool, prompt: str = "") -> History:
    """The same request from as many clients, each on a connection of its own, at all workers of all machines."""
    first = new_row(alias, stream)
    first.prompt = prompt or first.prompt
    first.nonce = first.prompt.split(maxsplit=1)[0]
    rows = [Row(first.nonce, alias, stream, first.prompt) for _ in range(AT_ONCE)]
    asyncio.run(_ask_all(stage, rows, key))
    return History(rows)


async def _ask_all(stage: Stage, rows: list[Row], key: str) -> None:
    clients = await _spread(stage, len(rows))
    sent = [request(row, stage.machine.port, stage.key, {"idempotency-key": key}, {}) for row in rows]
    await asyncio.gather(*(client.ask(row, wire, 20) for client, row, wire in zip(clients, rows, sent, strict=True)))
    for client in clients:
        client.close()


async def _spread(stage: Stage, count: int) -> list[Client]:
    """Connections to every worker of every machine, equally: while one is to take its share, its siblings stand still."""
    held: list[Client] = []
    workers = [(machine, pid) for machine in stage.machines for pid in machine.workers()]
    for number, (machine, pid) in enumerate(workers):
        siblings = [sibling for sibling in machine.workers() if sibling != pid]
        for sibling in siblings:
            machine.freeze(sibling)
        try:
            mine = [Client(machine.port) for _ in range(number, count, len(workers))]
            ports = {await client.connect() for client in mine}
            until(lambda pid=pid, ports=ports: ports <= clients_of(pid), "the worker has taken its connections")
        finally:
            for sibling in siblings:
                machine.thaw(sibling)
        held += mine
    return held
