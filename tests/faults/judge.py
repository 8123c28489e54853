"""A figure, its goal, and what was measured: noted for the report, then asserted."""

from __future__ import annotations

from typing import NamedTuple

_SIGNS = {"at_most": "≤", "at_least": "≥", "equals": "="}


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
    def __init__(self, backend: str, results: list[Result]) -> None:
        self._backend = backend
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
    ) -> None:
        """Exactly one bound. `why` is shown with a failure, such as `figures.explain()`. `misses` is the reason of a goal that is
        known not to be met: it stands in the report, and the test fails only where the goal is met after all."""
        bounds = {"at_most": at_most, "at_least": at_least, "equals": equals}
        ((kind, bound),) = [(name, value) for name, value in bounds.items() if value is not None]
        met = measured <= bound if kind == "at_most" else measured >= bound if kind == "at_least" else measured == bound
        goal = f"{_SIGNS[kind]} {spelled(bound, unit)}"
        result = Result(fault, figure, goal, spelled(measured, unit), met, self._backend, measured, "" if met else misses)
        self._results.append(result)
        assert met or misses, f"{fault} {figure}: {result.measured}, and the goal is {goal}\n{why}"
        assert not (met and misses), f"{fault} {figure}: {result.measured} meets {goal}; take its `misses` away"


def spelled(value: float, unit: str) -> str:
    """Three digits are what such a measurement is worth."""
    text = str(value) if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{text} {unit}" if unit and unit != "×" else f"{text}{unit}"
