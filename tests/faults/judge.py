"""A figure, its goal, and what was measured: noted for the report, then asserted."""

from __future__ import annotations

from typing import NamedTuple

_SIGNS = {"at_most": "≤", "at_least": "≥", "equals": "="}
# How long something took says as much of a busy machine as of the product: there it fails a test only where it is out of all
# proportion, so many times its goal and so much more, by unit.
_TIMES, _MORE = 5, {"s": 5.0, "ms": 5_000.0, "µs": 1_000.0}


class Result(NamedTuple):
    """`fault`: of a fault, or of a goal itself. `value` is `measured` as a number; `misses` says why a goal is not met."""

    fault: str
    figure: str
    goal: str
    measured: str
    met: bool
    backend: str
    value: float = 0.0
    misses: str = ""


class Judge:
    def __init__(self, backend: str, results: list[Result], *, busy: bool = False) -> None:
        """`busy`: the machine may be, as CI's are; see `timed`."""
        self._backend = backend
        self._busy = busy
        self._results = results

    def __call__(
        self,
        fault: str,
        figure: str,
        measured: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        equals: float | None = None,
        unit: str = "",
        why: str = "",
        misses: str = "",
        timed: bool = False,
    ) -> None:
        """Exactly one bound. `timed`: it depends on how busy the machine is, as every figure in seconds does. `why` is shown with
        a failure, such as `figures.explain()`. `misses` is the reason of a goal that is known not to be met: it stands in the
        report, and the test fails only where the goal is met after all."""
        bounds = {"at_most": at_most, "at_least": at_least, "equals": equals}
        ((kind, bound),) = [(name, value) for name, value in bounds.items() if value is not None]
        met = measured <= bound if kind == "at_most" else measured >= bound if kind == "at_least" else measured == bound
        goal = f"{_SIGNS[kind]} {spelled(bound, unit)}"
        result = Result(fault, figure, goal, spelled(measured, unit), met, self._backend, measured, "" if met else misses)
        self._results.append(result)
        assert met or misses or self._excused(measured, at_most, unit, timed), (
            f"{fault} {figure}: {result.measured}, and the goal is {goal}\n{why}"
        )
        assert not (met and misses), f"{fault} {figure}: {result.measured} meets {goal}; take its `misses` away"

    def _excused(self, measured: float, at_most: float | None, unit: str, timed: bool) -> bool:
        """A missed goal is shown as one, and does not fail the test."""
        return self._busy and at_most is not None and (timed or unit in _MORE) and measured <= _TIMES * at_most + _MORE.get(unit, 0.0)


def spelled(value: float, unit: str) -> str:
    """Three digits are what such a measurement is worth."""
    text = str(value) if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{text} {unit}" if unit and unit != "×" else f"{text}{unit}"
