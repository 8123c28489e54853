"""What the theme's script draws: it makes a chart of every canvas of class "chart", from its `data-value` and `data-options`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLORS = ("#8b5cf6", "#0ea5e9", "#10b981", "#f59e0b", "#ef4444", "#ec4899", "#94a3b8")
BAD = "#dc2626"
# Readable on white and on the dark page alike.
_TICKS = {"color": "#737b8b", "maxRotation": 0, "autoSkipPadding": 16}
# The chart's own choice for less than a ten-thousandth is 5.000000E-6.
_AMOUNTS = {**_TICKS, "format": {"notation": "standard", "maximumSignificantDigits": 3}}


def bars(label: str, data: Sequence[float | None], color: str) -> dict[str, Any]:
    return {"label": label, "data": list(data), "backgroundColor": color, "maxBarThickness": 36}


def line(label: str, data: Sequence[float | None], color: str) -> dict[str, Any]:
    """None: nothing is known of this moment; the line goes on to the next."""
    return {"label": label, "data": list(data), "borderColor": color, "backgroundColor": color, "spanGaps": True, "pointRadius": 2}


def options(unit: str, *, stacked: bool = False, legend: bool = True) -> dict[str, Any]:
    """The theme's own options know neither stacks nor what the numbers mean: `unit` is what the axis counts."""
    shown = {"display": legend, "position": "bottom", "labels": {"color": _TICKS["color"], "boxWidth": 10, "boxHeight": 10}}
    return {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "plugins": {"legend": shown},
        "interaction": {"mode": "index", "intersect": False},
        "scales": {
            "x": {"stacked": stacked, "ticks": _TICKS, "grid": {"display": False}},
            "y": {
                "stacked": stacked,
                "beginAtZero": True,
                "ticks": _AMOUNTS,
                "grid": {"tickWidth": 0},
                "title": {"display": True, "text": unit, "color": _TICKS["color"]},
            },
        },
    }
