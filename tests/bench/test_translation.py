"""The translation benchmark measures whole translations; how fast they are is its own business."""

from __future__ import annotations

import pytest

from bench.translation import CLIENTS, WIRES, cases, chunk_cost_us


def test_every_wire_meets_every_client_of_another_dialect() -> None:
    names = [what for what, _, _ in cases()]
    assert len(names) == 2 + len(WIRES) * len(CLIENTS) - 2  # what passes is not translated as well


@pytest.mark.parametrize("case", [pytest.param(case, id=case[0]) for case in cases()])
def test_no_chunk_is_lost_while_it_is_timed(case: tuple) -> None:
    _, reader, wire = case
    assert chunk_cost_us(reader, wire, chunks=3, rounds=1) >= 0
